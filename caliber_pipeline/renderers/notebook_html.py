"""Pieces of HTML for a notebook; all data in them is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from caliber_pipeline.renderers.wording import VERDICT, count_annotated, diff_lines

if TYPE_CHECKING:
    from caliber_pipeline.renderers import views

# currentColor and translucent greys alone, so that it reads on light and dark
STYLE: Final = """<style>
.caliber{font:14px/1.45 system-ui,sans-serif;color:inherit;max-width:70em}
.caliber h4{margin:.8em 0 .3em;font-size:1.05em;font-weight:600}
.caliber table{border-collapse:collapse;margin:.3em 0;color:inherit;background:transparent}
.caliber th,.caliber td{border:1px solid rgba(128,128,128,.4);padding:.25em .6em;text-align:left!important;
vertical-align:top;color:inherit;background:transparent;white-space:normal;overflow-wrap:break-word}
.caliber th{background:rgba(128,128,128,.15);white-space:nowrap!important}
.caliber td.n{text-align:right!important;font-variant-numeric:tabular-nums}
.caliber .bar{display:inline-block;height:.8em;background:#3b82c4;border-radius:2px;vertical-align:middle}
.caliber .track{display:inline-block;width:12em;background:rgba(128,128,128,.25);border-radius:2px;line-height:.8em}
.caliber ins{background:rgba(46,160,67,.25);text-decoration:none;display:block}
.caliber del{background:rgba(218,85,60,.25);text-decoration:none;display:block}
.caliber .diff{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid rgba(128,128,128,.4);padding:.5em;
font-family:ui-monospace,monospace;font-size:.92em}
.caliber .text{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid rgba(128,128,128,.5);padding-left:.7em;
margin:.2em 0 .7em}
.caliber .dim{opacity:.75}
</style>"""


class HtmlView:
    """A piece of HTML that a notebook shows once: where it was made, and not again as a cell's last value."""

    def __init__(self, html: str) -> None:
        """Hold some HTML.

        Args:
            html: The HTML, all data in it escaped.
        """
        self.html = html
        self._is_shown = False

    def _repr_html_(self) -> str:
        return self.html

    def _ipython_display_(self) -> None:
        self.show()

    def show(self) -> HtmlView:
        """Show it where there is a notebook, if it was not shown yet."""
        if not self._is_shown and is_notebook():
            from IPython.display import HTML, display

            self._is_shown = True
            display(HTML(self.html))  # type: ignore[no-untyped-call]  # IPython has no types here
        return self


def is_notebook() -> bool:
    """Whether IPython is running, without importing it where it is not."""
    import sys

    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None


def record_html(record: views.RecordView, title: str, given: views.AnnotationView | None) -> str:
    """One record in full."""
    parts = [("Query", record.query), ("Reference", record.reference), ("Output", record.output)]
    texts = "".join(f"<b>{name}</b><div class='text'>{escape(text)}</div>" for name, text in parts if text)
    verdict = ""
    if given is not None:
        note = f": {escape(given.notes)}" if given.notes else ""
        verdict = f"<p>Your verdict: <b>{VERDICT[given.score]}</b>{note}</p>"
    return f"{STYLE}<div class='caliber'><h4>{escape(title)}</h4>{texts}{verdict}</div>"


def progress_html(state: views.StateView) -> str:
    """A bar and the counts."""
    share, counts = count_annotated(state)
    return f"{render_bar(share)} {counts}"


def diff_html(old: str, new: str) -> str:
    """The lines of both, what went and what came marked."""
    tags = {"-": "del", "+": "ins"}
    lines = []
    for sign, line in diff_lines(old, new):
        tag = tags.get(sign, "div")
        lines.append(f"<{tag}>{escape(line)}</{tag}>")
    return f"<div class='diff'>{''.join(lines)}</div>"


def render_bar(share: float) -> str:
    """A bar that is filled to a share; what is below 0 is empty."""
    percent = 100 * min(max(share, 0.0), 1.0)
    return f"<span class='track'><span class='bar' style='width:{percent:.0f}%'></span></span>"
