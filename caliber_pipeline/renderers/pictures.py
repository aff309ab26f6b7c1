"""Pictures as SVG text, written tightly: Dagster's UI shows Markdown of under 1,000 characters at once."""

from collections.abc import Iterable
from html import escape
from typing import Final

_CODES: Final = {character: f"%{ord(character):02X}" for character in "%<>#&\\\n"}
_ESCAPES: Final = str.maketrans(_CODES)
_STYLE: Final = "style='font:13px monospace;"


def draw(width: int, height: int, shapes: Iterable[str], more: str = "") -> str:
    """A picture, and further attributes of its root.

    A line in it has round ends: one without length is a dot.
    """
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' {more}"
        f"{_STYLE}stroke-linecap:round'>{''.join(shapes)}</svg>"
    )


def label(x: float, y: float, text: str, more: str = "") -> str:
    """Text from anywhere, and further attributes."""
    return f"<text x='{x:.0f}' y='{y:.0f}'{more}>{escape(text, quote=False)}</text>"


def embed_picture(svg: str, alt: str) -> str:
    """The picture as Markdown that carries it along, black on a light ground of its own, so that it reads on dark."""
    on_card = svg.replace(_STYLE, f"{_STYLE}background:#fff;", 1)
    return f"![{escape(alt)}](<data:image/svg+xml,{on_card.translate(_ESCAPES)}>)"
