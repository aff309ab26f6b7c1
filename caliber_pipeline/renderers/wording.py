"""Figures, verdicts and counts in words: the same on the console as in a notebook."""

from collections.abc import Iterator, Sequence
from typing import Final

from caliber_pipeline.core.stability import MIN_STABILITY
from caliber_pipeline.renderers import views

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
_CONTROLS: Final = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")
KIND: Final = {"false_positive": "judge accepts, people reject", "false_negative": "judge rejects, people accept"}


def title_evaluation(result: views.EvaluationView) -> str:
    """Who agrees with whom, on how much."""
    return f"Agreement of {result.provider}/{result.model} with people on {result.metrics.n} records"


def figure_rows(result: views.EvaluationView) -> Iterator[tuple[str, float | None, str, str]]:
    """Per figure its name, the value as a number and in words, and the interval."""
    for name, label in FIGURES:
        value = result.metrics.figures[name]
        yield label, value, format_figure(value), format_interval(result.interval(name))


def round_kappas(each: views.RoundView) -> tuple[str, str]:
    """Kappa on dev, and on test unless that is sealed."""
    kappas = each.kappa_by_split
    return format_figure(kappas.get("dev")), format_figure(kappas["test"]) if "test" in kappas else "sealed"


def count_annotated(state: views.StateView) -> tuple[float, str]:
    """The share that is annotated, and the counts in words."""
    share = state.annotated / state.total if state.total else 0.0
    ties = f", {state.undecided} undecided" if state.undecided else ""
    return share, f"{state.annotated}/{state.total} annotated: {state.accepts} accept, {state.rejects} reject{ties}"


def list_patterns(found: Sequence[views.PatternView] | views.PatternsView) -> Sequence[views.PatternView]:
    """The patterns, also out of what discovering returned."""
    return found if isinstance(found, Sequence) else found.patterns


def list_rounds(found: Sequence[views.RoundView] | views.RoundsView) -> Sequence[views.RoundView]:
    """The rounds, also out of what iterating returned."""
    return found if isinstance(found, Sequence) else found.rounds


def diff_lines(old: str, new: str) -> Iterator[tuple[str, str]]:
    """The lines of both with their sign: '-' went, '+' came, ' ' stayed."""
    from difflib import ndiff

    return ((line[0], line) for line in ndiff(old.splitlines(), new.splitlines()) if not line.startswith("?"))


def format_figure(value: float | None) -> str:
    """Three decimals, or n/a where undefined."""
    return UNDEFINED if value is None else f"{value:.3f}"


def format_stability(value: float | None) -> str:
    """Two decimals, with a word where the pattern should not be trusted."""
    if value is None:
        return UNDEFINED
    return f"{value:.2f} unstable" if value < MIN_STABILITY else f"{value:.2f}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Both ends, or n/a."""
    return UNDEFINED if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def count_failures(n: int) -> str:
    """How many records got no verdict, in words."""
    return f"{n} record{'' if n == 1 else 's'} got no verdict"


def visible(text: str) -> str:
    """The text with what a terminal would obey (the start of an escape sequence, a bell) replaced."""
    return text.translate(_CONTROLS)


def shorten(text: str, length: int) -> str:
    """The text on one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
