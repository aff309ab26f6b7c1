"""What the judge gets wrong: with a language model in its words, without one by the themes in people's notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from caliber_pipeline.api.asking import Asking
from caliber_pipeline.api.fields import Item, list_patterns, read_field
from caliber_pipeline.api.frames import plain_json
from caliber_pipeline.api.judged_items import parse_judged
from caliber_pipeline.api.results import EvaluatedRecord, EvaluationResult
from caliber_pipeline.api.running import run_sync
from caliber_pipeline.api.selection import pattern_by_record
from caliber_pipeline.core.shown_records import AS_DATA, keep_known, render_lines

if TYPE_CHECKING:
    from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.language_model import LanguageModel

INSTRUCTION: Final = (
    "You study where an LLM judge and people disagree. Find what the judge's errors have in common and say what in "
    "the criteria leads to them. Be concrete, and build on the records shown alone."
)


class FindingReply(BaseModel):
    """One thing that errors have in common."""

    title: str = Field(description="A few words")
    description: str = Field(description="What these errors have in common and why the judge makes them")
    record_ids: list[str] = Field(description="Ids of the shown records it is about")


class AnalysisReply(BaseModel):
    """An analysis of errors."""

    summary: str = Field(description="One or two sentences")
    findings: list[FindingReply]
    recommendations: list[str] = Field(description="What to change in the criteria")


@dataclass(frozen=True)
class MisalignedRecord:
    """A record on which judge and people differ.

    Attributes:
        record_id: The record.
        kind: 'false_positive' (judge accepts, people reject) or 'false_negative' (the reverse).
        query: The query.
        output: The output.
        human_score: The people's verdict.
        llm_score: The judge's.
        human_notes: The people's notes.
        llm_reasoning: The judge's reasoning.
    """

    record_id: str
    kind: str
    query: str
    output: str
    human_score: int
    llm_score: int
    human_notes: str | None
    llm_reasoning: str | None


@dataclass(frozen=True)
class Finding:
    """What some errors have in common.

    Attributes:
        title: A short name.
        description: What they have in common.
        record_ids: Those errors.
    """

    title: str
    description: str
    record_ids: tuple[str, ...]


@dataclass(frozen=True)
class MisalignmentAnalysis:
    """What the judge gets wrong.

    Attributes:
        total: Records with both verdicts.
        false_positives: Judge accepts, people reject.
        false_negatives: Judge rejects, people accept.
        summary: In a sentence or two.
        findings: What errors have in common.
        recommendations: What to change.
        model: The language model that was asked; None where none was.
        n_shown: How many errors it was shown.
        n_invented_ids: Record ids in its reply that it was not shown, removed.
    """

    total: int
    false_positives: tuple[MisalignedRecord, ...]
    false_negatives: tuple[MisalignedRecord, ...]
    summary: str
    findings: tuple[Finding, ...] = ()
    recommendations: tuple[str, ...] = ()
    model: str | None = None
    n_shown: int = 0
    n_invented_ids: int = 0

    @property
    def is_aligned(self) -> bool:
        """Whether judge and people agree throughout."""
        return not self.false_positives and not self.false_negatives

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        found: dict[str, Any] = plain_json(asdict(self))
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MisalignmentAnalysis:
        """What `to_dict` was made from."""
        errors = {
            name: tuple(MisalignedRecord(**record) for record in data[name])
            for name in ("false_positives", "false_negatives")
        }
        findings = tuple(Finding(**{**f, "record_ids": tuple(f["record_ids"])}) for f in data["findings"])
        return cls(**{**data, **errors, "findings": findings, "recommendations": tuple(data["recommendations"])})


class MisalignmentAnalyzer(Asking):
    """Finds out what the judge's errors have in common: a language model tells, or the themes in their notes."""

    async def analyze(
        self,
        results: EvaluationResult | Iterable[Item],
        criteria: str = "",
        *,
        patterns: Iterable[Item] | PatternDiscoveryResult | None = None,
    ) -> MisalignmentAnalysis:
        """Analyse the errors; where there are none nobody is asked.

        Args:
            results: An evaluation's result, or dicts or objects with id, judgment, score, explanation and the like.
            criteria: What the judge was told.
            patterns: Themes in the notes, where they are known already.

        Raises:
            InputError: ids repeat or are missing, or a score is neither 0 nor 1.
            JudgeError: the language model cannot be asked.
            ReplyError: it gave no usable reply.
        """
        judged = parse_judged(results)
        bare = _count(judged)
        if bare.is_aligned:
            return bare
        model = self._open_model()
        known = None if patterns is None else list_patterns(patterns)
        if model is not None:
            return await self._ask(model, judged, bare, criteria, known)
        if known is None:
            known = await _discover(judged, self._open_encoder())
        return _group(bare, known)

    def analyze_sync(
        self,
        results: EvaluationResult | Iterable[Item],
        criteria: str = "",
        *,
        patterns: Iterable[Item] | PatternDiscoveryResult | None = None,
    ) -> MisalignmentAnalysis:
        """`analyze`, without awaiting."""
        return run_sync(self.analyze(results, criteria, patterns=patterns))

    async def _ask(
        self,
        model: LanguageModel,
        judged: Sequence[EvaluatedRecord],
        bare: MisalignmentAnalysis,
        criteria: str,
        patterns: Sequence[Item] | None,
    ) -> MisalignmentAnalysis:
        shown = _sample(judged, self._max_examples, patterns)
        prompt = _build_prompt(criteria, shown, bare.summary)
        reply = await model.ask(prompt, AnalysisReply, system=self._instruction or INSTRUCTION)
        known = {record.record_id for record in shown}
        findings, n_invented = [], 0
        for found in reply.findings:
            record_ids, n = keep_known(found.record_ids, known)
            n_invented += n
            if record_ids:
                findings.append(Finding(found.title, found.description, record_ids))
        return MisalignmentAnalysis(
            bare.total,
            bare.false_positives,
            bare.false_negatives,
            f"{bare.summary} {reply.summary}".strip(),
            tuple(findings),
            tuple(reply.recommendations),
            model.name,
            len(shown),
            n_invented,
        )


