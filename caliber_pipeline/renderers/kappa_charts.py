"""Cohen's kappa as SVG text: of versions side by side with their intervals, and of evaluations in time.

Made to be shown as pictures, which inherit no colours: each brings its own light ground, so that it reads on dark too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

from caliber_pipeline.core.optimized_criteria import WINNING
from caliber_pipeline.renderers.pattern_charts import embed_svg

MAX_VERSIONS: Final = 12  # more labels than that run into each other
MAX_EVALUATIONS: Final = 40
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d1f", "#7b3294", "#4d4d4d", "#b2182b")
_INK: Final = "#1f2430"
_GRID: Final = "#dfe2e8"
_TARGET: Final = "#1a7f37"
_CEILING: Final = "#8250df"
_LEFT: Final = 56
_TOP: Final = 44
_HEIGHT: Final = 220
_RIGHT: Final = 210  # names of the dashed lines, or the legend
_TICKS: Final = tuple(i / 5 for i in range(-5, 6))
_LINE_HEIGHT: Final = 16


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
    """A dot with its interval per version; hollow where the version did not win.

    Args:
        evaluations: One per version, in order; of more than 12 the last are shown.
        lines: Levels to compare with, by name: 'target' and what else there is.
    """
    shown = evaluations[-MAX_VERSIONS:]
    step = 96
    scale = _Scale.over([*_values(shown), *lines.values()])
    width = _LEFT + step * max(len(shown), 1) + _RIGHT
    shapes = [_text(16, 24, "Cohen's kappa on dev, with 95 % intervals", weight="bold"), *scale.grid(width - _RIGHT)]
    below = 0.0
    for name, level in sorted(lines.items(), key=lambda line: -line[1]):
        colour = _TARGET if name == "target" else _CEILING
        below = max(scale.y(level) + 4, below + _LINE_HEIGHT)  # the names of near lines do not overlap
        shapes.append(_line(_LEFT, width - _RIGHT, scale.y(level), colour, dashed=True))
        shapes.append(_text(width - _RIGHT + 8, below, f"{name} {level:.2f}", colour=colour))
    for i, each in enumerate(shown):
        x = _LEFT + step * (i + 0.5)
        shapes += _dot_with_interval(x, each, scale)
        shapes.append(_text(x, _TOP + _HEIGHT + 22, _shorten(each.version, 14), anchor="middle", weight="bold"))
        shapes.append(_text(x, _TOP + _HEIGHT + 40, each.decision, anchor="middle"))
    return _svg(width, _TOP + _HEIGHT + 54, "Cohen's kappa by criteria version", shapes)


def plot_kappa_over_time(evaluations: Sequence[Evaluation]) -> str:
    """A dot per evaluation in the order of time, those of one version joined: recalibrations show drift.

    Args:
        evaluations: In any order, each with its time; of more than 40 the last are shown.
    """
    dated = [each for each in evaluations if each.evaluated_at is not None]
    shown = sorted(dated, key=lambda each: (str(each.evaluated_at), each.version))[-MAX_EVALUATIONS:]
    step = max(16.0, min(96.0, 620 / max(len(shown), 1)))
    scale = _Scale.over(_values(shown))
    width = int(_LEFT + step * max(len(shown), 1) + _RIGHT)
    versions = list(dict.fromkeys(each.version for each in shown))
    title = "Cohen's kappa on dev, by evaluation in time"
    shapes = [_text(16, 24, title, weight="bold"), *scale.grid(width - _RIGHT)]
    for i, version in enumerate(versions):
        colour = _COLOURS[i % len(_COLOURS)]
        points = [
            (_LEFT + step * (j + 0.5), scale.y(each.kappa))
            for j, each in enumerate(shown)
            if each.version == version and each.kappa is not None
        ]
        shapes += _series(points, colour)
        if i < MAX_VERSIONS:
            top = _TOP + 12 + 20 * i
            shapes.append(f'<circle cx="{width - _RIGHT + 14}" cy="{top - 4}" r="5" fill="{colour}"/>')
            shapes.append(_text(width - _RIGHT + 26, top, _shorten(version, 24)))
    every = max(1, round(84 / step))  # a label every 84 pixels at least
    for j in range(0, len(shown), every):
        when = shown[j].evaluated_at
        label = "" if when is None else when.strftime("%b %d %H:%M")
        shapes.append(_text(_LEFT + step * (j + 0.5), _TOP + _HEIGHT + 22, label, anchor="middle", size=11))
    return _svg(width, _TOP + _HEIGHT + 36, title, shapes)


def on_card(svg: str) -> str:
    """A drawing in the colour of the text around it, on a ground of its own: as a picture it would inherit none."""
    head, _, body = svg.partition(">")
    return f'{head} color="{_INK}"><rect width="100%" height="100%" fill="#ffffff"/>{body}'


def embed_on_card(svg: str, alt: str) -> str:
    """The same as Markdown that carries the picture along."""
    return embed_svg(on_card(svg), alt)


@dataclass(frozen=True)
class _Scale:
    low: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "_Scale":
        """From the tick under the lowest value, 0 at most, to 1."""
        return cls(max((tick for tick in _TICKS if tick <= min([0.0, *values])), default=-1.0))

    def y(self, value: float) -> float:
        return _TOP + _HEIGHT * (1 - (value - self.low) / (1 - self.low))

    def grid(self, right: float) -> list[str]:
        shapes = []
        for tick in (tick for tick in _TICKS if tick >= self.low):
            shapes.append(_line(_LEFT, right, self.y(tick), _GRID))
            shapes.append(_text(_LEFT - 8, self.y(tick) + 4, f"{tick:g}", anchor="end", size=11))
        return shapes


def _values(evaluations: Sequence[Evaluation]) -> list[float]:
    return [value for each in evaluations for value in (each.kappa, each.low) if value is not None]


def _dot_with_interval(x: float, each: Evaluation, scale: _Scale) -> list[str]:
    if each.kappa is None:
        return [_text(x, scale.y(0) - 8, "n/a", anchor="middle")]
    colour, y = _COLOURS[0], scale.y(each.kappa)
    shapes = []
    if each.low is not None and each.high is not None:
        ends = f'y1="{scale.y(each.low):.1f}" y2="{scale.y(each.high):.1f}"'
        shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{colour}" stroke-width="2"/>')
    fill = colour if each.decision in WINNING else "#ffffff"
    shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
    return [*shapes, _text(x + 11, y + 4, f"{each.kappa:.2f}")]


def _series(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-opacity="0.5" stroke-width="2"/>'
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>' for x, y in points]
    return [line, *dots] if len(points) > 1 else dots


def _line(left: float, right: float, y: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"{dash}/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: str = "normal", colour: str = _INK
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    font = f'font-family="system-ui,sans-serif" font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f"<text {place} {font}>{escape(text)}</text>"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _svg(width: int, height: int, title: str, shapes: Sequence[str]) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(title)}</title>'
    return f'{head}<rect width="100%" height="100%" fill="#ffffff"/>{"".join(shapes)}</svg>'
