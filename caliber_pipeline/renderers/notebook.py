"""Shows results in a notebook: HTML that escapes all data, SVG plots, and widgets to annotate with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from caliber_pipeline.renderers.plots import plot_confusion_matrix, plot_kappa
from caliber_pipeline.renderers.protocol import (
    FIGURES,
    KIND,
    VERDICT,
    count_failures,
    format_figure,
    format_interval,
    shorten,
)

if TYPE_CHECKING:
    from caliber_pipeline.renderers.notebook_widget import AnnotationWidget
    from caliber_pipeline.renderers.views import (
        AnalysisView,
        AnnotatingView,
        AnnotationView,
        EvaluationView,
        FindingView,
        MisalignedView,
        PatternView,
        ProposalView,
        RecordView,
        RoundView,
        StateView,
    )

MAX_ROWS: Final = 50  # of a table in a notebook; what is left out is counted
_MAX_CHARS: Final = 300
# currentColor and translucent greys alone, so that it reads on light and dark
_STYLE: Final = """<style>
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


class NotebookCaliberRenderer:
    """Shows each result where it is called, and returns it as an `HtmlView`."""

    def render_records(self, records: Sequence[RecordView]) -> HtmlView:
        """A table of records."""
        rows = [
            (_id(record.record_id), _text(record.query), _text(record.output), _text(record.reference or ""))
            for record in records[:MAX_ROWS]
        ]
        return _view("Records", _table(("id", "query", "output", "reference"), rows), _more(len(records)))

    def render_progress(self, state: StateView) -> HtmlView:
        """A bar of how far the annotating is."""
        return _view("Annotating", progress_html(state))

    def render_evaluation(self, result: EvaluationView) -> HtmlView:
        """Figures with intervals, the confusion matrix, and what got no verdict."""
        metrics = result.metrics
        rows = []
        for name, label in FIGURES:
            value = metrics.figures[name]
            bar = _bar(value) if value is not None else ""
            rows.append((escape(label), _n(format_figure(value)), bar, escape(format_interval(result.interval(name)))))
        judge = escape(f"{result.provider}/{result.model}")
        return _view(
            f"Agreement of {judge} with people on {metrics.n} records",
            f"<p>Kappa is <b>{escape(result.interpretation)}</b>.</p>",
            _table(("figure", "value", "", "95 % interval"), rows),
            plot_confusion_matrix(metrics),
            _failures(result),
        )

    def render_misalignments(self, analysis: AnalysisView) -> HtmlView:
        """Findings, recommendations, and the errors themselves."""
        return _view(
            "Misalignments",
            f"<p>{escape(analysis.summary)}</p>",
            _list(map(_finding, analysis.findings)),
            _list(escape(text) for text in analysis.recommendations),
            *(_errors(errors) for errors in (analysis.false_positives, analysis.false_negatives)),
        )

    def render_patterns(self, patterns: Sequence[PatternView]) -> HtmlView:
        """A table of patterns with bars of their counts."""
        most = max((pattern.count for pattern in patterns), default=1) or 1
        rows = [
            (
                f"<b>{escape(pattern.category)}</b><br>{_text(pattern.description)}",
                _n(str(pattern.count)),
                _bar(pattern.count / most),
                _n(format_figure(pattern.stability)),
                _list(_text(note) for note in pattern.examples[:3]),
            )
            for pattern in patterns
        ]
        return _view("Patterns in people's notes", _table(("pattern", "n", "", "stability", "typical notes"), rows))

    def render_proposal(self, proposal: ProposalView) -> HtmlView:
        """The diff of old and new criteria, and where the changes come from."""
        suggestions = (
            f"<b>{escape(s.aspect)}</b>: {escape(s.suggestion)} <span class='dim'>{escape(s.rationale)}</span>"
            for s in proposal.suggestions
        )
        shown = escape(", ".join(proposal.example_ids))
        return _view(
            "Proposed criteria",
            f"<p>{escape(proposal.summary)}</p>",
            diff_html(proposal.original_criteria, proposal.optimized_criteria),
            _list(suggestions),
            f"<p class='dim'>Examples: {shown}</p>" if shown else "",
        )

    def render_history(self, rounds: Sequence[RoundView]) -> HtmlView:
        """Kappa over versions, and what was decided about each."""
        rows = []
        for each in rounds:
            test = format_figure(each.kappa_by_split["test"]) if "test" in each.kappa_by_split else "sealed"
            dev = format_figure(each.kappa_by_split.get("dev"))
            rows.append((escape(each.version), _n(dev), _n(test), escape(each.decision), _text(each.decision_reason)))
        table = _table(("version", "kappa on dev", "on test", "decision", "why"), rows)
        return _view("Versions", plot_kappa(rounds), table)

    def render_message(self, text: str) -> HtmlView:
        """A line."""
        return HtmlView(f"{_STYLE}<div class='caliber'>{escape(text)}</div>").show()

    def annotate(self, manager: AnnotatingView) -> AnnotationWidget:
        """Show a record at a time with buttons and a field for a note; every verdict counts at once.

        Raises:
            InputError: ipywidgets is not installed.
        """
        from caliber_pipeline.renderers.notebook_widget import AnnotationWidget

        return AnnotationWidget(manager).show()


