"""Shows patterns and learnings: as tables on a console, as HTML in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from caliber_pipeline.api.discovery_results import DiscoveredPattern, PatternDiscoveryResult
from caliber_pipeline.api.evidence import PipelineResult
from caliber_pipeline.core.arguments import ITEMS, accepts, has_attributes
from caliber_pipeline.core.learnings import LearningArtifact
from caliber_pipeline.core.themes import shorten
from caliber_pipeline.renderers.wording import visible

if TYPE_CHECKING:
    from rich.console import Console

_CELL = "padding:0.3em 0.8em;text-align:left;vertical-align:top"
_PATTERN_COLUMNS = ("pattern", "explains", "notes", "stability", "keywords", "for example")
_LEARNING_COLUMNS = ("learning", "confidence", "rests on", "what to do", "tags")


def display_patterns(
    result: PatternDiscoveryResult | Iterable[DiscoveredPattern], *, console: Console | None = None
) -> None:
    """Show the patterns, the largest first, unstable ones marked; and how many notes belong to none."""
    patterns = result.patterns if isinstance(result, PatternDiscoveryResult) else tuple(result)
    caption = ""
    if isinstance(result, PatternDiscoveryResult):
        caption = f"{result.total_analyzed} notes by {result.method}; {len(result.uncategorized)} uncategorized"
    _show("Patterns", _PATTERN_COLUMNS, [_pattern_row(pattern) for pattern in patterns], caption, console)


@accepts(learnings=ITEMS)
def display_learnings(learnings: Iterable[LearningArtifact], *, console: Console | None = None) -> None:
    """Show what was learned and what to do."""
    _show("Learnings", _LEARNING_COLUMNS, [_learning_row(learning) for learning in learnings], "", console)


@accepts(result=has_attributes("clustering_result", wanted="what EvidencePipeline.run returns"))
def display_pipeline_result(result: PipelineResult, *, console: Console | None = None) -> None:
    """Show the patterns, the learnings, and what fell out on the way."""
    display_patterns(result.clustering_result, console=console)
    caption = (
        f"{result.filtered_count} filtered, {result.deduplicated_count} duplicates, "
        f"{len(result.validation_repairs)} repairs, {len(result.failures)} failures, {len(result.sink_ids)} stored"
    )
    rows = [_learning_row(learning) for learning in result.learnings]
    _show("Learnings", _LEARNING_COLUMNS, rows, caption, console)
    for line in (*result.validation_repairs, *result.failures):
        _show_line(line, console)


def _pattern_row(pattern: DiscoveredPattern) -> list[str]:
    stability = "n/a" if pattern.stability is None else f"{pattern.stability:.2f}"
    example = shorten(pattern.examples[0], 80) if pattern.examples else ""
    return [
        pattern.category,
        pattern.polarity or "",
        str(pattern.count),
        f"{stability} unstable" if pattern.is_unstable else stability,
        ", ".join(pattern.keywords),
        example,
    ]


def _learning_row(learning: LearningArtifact) -> list[str]:
    return [
        f"{learning.title}: {learning.content}",
        f"{learning.confidence:.2f}",
        f"{len(learning.supporting_item_ids)} items",
        " ".join(learning.recommended_actions),
        ", ".join(learning.tags),
    ]


def _show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, console: Console | None
) -> None:
    if console is None and _is_notebook():
        _show_html(render_html_table(title, columns, rows, caption))
        return
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, caption=caption or None)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))  # Text: brackets in notes are no markup
    (console or RichConsole()).print(table)


def render_html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """An HTML table, everything in it escaped, in the page's own colours."""
    head = "".join(f'<th style="{_CELL}">{escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    foot = f"<p>{escape(caption)}</p>" if caption else ""
    return f"<h4>{escape(title)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _show_line(line: str, console: Console | None) -> None:
    if console is None and _is_notebook():
        _show_html(f"<p>{escape(line)}</p>")
        return
    from rich.console import Console as RichConsole
    from rich.text import Text

    (console or RichConsole()).print(Text(visible(f"- {line}")))


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and shell.has_trait("kernel")


def _show_html(html: str) -> None:
    display = sys.modules["IPython"].display
    display.display(display.HTML(html))
