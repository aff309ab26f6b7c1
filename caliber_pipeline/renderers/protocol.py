"""What a renderer is, and how figures become text."""

from collections.abc import Sequence
from typing import Final, Protocol

from caliber_pipeline.renderers.views import (
    AnalysisView,
    AnnotatingView,
    EvaluationView,
    PatternView,
    ProposalView,
    RecordView,
    RoundView,
    StateView,
)

UNDEFINED: Final = "n/a"
FIGURES: Final = (
    ("cohen_kappa", "Cohen's kappa"),
    ("accuracy", "accuracy"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("specificity", "specificity"),
    ("f1_score", "F1"),
)
"""The figures that every renderer shows, in this order, with their names for people."""

VERDICT: Final = {1: "accept", 0: "reject"}
KIND: Final = {"false_positive": "judge accepts, people reject", "false_negative": "judge rejects, people accept"}


class CaliberRenderer(Protocol):
    """Shows what calibrating yields; each method returns what it made, where there is anything to return."""

    def render_records(self, records: Sequence[RecordView]) -> object:
        """Show records."""
        ...

    def render_progress(self, state: StateView) -> object:
        """Show how far the annotating is."""
        ...

    def render_evaluation(self, result: EvaluationView) -> object:
        """Show agreement between judge and people, and what got no verdict."""
        ...

    def render_misalignments(self, analysis: AnalysisView) -> object:
        """Show what the judge gets wrong."""
        ...

    def render_patterns(self, patterns: Sequence[PatternView]) -> object:
        """Show the themes in people's notes."""
        ...

    def render_proposal(self, proposal: ProposalView) -> object:
        """Show how the criteria would change, and why."""
        ...

    def render_history(self, rounds: Sequence[RoundView]) -> object:
        """Show the versions of the criteria and what was decided about each."""
        ...

    def render_message(self, text: str) -> object:
        """Show a line of text."""
        ...

    def annotate(self, manager: AnnotatingView) -> object:
        """Have a person give verdicts; what was given is kept, however it ends."""
        ...


CaliberHQRenderer = CaliberRenderer


def format_figure(value: float | None) -> str:
    """Three decimals, or n/a where undefined."""
    return UNDEFINED if value is None else f"{value:.3f}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Both ends, or n/a."""
    return UNDEFINED if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def count_failures(n: int) -> str:
    """How many records got no verdict, in words."""
    return f"{n} record{'' if n == 1 else 's'} got no verdict"


def shorten(text: str, length: int) -> str:
    """The text on one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
