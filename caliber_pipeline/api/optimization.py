"""Better criteria from the judge's errors: rewritten by a language model, or without one by rules from the notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from caliber_pipeline.api.asking import Asking
from caliber_pipeline.api.faults import make_criteria
from caliber_pipeline.api.fields import Item
from caliber_pipeline.api.judged_items import evidence_frames, parse_judged
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.api.running import run_sync
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import ReplyError
from caliber_pipeline.core.proposed_change import ProposedChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from caliber_pipeline.core.proposals import Proposal
    from caliber_pipeline.judges.language_model import LanguageModel

BASE: Final = "base"

Suggestion: TypeAlias = ProposedChange
"""One change that a proposal makes, with the records that it comes from."""


@dataclass(frozen=True)
class OptimizationResult:
    """Criteria that may be better; only an evaluation on records they were not made from can tell.

    Attributes:
        original_criteria: The criteria that were edited, as a judge reads them.
        optimized_criteria: What they became; the same where nothing was to be changed.
        version: The same as a criteria version, with clauses, evidence and examples.
        suggestions: The changes, each with the records that it comes from.
        summary: In a sentence.
        strategy: The strategy that wrote it: 'rewrite' by a language model, 'rules' from the notes, …; 'none'.
        model: The language model that was asked; None where none was.
        n_invented_ids: Record ids in its reply that it was not shown, removed.
    """

    original_criteria: str
    optimized_criteria: str
    version: Criteria
    suggestions: tuple[Suggestion, ...]
    summary: str
    strategy: str
    model: str | None = None
    n_invented_ids: int = 0

    @property
    def has_changed(self) -> bool:
        """Whether there is anything new in it."""
        return self.strategy != "none"

    @property
    def example_ids(self) -> tuple[str, ...]:
        """The records that the judge is shown as examples."""
        return tuple(example.record_id for example in self.version.examples)

    @property
    def system_prompt(self) -> str | None:
        """The system prompt, which is not changed."""
        return self.version.system_prompt

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        suggestions = [{**asdict(s), **{name: list(getattr(s, name)) for name in _IDS}} for s in self.suggestions]
        return {**vars(self), "version": self.version.model_dump(mode="json"), "suggestions": suggestions}

    @classmethod
    def from_proposal(cls, original: Criteria, proposal: Proposal, model: LanguageModel | None) -> OptimizationResult:
        """What a strategy proposed in place of criteria, asking a language model where it is one that asks."""
        asked = model.name if model is not None and proposal.strategy in _ASKING else None
        return cls(
            original.full_text,
            proposal.criteria.full_text,
            proposal.criteria,
            proposal.all_changes,
            f"{f'Rewritten by {asked}: ' if asked else ''}{proposal.summary}",
            proposal.strategy,
            asked,
            proposal.n_invented_ids,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OptimizationResult:
        """What `to_dict` was made from."""
        suggestions = tuple(Suggestion(**{**s, **{name: tuple(s[name]) for name in _IDS}}) for s in data["suggestions"])
        return cls(**{**data, "version": Criteria.model_validate(data["version"]), "suggestions": suggestions})


class PromptOptimizer(Asking):
    """Writes criteria that should make the judge decide as people do, by the pipeline's strategies."""

    async def optimize(
        self,
        results: EvaluationResult | Iterable[Item],
        criteria: str | Criteria,
        system_prompt: str | None = None,
        *,
        base: str = BASE,
        round_: int = 1,
    ) -> OptimizationResult:
        """Propose better criteria; where the judge makes no error nobody is asked.

        A language model is shown `max_examples` errors and rewrites; without one the notes become clauses, and the
        criteria get `max_examples` examples at most. Everything given may be used: keep records aside, as the session
        does with dev and test, to judge the proposal.

        Args:
            results: An evaluation's result, or dicts or objects with id, judgment, score, explanation and the like.
            criteria: What the judge was told.
            system_prompt: What it was told before.
            base: The name of these criteria.
            round_: The round of the proposal; another round chooses other examples.

        Raises:
            InputError: ids repeat or are missing, or a score is neither 0 nor 1.
            JudgeError: the language model cannot be asked.
            ReplyError: it gave no usable criteria.
        """
        judged = parse_judged(results)
        original = criteria if isinstance(criteria, Criteria) else make_criteria(criteria)
        if system_prompt is not None:
            original = original.model_copy(update={"system_prompt": system_prompt})
        if all(record.aligned for record in judged):
            agreed = (
                f"Judge and people agree on every record ({len(judged)})" if judged else "No record has both verdicts"
            )
            return _unchanged(original, f"{agreed}; nothing to change.")
        frames = evidence_frames(results if isinstance(results, EvaluationResult) else judged)
        return await self._propose(original, *frames, base, round_)

    def optimize_sync(
        self, results: EvaluationResult | Iterable[Item], criteria: str | Criteria, system_prompt: str | None = None
    ) -> OptimizationResult:
        """`optimize`, without awaiting."""
        return run_sync(self.optimize(results, criteria, system_prompt))

    async def _propose(
        self, original: Criteria, scored: pd.DataFrame, records: pd.DataFrame, base: str, round_: int
    ) -> OptimizationResult:
        """A single proposal, which is not tried: who has a judge at hand lets several race, as `iterate` does."""
        import asyncio

        from caliber_pipeline.core.proposals import ProposalRequest
        from caliber_pipeline.strategies import RewriteStrategy, RulesStrategy, choose_next
        from caliber_pipeline.strategies.evidence import find_patterns, gather_evidence

        model, encoder = self._open_model(), self._open_encoder()
        patterns = await asyncio.to_thread(find_patterns, scored, records, encoder)
        evidence = await asyncio.to_thread(gather_evidence, scored, records, patterns, encoder)
        request = ProposalRequest(original, base, evidence, round_, self._max_examples)
        told = {} if self._instruction is None else {"instruction": self._instruction}
        strategy = (
            RulesStrategy()
            if model is None
            else RewriteStrategy(model, n_candidates=1, max_shown=self._max_examples, **told)
        )
        choice = await choose_next([strategy], request, records.iloc[:0], _try_nothing)
        if choice.proposal is not None:
            return OptimizationResult.from_proposal(original, choice.proposal, model)
        reason = choice.reason or "no proposal can be used"
        if choice.candidates:
            raise ReplyError(reason)
        return _unchanged(original, f"{reason[0].upper()}{reason[1:]}.")


_ASKING: Final = ("rewrite", "gepa")
_IDS: Final = ("pattern_ids", "record_ids")


def _unchanged(original: Criteria, summary: str) -> OptimizationResult:
    return OptimizationResult(original.full_text, original.full_text, original, (), summary, "none")


def _try_nothing(proposal: Proposal, record_ids: Sequence[str]) -> pd.DataFrame:
    """A single proposal needs no race."""
    raise AssertionError(f"{proposal.strategy} was to be tried on {len(record_ids)} records")
