"""Things to show: real results where the API makes them, plain stand-ins for the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.evaluation import EvaluationRunner
from caliber_pipeline.api.results import EvaluationConfig, EvaluationResult
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA

SHOWN_AT_ONCE: Final = 1000  # characters of Markdown that Dagster's UI does not put behind a click
HOSTILE = "<script>alert(1)</script> [bold]not bold[/bold] & 'quoted'"


@dataclass(frozen=True)
class Misaligned:
    record_id: str
    kind: str
    query: str = "q"
    output: str = HOSTILE
    human_notes: str | None = HOSTILE
    llm_reasoning: str | None = None


@dataclass(frozen=True)
class Finding:
    title: str = "Wrong dates"
    description: str = HOSTILE
    record_ids: tuple[str, ...] = ("r1", "r2")


@dataclass(frozen=True)
class Analysis:
    summary: str = "2 of 8 verdicts differ."
    findings: tuple[Finding, ...] = (Finding(),)
    recommendations: tuple[str, ...] = (HOSTILE,)
    false_positives: tuple[Misaligned, ...] = (Misaligned("r1", "false_positive"),)
    false_negatives: tuple[Misaligned, ...] = (Misaligned("r2", "false_negative"),)


@dataclass(frozen=True)
class Pattern:
    category: str
    count: int
    description: str = "d"
    examples: tuple[str, ...] = (HOSTILE,)
    keywords: tuple[str, ...] = ("date",)
    stability: float | None = None
    record_ids: tuple[str, ...] = ("r1",)


@dataclass(frozen=True)
class Suggestion:
    aspect: str = "dates"
    suggestion: str = HOSTILE
    rationale: str = "2 errors"
    record_ids: tuple[str, ...] = ("r1",)


@dataclass(frozen=True)
class Proposal:
    original_criteria: str = "be right\nbe kind"
    optimized_criteria: str = "be right\nbe kind\n- <b>mind the dates</b>"
    suggestions: tuple[Suggestion, ...] = (Suggestion(),)
    summary: str = "1 clause added"
    example_ids: tuple[str, ...] = ("r7",)


@dataclass(frozen=True)
class Round:
    version: str
    decision: str
    kappa_by_split: Mapping[str, float | None]
    decision_reason: str = HOSTILE


ROUNDS = (
    Round("v001", "baseline", {"dev": 0.2, "all": 0.25, "test": 0.3}),
    Round("v002", "rejected", {"dev": None, "all": None}),
    Round("v003", "promoted", {"dev": 0.7, "all": 0.6, "test": 0.65}),
)
PATTERNS = (Pattern("Wrong dates", 5, stability=0.9), Pattern(HOSTILE, 2, examples=()))


@dataclass(frozen=True)
class Found:
    patterns: tuple[Pattern, ...] = PATTERNS


@dataclass(frozen=True)
class Rounds:
    rounds: tuple[Round, ...] = ROUNDS


def make_rows(scores: list[tuple[int | None, int | None]]) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "query": f"q{i} {HOSTILE}", "output": f"a{i} {HOSTILE}", "judgment": human, "score": llm}
        for i, (human, llm) in enumerate(scores)
    ]


def make_result(scores: list[tuple[int | None, int | None]] | None = None) -> EvaluationResult:
    default: list[tuple[int | None, int | None]] = [(1, 1)] * 3 + [(0, 0)] * 2 + [(0, 1), (1, 0), (1, None)]
    config = EvaluationConfig(DEFAULT_CRITERIA, llm_provider="recorded")
    return EvaluationRunner(config).run_sync(make_rows(scores or default))


def make_manager(n: int = 3) -> AnnotationManager:
    return AnnotationManager(make_rows([(None, None)] * n))
