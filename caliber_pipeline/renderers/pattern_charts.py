"""The map of the notes as SVG text."""

from collections.abc import Mapping
from html import escape
from typing import Final

import pandas as pd

_COLOURS: Final = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#7b3294", "#4d4d4d", "#b2182b",
)  # fmt: skip
_GREY: Final = "#b8bcc4"
_INK: Final = "#1f2430"
_WIDTH: Final = 860
_PLOT: Final = 460  # the map's side; the legend is to its right
_ROW: Final = 22
_NAME_LENGTH: Final = 46


def render_pattern_map(
    points: pd.DataFrame, names: Mapping[str, str], *, title: str, others: str = "Unclustered"
) -> str:
    """The notes as dots coloured by pattern, the others hollow and grey, with a legend.

    Args:
        points: pattern_id, x, y.
        names: The patterns' names by id, in the legend's order.
        title: What is shown.
        others: What the notes of all other ids are called.
    """
    counts = points["pattern_id"].value_counts()
    styles = {key: _style(i) for i, key in enumerate(names)}
    x, y = _scaled(points["x"]), _scaled(points["y"])
    dots = []
    for pattern_id, left, top in zip(points["pattern_id"], x, y, strict=True):
        dots.append(_mark(left, _PLOT - top, styles.get(pattern_id)))
    legend = [(name, int(counts.get(key, 0)), styles[key]) for key, name in names.items()]
    n_rest = int(sum(n for key, n in counts.items() if key not in names))
    rows = [*legend, (others, n_rest, None)] if n_rest else legend
    lines = []
    for i, (name, count, style) in enumerate(rows):
        top = 50 + i * _ROW
        lines.append(_mark(_PLOT + 40, top - 4, style))
        lines.append(_text(_PLOT + 54, top, f"{_shorten(name)} ({count})"))
    height = max(_PLOT + 50, 60 + len(rows) * _ROW)
    frame = f'<rect x="20" y="36" width="{_PLOT}" height="{_PLOT}" fill="none" stroke="#d5d8de"/>'
    body = f'<g transform="translate(20,36)">{"".join(dots)}</g>'
    return _svg(height, f"{_text(20, 22, title, weight='bold')}{frame}{body}{''.join(lines)}", title)


def _style(i: int) -> tuple[str, bool]:
    """Colour, and whether the mark is a square: twenty patterns can be told apart."""
    return _COLOURS[i % len(_COLOURS)], i // len(_COLOURS) % 2 == 1


def _mark(x: float, y: float, style: tuple[str, bool] | None) -> str:
    if style is None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{_GREY}" stroke-width="1.5"/>'
    colour, is_square = style
    if is_square:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}" fill-opacity="0.8"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" fill-opacity="0.8"/>'


def _text(x: float, y: float, text: str, *, weight: str = "normal") -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" font-weight="{weight}"'
    return f'<text {attributes} font-family="system-ui,sans-serif" font-size="13" fill="{_INK}">{escape(text)}</text>'


def _scaled(values: pd.Series) -> list[float]:
    """The values in pixels of the plot, with a margin."""
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    return [14 + (float(value) - low) / span * (_PLOT - 28) for value in values]


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "\u2026"


def _svg(height: int, body: str, title: str) -> str:
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(title)}</title>'
    return f'{head}<rect width="100%" height="100%" fill="#ffffff"/>{body}</svg>'
