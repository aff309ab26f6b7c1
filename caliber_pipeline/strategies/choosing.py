"""From strategies to the next version: ask them all, refuse what must not be, race the rest on train."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.proposal_checks import find_refusal
from caliber_pipeline.core.proposals import Candidate, Proposal, ProposalRequest, find_twin
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.strategies.protocol import Strategy
from caliber_pipeline.strategies.screening import JudgeSome, race, set_aside


@dataclass(frozen=True)
class Choice:
    """The next version to try.

    Attributes:
        proposal: The proposal; None where there is none worth trying.
        reason: Why there is none; None where there is one.
        candidates: What became of every proposal.
        usage: What asking language models took.
    """

    proposal: Proposal | None
    reason: str | None
    candidates: tuple[Candidate, ...]
    usage: Usage


async def choose_next(
    strategies: Sequence[Strategy], request: ProposalRequest, guarded: pd.DataFrame, judge: JudgeSome
) -> Choice:
    """Ask the strategies for proposals and choose the best on train.

    Args:
        strategies: Asked at the same time.
        request: What they may know.
        guarded: The records of dev and test, with their notes: no proposal may quote them. No strategy sees them.
        judge: Gives verdicts on train records under a proposal.

    Raises:
        JudgeError: a language model or judge cannot be asked at all.
    """
    asked, pool = request, None
    if sum(strategy.max_proposals for strategy in strategies) > 1:
        shown, pool = set_aside(request.evidence)
        asked = replace(request, evidence=shown)
    found = await asyncio.gather(*(strategy.propose(asked) for strategy in strategies))
    failed = [candidate for item in found for candidate in item.failed]
    sound: list[Proposal] = []
    for proposal in (p for item in found for p in item.proposals):
        refusal = find_refusal(proposal, request.champion, request.evidence, guarded)
        if refusal is None:
            sound.append(proposal)
        else:
            failed.append(Candidate(proposal.strategy, proposal.kind, f"refused: {refusal}"))
    screening = await asyncio.to_thread(race, request, sound, judge, pool)
    usage = sum((item.usage for item in found), start=Usage())
    reason = None
    if screening.chosen is None:
        reason = _explain(request, failed, screening.candidates)
    return Choice(screening.chosen, reason, (*screening.candidates, *failed), usage)


def refuse_twin(choice: Choice, versions: Mapping[str, Criteria]) -> Choice:
    """A choice without its proposal where that would tell a judge the same as a version that there is."""
    twin = None if choice.proposal is None else find_twin(choice.proposal.criteria, versions)
    return choice if twin is None else replace(choice, proposal=None, reason=f"the next proposal would repeat {twin}")


def _explain(request: ProposalRequest, failed: Sequence[Candidate], dropped: Sequence[Candidate]) -> str:
    if request.evidence.misalignments.empty:
        return "the champion makes no error on train that it was not shown"
    if not failed and not dropped:
        return "the errors on train give no new clause and no new example: note why people decided so"
    tried = "; ".join(f"{c.strategy} ({c.kind}) {c.outcome}" for c in (*dropped, *failed))
    return f"no proposal is worth trying: {tried}"