def _sample(judged: Sequence[EvaluatedRecord], count: int, patterns: Sequence[Item] | None) -> list[EvaluatedRecord]:
    """Errors to show: one of each pattern after the other; without patterns, false positives and negatives in turn."""
    import pandas as pd

    from caliber_pipeline.core.rewriting import sample_errors

    by_id = {record.record_id: record for record in judged if not record.aligned}
    known = pattern_by_record(patterns)
    kinds = [known.get(record_id, f"false {record.llm_score}") for record_id, record in by_id.items()]
    frame = pd.DataFrame({"record_id": [*by_id], "pattern_id": kinds}, dtype="string[pyarrow]")
    return [by_id[record_id] for record_id in sample_errors(frame, count)["record_id"]]


def _build_prompt(criteria: str, errors: Sequence[EvaluatedRecord], summary: str) -> str:
    return (
        f"The judge's criteria:\n{criteria}\n\n{summary}\n\nSome of the errors. {AS_DATA}\n"
        f"{render_lines(map(vars, errors))}\n\n"
        "What do they have in common, and what in the criteria leads to them?"
    )


def _count(judged: Sequence[EvaluatedRecord]) -> MisalignmentAnalysis:
    errors = [_misaligned(record) for record in judged if not record.aligned]
    positives = tuple(error for error in errors if error.kind == "false_positive")
    negatives = tuple(error for error in errors if error.kind == "false_negative")
    if not judged:
        summary = "No record has both verdicts; there is nothing to analyse."
    elif not errors:
        summary = f"Judge and people agree on every record ({len(judged)}); there is nothing to analyse."
    else:
        summary = (
            f"Judge and people differ on {len(errors)} of {len(judged)} records: {len(positives)} false positives "
            f"(the judge is too lenient), {len(negatives)} false negatives (too strict)."
        )
    return MisalignmentAnalysis(len(judged), positives, negatives, summary)


def _misaligned(record: EvaluatedRecord) -> MisalignedRecord:
    return MisalignedRecord(
        record.record_id,
        "false_positive" if record.llm_score else "false_negative",
        record.query,
        record.output,
        record.human_score,
        record.llm_score,
        record.human_notes,
        record.llm_reasoning,
    )


async def _discover(judged: Sequence[EvaluatedRecord], encoder: Encoder) -> list[Item]:
    """The themes in the notes of the errors."""
    from caliber_pipeline.api.discovery import PatternDiscovery

    noted = [record for record in judged if not record.aligned and record.human_notes]
    return list_patterns(await PatternDiscovery(encoder=encoder).discover(noted)) if noted else []


def _group(bare: MisalignmentAnalysis, patterns: Sequence[Item]) -> MisalignmentAnalysis:
    """The errors by the themes in their notes."""
    grouped_errors: list[tuple[Finding, str]] = []
    for errors, verdict in ((bare.false_positives, "Reject"), (bare.false_negatives, "Accept")):
        notes = {error.record_id: error.human_notes for error in errors}
        for pattern in patterns:
            found = tuple(sorted(set(map(str, read_field(pattern, "record_ids", ()))) & set(notes)))
            if not found:
                continue
            name = read_field(pattern, "category", read_field(pattern, "name", "unnamed"))
            quote = next((notes[record_id] for record_id in found if notes[record_id]), None)
            kind = "false positives" if verdict == "Reject" else "false negatives"
            said = f", e.g. “{quote}”" if quote else ""
            finding = Finding(name, f"{len(found)} of {len(errors)} {kind} carry such notes{said}.", found)
            grouped_errors.append((finding, f"{verdict} where people say: {name}{said}."))
    grouped_errors.sort(key=lambda pair: -len(pair[0].record_ids))
    recommendations = [text for _, text in grouped_errors]
    grouped = {record_id for finding, _ in grouped_errors for record_id in finding.record_ids}
    n_left = len(bare.false_positives) + len(bare.false_negatives) - len(grouped)
    if n_left:
        recommendations.append(f"Errors that belong to no theme: {n_left}; read them, and note why people decided so.")
    return MisalignmentAnalysis(
        bare.total,
        bare.false_positives,
        bare.false_negatives,
        bare.summary,
        tuple(finding for finding, _ in grouped_errors),
        tuple(recommendations),
    )