NotebookCaliberHQRenderer = NotebookCaliberRenderer


def is_notebook() -> bool:
    """Whether IPython is running, without importing it where it is not."""
    import sys

    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None


def record_html(record: RecordView, title: str, given: AnnotationView | None) -> str:
    """One record in full."""
    parts = [("Query", record.query), ("Reference", record.reference), ("Output", record.output)]
    texts = "".join(f"<b>{name}</b><div class='text'>{escape(text)}</div>" for name, text in parts if text)
    verdict = ""
    if given is not None:
        note = f": {escape(given.notes)}" if given.notes else ""
        verdict = f"<p>Your verdict: <b>{VERDICT[given.score]}</b>{note}</p>"
    return f"{_STYLE}<div class='caliber'><h4>{escape(title)}</h4>{texts}{verdict}</div>"


def progress_html(state: StateView) -> str:
    """A bar and the counts."""
    share = state.annotated / state.total if state.total else 0.0
    ties = f", {state.undecided} undecided" if state.undecided else ""
    counts = f"{state.annotated}/{state.total} annotated: {state.accepts} accept, {state.rejects} reject{ties}"
    return f"{_bar(share)} {counts}"


def diff_html(old: str, new: str) -> str:
    """The lines of both, what went and what came marked."""
    tags = {"-": "del", "+": "ins"}
    lines = []
    for line in difflib.ndiff(old.splitlines(), new.splitlines()):
        if line.startswith("?"):
            continue
        tag = tags.get(line[0])
        text = escape(line)
        lines.append(f"<{tag}>{text}</{tag}>" if tag else f"<div>{text}</div>")
    return f"<div class='diff'>{''.join(lines)}</div>"


def _view(title: str, *parts: str) -> HtmlView:
    return HtmlView(f"{_STYLE}<div class='caliber'><h4>{title}</h4>{''.join(parts)}</div>").show()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(c if c.startswith('<td') else f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _n(text: str) -> str:
    return f"<td class='n'>{escape(text)}</td>"


def _id(record_id: str) -> str:
    return f"<code>{escape(record_id)}</code>"


def _text(text: str) -> str:
    return escape(shorten(text, _MAX_CHARS))


def _list(items: Iterable[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{listed}</ul>" if listed else ""


def _bar(share: float) -> str:
    percent = 100 * min(max(share, 0.0), 1.0)
    return f"<span class='track'><span class='bar' style='width:{percent:.0f}%'></span></span>"


def _finding(finding: FindingView) -> str:
    return f"<b>{escape(finding.title)}</b> ({len(finding.record_ids)}): {escape(finding.description)}"


def _errors(errors: Sequence[MisalignedView]) -> str:
    if not errors:
        return ""
    rows = [
        (
            _id(error.record_id),
            _text(error.query),
            _text(error.output),
            _text(error.human_notes or ""),
            _text(error.llm_reasoning or ""),
        )
        for error in errors[:MAX_ROWS]
    ]
    title = KIND[errors[0].kind].capitalize()
    columns = ("id", "query", "output", "people's note", "judge's reasoning")
    return f"<h4>{title}</h4>{_table(columns, rows)}{_more(len(errors))}"


def _failures(result: EvaluationView) -> str:
    if not result.failed:
        return ""
    rows = [(_id(failed.record_id), escape(failed.status), _text(failed.reason)) for failed in result.failed[:MAX_ROWS]]
    return (
        f"<h4>{count_failures(len(result.failed))}</h4>"
        f"{_table(('id', 'status', 'why'), rows)}{_more(len(result.failed))}"
    )


def _more(n: int) -> str:
    return f"<p class='dim'>and {n - MAX_ROWS} more</p>" if n > MAX_ROWS else ""
