"""Better criteria from the judge's errors: rewritten by a language model, or without one by rules from the notes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.api.analysis import MAX_EXAMPLES, sample_errors
from caliber_pipeline.api.fields import Item
from caliber_pipeline.api.judged_items import evidence_frames, parse_judged
from caliber_pipeline.api.judging import DEFAULT_MODEL, default_encoder, open_language_model
from caliber_pipeline.api.llm_replies import OptimizationReply, build_optimization_prompt, keep_known
from caliber_pipeline.api.results import EvaluatedRecord, EvaluationResult
from caliber_pipeline.api.running import run_sync
from caliber_pipeline.core.criteria import Clause, Criteria
from caliber_pipeline.core.errors import ReplyError
from caliber_pipeline.core.sanitizer import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from caliber_pipeline.core.proposals import Proposal
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.language_model import LanguageModel

MAX_CRITERIA_CHARS: Final = 12_000  # a rubric that a person still reads; more drowns what matters
BASE: Final = "base"
INSTRUCTION: Final = (
    "You improve the criteria of an LLM judge that scores outputs 1 (accept) or 0 (reject), so that it decides as "
    "people do."
)


@dataclass(frozen=True)
class Suggestion:
    """One change that a proposal makes.

    Attributes:
        aspect: What it is about.
        suggestion: What to change.
        rationale: Why.
        expected_improvement: What should get better.
        record_ids: The records that it comes from.
    """

    aspect: str
    suggestion: str
    rationale: str
    expected_improvement: str
    record_ids: tuple[str, ...]


@dataclass(frozen=True)
class OptimizationResult:
    """Criteria that may be better; only an evaluation on records they were not made from can tell.

    Attributes:
        original_criteria: The criteria that were edited, as a judge reads them.
        optimized_criteria: What they became; the same where nothing was to be changed.
        version: The same as a criteria version, with clauses, evidence and examples.
        suggestions: The changes, each with the records that it comes from.
        summary: In a sentence.
        strategy: 'rewrite' by a language model, 'rules' from the notes, 'none'.
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
        suggestions = [{**asdict(s), "record_ids": list(s.record_ids)} for s in self.suggestions]
        return {**vars(self), "version": self.version.model_dump(mode="json"), "suggestions": suggestions}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OptimizationResult:
        """What `to_dict` was made from."""
        suggestions = tuple(Suggestion(**{**s, "record_ids": tuple(s["record_ids"])}) for s in data["suggestions"])
        return cls(**{**data, "version": Criteria.model_validate(data["version"]), "suggestions": suggestions})


class PromptOptimizer:
    """Writes criteria that should make the judge decide as people do."""

    def __init__(
        self,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        instruction: str | None = None,
        max_examples: int = MAX_EXAMPLES,
        *,
        model: LanguageModel | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Say who is asked.

        Args:
            model_name: The language model.
            llm_provider: Its provider; None takes the one whose key the environment has, else 'local', which makes
                clauses of the notes and chooses examples.
            instruction: What the language model is told; None for a general one.
            max_examples: How many errors it is shown; for 'local' how many examples the criteria get at most.
            model: A language model of one's own, whatever the provider.
            encoder: For 'local'; None takes the packaged one.
        """
        self._model_name = model_name
        self._provider = llm_provider
        self._instruction = instruction or INSTRUCTION
        self._max_examples = max_examples
        self._model = model
        self._encoder = encoder

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

        Everything given may be used: keep records aside, as the session does with dev and test, to judge the proposal.

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
        original = criteria if isinstance(criteria, Criteria) else Criteria(criteria=criteria)
        if system_prompt is not None:
            original = original.model_copy(update={"system_prompt": system_prompt})
        errors = [record for record in judged if not record.aligned]
        if not errors:
            return _unchanged(original, f"Judge and people agree on all {len(judged)} records; nothing to change.")
        model = self._model or open_language_model(self._provider, self._model_name)
        if model is not None:
            return await self._rewrite(model, judged, original, base, round_)
        encoder = self._encoder or default_encoder()
        from caliber_pipeline.strategies.evidence import propose_from_notes

        scored, records = evidence_frames(results if isinstance(results, EvaluationResult) else judged)
        proposal = await asyncio.to_thread(
            propose_from_notes, scored, records, original, base, encoder, round_=round_, max_examples=self._max_examples
        )
        return from_proposal(original, proposal)

    def optimize_sync(
        self, results: EvaluationResult | Iterable[Item], criteria: str | Criteria, system_prompt: str | None = None
    ) -> OptimizationResult:
        """`optimize`, without awaiting."""
        return run_sync(self.optimize(results, criteria, system_prompt))

    async def _rewrite(
        self, model: LanguageModel, judged: Sequence[EvaluatedRecord], original: Criteria, base: str, round_: int
    ) -> OptimizationResult:
        errors = sample_errors(judged, self._max_examples)
        right = [record for record in judged if record.aligned][: self._max_examples // 2]
        prompt = build_optimization_prompt(original.full_text, original.system_prompt, errors, right)
        reply = await model.ask(prompt, OptimizationReply, system=self._instruction)
        text = _check_criteria(reply.criteria)
        known = {record.record_id for record in (*errors, *right)}
        suggestions, n_invented = [], 0
        for item in reply.suggestions:
            record_ids, n = keep_known(item.record_ids, known)
            n_invented += n
            suggestions.append(
                Suggestion(item.aspect, item.suggestion, item.rationale, item.expected_improvement, record_ids)
            )
        version = original.model_copy(
            update={"criteria": text, "clauses": (), "base": base, "round": round_, "author": "optimizer"}
        )
        summary = f"Rewritten by {model.name} from {len(errors)} errors, with {len(suggestions)} suggestions."
        return OptimizationResult(
            original.full_text,
            version.full_text,
            version,
            tuple(suggestions),
            summary,
            "rewrite",
            model.name,
            n_invented,
        )


def from_proposal(original: Criteria, proposal: Proposal | None) -> OptimizationResult:
    """A proposal by rules as a result."""
    if proposal is None:
        return _unchanged(original, "The errors give no new clause and no new example: note why people decided so.")
    return OptimizationResult(
        original.full_text,
        proposal.criteria.full_text,
        proposal.criteria,
        tuple(_suggestion(clause) for clause in proposal.clauses),
        proposal.summary,
        proposal.strategy,
    )


def _suggestion(clause: Clause) -> Suggestion:
    record_ids = clause.evidence.record_ids
    return Suggestion(
        clause.evidence.pattern or "",
        clause.text,
        f"{len(record_ids)} errors of the judge carry such notes",
        "fewer false positives" if clause.verdict == 0 else "fewer false negatives",
        record_ids,
    )


def _unchanged(original: Criteria, summary: str) -> OptimizationResult:
    return OptimizationResult(original.full_text, original.full_text, original, (), summary, "none")


def _check_criteria(text: str) -> str:
    """The criteria without private data.

    Raises:
        ReplyError: they are blank, too long, or a template with gaps.
    """
    cleaned = redact(text.strip())
    if not cleaned:
        raise ReplyError("the language model's criteria are blank")
    if len(cleaned) > MAX_CRITERIA_CHARS:
        raise ReplyError(f"the language model's criteria have {len(cleaned)} characters, over {MAX_CRITERIA_CHARS}")
    gaps = [gap for gap in ("{{", "}}", "[INSERT", "<INSERT", "TODO", "lorem ipsum") if gap.lower() in cleaned.lower()]
    if gaps:
        raise ReplyError(f"the language model's criteria have gaps to be filled in: {', '.join(gaps)}")
    return cleaned
