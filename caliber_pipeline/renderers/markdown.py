"""Markdown that text from data can neither break nor run in."""

import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import Final

DIFF_WIDTH: Final = 110
MAX_ITEM_CHARS: Final = 600
_ESCAPED: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in "\\`*_[|#!~$"}
)


def escape_markdown(text: object, *, max_chars: int = 300) -> str:
    """The text on one line, shortened, with no markup of its own."""
    line = " ".join(str(text).split())
    return (line if len(line) <= max_chars else line[: max_chars - 1] + "…").translate(_ESCAPED)


def render_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, max_chars: int = 300) -> str:
    """A Markdown table; None shows as n/a."""
    lines = [columns, ["---"] * len(columns)]
    lines += [["n/a" if cell is None else escape_markdown(cell, max_chars=max_chars) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_list(items: Sequence[object]) -> str:
    """A Markdown list; without items the word none."""
    return "\n".join(f"- {escape_markdown(item, max_chars=MAX_ITEM_CHARS)}" for item in items) or "none"


def render_code(text: str, language: str = "") -> str:
    """The text as a code block that it cannot leave."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def render_diff(before: str, after: str, *, before_name: str, after_name: str) -> str:
    """What changed from one text to the other: sentence by sentence, and clauses, which begin with a dash, whole."""
    old, new = (_units(text) for text in (before, after))
    lines = difflib.unified_diff(old, new, before_name, after_name, lineterm="", n=1)
    return render_code("\n".join(lines) or "no difference", "diff")


def _units(text: str) -> list[str]:
    """The text in lines that need no scrolling."""
    parts = [
        part
        for line in text.splitlines()
        for part in ([line] if line.startswith("- ") else re.split(r"(?<=[.;:!?]) +", line))
    ]
    return [
        line
        for part in parts
        for line in textwrap.wrap(part, DIFF_WIDTH, subsequent_indent="  ", break_long_words=False)
    ]
