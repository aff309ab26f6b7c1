"""Proposals by a language model: several rewrites in parallel, different in kind."""

import asyncio
from typing import Final

from caliber_pipeline.core.errors import ReplyError
from caliber_pipeline.core.proposals import Candidate, Proposal, ProposalRequest
from caliber_pipeline.core.rewriting import (
    MAX_SHOWN,
    REWRITE,
    SYSTEM,
    Kind,
    RewriteReply,
    build_task,
    choose_kinds,
    read_reply,
)
from caliber_pipeline.judges.language_model import LanguageModel
from caliber_pipeline.strategies.protocol import Proposals
from caliber_pipeline.strategies.rules import propose_examples

N_CANDIDATES: Final = 4  # each costs a call and its share of screening; the kinds after the fourth rarely differ


class RewriteStrategy:
    """Asks a language model for rewrites that tighten, loosen, clarify or restructure, beside new examples."""

    name = REWRITE

    def __init__(
        self,
        model: LanguageModel,
        *,
        n_candidates: int = N_CANDIDATES,
        max_shown: int = MAX_SHOWN,
        instruction: str = SYSTEM,
    ) -> None:
        """Say who is asked, and for how many.

        Args:
            model: The language model.
            n_candidates: Proposals at most, up to the five kinds there are.
            max_shown: Errors at most that it is shown for each.
            instruction: What it is told before.
        """
        self._model = model
        self._n_candidates = n_candidates
        self._max_shown = max_shown
        self._instruction = instruction

    @property
    def max_proposals(self) -> int:
        """One of each kind."""
        return self._n_candidates

    async def propose(self, request: ProposalRequest) -> Proposals:
        """One proposal of each kind whose reply can be used; the others are listed as failed."""
        before = self._model.usage
        kinds = choose_kinds(request.evidence.misalignments, self._n_candidates)
        found = await asyncio.gather(*(self._propose(request, kind) for kind in kinds))
        return Proposals(
            tuple(item for item in found if isinstance(item, Proposal)),
            tuple(item for item in found if isinstance(item, Candidate)),
            self._model.usage.since(before),
        )

    async def _propose(self, request: ProposalRequest, kind: Kind) -> Proposal | Candidate:
        if kind is Kind.EXAMPLES:
            proposal = propose_examples(request)
            return proposal or Candidate(self.name, str(kind), "failed: there are no other examples to show")
        task = build_task(request, kind, self._max_shown)
        try:
            reply = await self._model.ask(task.prompt, RewriteReply, system=self._instruction)
            return read_reply(reply, task, request)
        except ReplyError as error:
            return Candidate(self.name, str(kind), f"failed: {error}")
