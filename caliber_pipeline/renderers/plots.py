"""Plots as SVG: small, without a library, in the colour of the text around them, so that light and dark both work."""

from collections.abc import Sequence
from html import escape

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.renderers import views
from caliber_pipeline.renderers.pictures import draw, label
from caliber_pipeline.renderers.wording import format_figure

_ACCENT = "#3b82c4"  # 3:1 and more against both white and black
_WRONG = "#c2573a"
_FONT = 'font-family="system-ui, sans-serif" fill="currentColor"'


def plot_confusion_matrix(metrics: ConfusionMatrix) -> str:
    """The four cells, shaded by their share of all records; the judge's errors in another colour."""
    most = max(metrics.cells) or 1
    cells = (
        (metrics.true_positives, _ACCENT),
        (metrics.false_positives, _WRONG),
        (metrics.false_negatives, _WRONG),
        (metrics.true_negatives, _ACCENT),
    )
    places = [(124 + 132 * (i % 2), 32 + 72 * (i // 2)) for i in range(len(cells))]
    shapes = [
        f"<path d='M{x} {y}h128v68h-128z' fill='{colour}' opacity='{0.08 + 0.5 * count / most:.2f}'/>"
        for (x, y), (count, colour) in zip(places, cells, strict=True)
    ]
    counts = "".join(label(x + 64, y + 42, str(n)) for (x, y), (n, _) in zip(places, cells, strict=True))
    sides = [
        (188, 22, "people accept"),
        (320, 22, "people reject"),
        (62, 70, "judge accepts"),
        (62, 142, "judge rejects"),
    ]
    shapes += [f"<g font-size='22'>{counts}</g>", *(label(*side) for side in sides)]
    return draw(392, 184, shapes, "text-anchor='middle' fill='currentColor' ")


def plot_kappa(rounds: Sequence[views.RoundView], split: str = "dev") -> str:
    """Cohen's kappa of each version on one split; versions that did not win are hollow, undefined ones left out."""
    step, left, top, height = 90, 50, 20, 140
    width = left + step * max(len(rounds), 1) + 20
    known = [each.kappa_by_split.get(split) for each in rounds]
    low = min([0.0, *(value for value in known if value is not None)])

    def place(value: float) -> float:
        return top + height * (1 - (value - low) / (1 - low))

    shapes = [_grid(width, left, place(value), f"{value:g}") for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    points = [(left + step * (i + 0.5), place(value)) for i, value in enumerate(known) if value is not None]
    if len(points) > 1:
        line = " ".join(f"{x:.0f},{y:.1f}" for x, y in points)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{_ACCENT}" stroke-opacity="0.5"/>')
    for i, (each, value) in enumerate(zip(rounds, known, strict=True)):
        x, has_won = left + step * (i + 0.5), each.decision in {"baseline", "promoted"}
        if value is not None:
            fill = _ACCENT if has_won else "none"
            shapes.append(
                f'<circle cx="{x:.0f}" cy="{place(value):.1f}" r="6" fill="{fill}" stroke="{_ACCENT}" stroke-width="2">'
                f"<title>{escape(each.version)}: {format_figure(value)}, {escape(each.decision)}</title></circle>"
            )
            shapes.append(_label(x, place(value) - 11, format_figure(value), size=12))
        shapes.append(_label(x, top + height + 20, escape(each.version)))
        shapes.append(_label(x, top + height + 36, escape(each.decision), size=11))
    return _svg(width, top + height + 46, f"Cohen's kappa on {split} over versions", shapes)


def _grid(width: int, left: int, y: float, label: str) -> str:
    line = f'x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}"'
    return f'<line {line} stroke="currentColor" stroke-opacity="0.15"/>{_label(left - 8, y + 4, label, "end", 11)}'


def _label(x: float, y: float, text: str, anchor: str = "middle", size: int = 13) -> str:
    """Text that is safe already."""
    return f'<text x="{x:.0f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {_FONT}>{text}</text>'


def _svg(width: int, height: int, title: str, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" style="max-width:100%">{"".join(shapes)}</svg>'
    )
