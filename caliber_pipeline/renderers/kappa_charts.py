"""Cohen's kappa as a picture: of versions side by side with their intervals, and of evaluations in time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from caliber_pipeline.core.loop import WINNING
from caliber_pipeline.renderers.pictures import draw, label

MAX_VERSIONS: Final = 12  # more names than that run into each other
MAX_EVALUATIONS: Final = 40
NBSP: Final = "\N{NO-BREAK SPACE}"
_BLUE: Final = "#0072b2"
_COLOURS: Final = (_BLUE, "chocolate", "teal", "purple", "olive", "crimson", "dimgray", "navy")
_PALE: Final = "#7fb8d8"  # of a version that did not win
_LEFT: Final = 48
_TOP: Final = 16
_HEIGHT: Final = 150
_BOTTOM: Final = _TOP + _HEIGHT
_RIGHT: Final = 110  # names of the lines, or the legend
_TICKS: Final = tuple(i / 5 for i in range(-5, 6))
_LINE_HEIGHT: Final = 16
_CHARACTER: Final = 8  # pixels
_CELLS: Final = (11, 17)  # characters per version in the lines under the plot, at least and at most
_STEPS: Final = (16, 84)  # pixels from one evaluation to the next


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a version on dev.

    Attributes:
        version: The criteria version.
        decision: baseline, promoted, rejected, undecided, or 'not decided yet'.
        kappa: Cohen's kappa; None where undefined.
        low: Lower end of its 95 % interval; None where unknown.
        high: Upper end.
        evaluated_at: When.
    """

    version: str
    decision: str
    kappa: float | None
    low: float | None = None
    high: float | None = None
    evaluated_at: datetime | None = None


def plot_kappa_by_version(evaluations: Sequence[Evaluation], lines: Mapping[str, float]) -> str:
    """A dot with its interval per version, pale where the version did not win; figures and decisions underneath.

    Args:
        evaluations: One per version, in order; of more than 12 the last are shown.
        lines: Levels to compare with, by name.
    """
    shown = evaluations[-MAX_VERSIONS:]
    scale = _Scale.over([*_values(shown), *lines.values()])
    rows = [[f"{each.version} {_figure(each.kappa)}" for each in shown], [each.decision for each in shown]]
    cell = min(max([_CELLS[0], *(len(text) + 1 for row in rows for text in row)]), _CELLS[1])
    step = cell * _CHARACTER
    right = _LEFT + step * max(len(shown), 1)
    levels = "".join(f"M{_LEFT} {scale.y(level):.0f}H{right}" for level in lines.values())
    shapes = [scale.grid(right), f"<path d='{levels}' stroke='green'/>" if lines else ""]
    below = 0.0
    for name, level in sorted(lines.items(), key=lambda line: -line[1]):
        below = max(scale.y(level) + 4, below + _LINE_HEIGHT)  # the names of near lines do not overlap
        shapes.append(label(right + 8, below, f"{name} {level:.2f}"))
    placed = [(_LEFT + step * (i + 0.5), each) for i, each in enumerate(shown)]
    ranges = "".join(
        f"M{x:.0f} {scale.y(each.low):.0f}V{scale.y(each.high):.0f}"
        for x, each in placed
        if each.low is not None and each.high is not None
    )
    shapes.append(f"<path d='{ranges}' stroke='{_BLUE}'/>" if ranges else "")
    for colour, is_winning in ((_BLUE, True), (_PALE, False)):
        own = [(x, each.kappa) for x, each in placed if (each.decision in WINNING) == is_winning]
        shapes.append(_dots(own, scale, colour))
    for i, row in enumerate(rows if shown else []):
        text = "".join(_shorten(cell_text, cell).center(cell) for cell_text in row).replace(" ", NBSP)
        shapes.append(label(_LEFT, _BOTTOM + 24 + 18 * i, text, f" textLength='{right - _LEFT}'"))
    return draw(right + _RIGHT, _BOTTOM + 52, shapes)


def plot_kappa_over_time(evaluations: Sequence[Evaluation]) -> str:
    """A dot per evaluation in the order of time, those of one version joined: recalibrations show drift.

    Args:
        evaluations: In any order, each with its time; of more than 40 the last are shown.
    """
    dated = [each for each in evaluations if each.evaluated_at is not None]
    shown = sorted(dated, key=lambda each: (str(each.evaluated_at), each.version))[-MAX_EVALUATIONS:]
    step = min(max(620 // max(len(shown), 1), _STEPS[0]), _STEPS[1])
    scale = _Scale.over(_values(shown))
    right = _LEFT + step * max(len(shown), 4)  # room for both times
    shapes = [scale.grid(right)]
    versions = list(dict.fromkeys(each.version for each in shown))
    for i, version in enumerate(versions):
        colour = _COLOURS[i % len(_COLOURS)]
        own = [(_LEFT + step * (j + 0.5), each.kappa) for j, each in enumerate(shown) if each.version == version]
        points = "L".join(f"{x:.0f} {scale.y(kappa):.0f}" for x, kappa in own if kappa is not None)
        shapes.append(f"<path d='M{points}' stroke='{colour}' fill='none'/>" if "L" in points else "")
        shapes.append(_dots(own, scale, colour))
        if i < MAX_VERSIONS:
            shapes.append(label(right + 8, _TOP + 4 + _LINE_HEIGHT * i, _shorten(version, 14), f" fill='{colour}'"))
    times = [each.evaluated_at.strftime("%b %d %H:%M") for each in (*shown[:1], *shown[1:][-1:]) if each.evaluated_at]
    places = (_LEFT, _LEFT + step * len(shown) - _CHARACTER * 12)
    shapes += [label(place, _BOTTOM + 24, time) for place, time in zip(places, times, strict=False)]
    height = max(_BOTTOM + 36, _TOP + _LINE_HEIGHT * min(len(versions), MAX_VERSIONS))
    return draw(right + _RIGHT, height, shapes)


@dataclass(frozen=True)
class _Scale:
    low: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "_Scale":
        """From the tick under the lowest value, 0 at most, to 1."""
        return cls(max((tick for tick in _TICKS if tick <= min([0.0, *values])), default=-1.0))

    def y(self, value: float) -> float:
        return _TOP + _HEIGHT * (1 - (value - self.low) / (1 - self.low))

    def grid(self, right: float) -> str:
        ticks = sorted({self.low, 0.0, 1.0})
        lines = "".join(f"M{_LEFT} {self.y(tick):.0f}H{right:.0f}" for tick in ticks)
        labels = (label(8, self.y(tick) + 4, f"{tick:g}".rjust(4).replace(" ", NBSP)) for tick in ticks)
        return f"<path d='{lines}' stroke='silver'/>{''.join(labels)}"


def _values(evaluations: Sequence[Evaluation]) -> list[float]:
    return [value for each in evaluations for value in (each.kappa, each.low) if value is not None]


def _figure(kappa: float | None) -> str:
    return "n/a" if kappa is None else f"{kappa:.2f}"


def _dots(points: Iterable[tuple[float, float | None]], scale: _Scale, colour: str) -> str:
    dots = "".join(f"M{x:.0f} {scale.y(value):.0f}h0" for x, value in points if value is not None)
    return f"<path d='{dots}' stroke='{colour}' stroke-width='11'/>" if dots else ""


def _shorten(text: str, length: int) -> str:
    return text if len(text) < length else text[: length - 2] + "…"
