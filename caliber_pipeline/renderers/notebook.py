"""Shows results in a notebook: HTML that escapes all data, SVG plots, and widgets to annotate with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from caliber_pipeline.core.arguments import refuses_none
from caliber_pipeline.renderers.notebook_html import STYLE, HtmlView, diff_html, progress_html, render_bar
from caliber_pipeline.renderers.plots import plot_confusion_matrix, plot_kappa
from caliber_pipeline.renderers.wording import (
    KIND,
    count_failures,
    figure_rows,
    format_stability,
    list_patterns,
    list_rounds,
    round_kappas,
    shorten,
    title_evaluation,
)

if TYPE_CHECKING:
    from caliber_pipeline.renderers import views
    from caliber_pipeline.renderers.notebook_widget import AnnotationWidget

MAX_ROWS: Final = 50  # of a table in a notebook; what is left out is counted
_MAX_CHARS: Final = 300


@refuses_none
class NotebookCaliberRenderer:
    """Shows each result where it is called, and returns it as an `HtmlView`."""

    def render_records(self, records: Sequence[views.RecordView]) -> HtmlView:
        """A table of records."""
        rows = [
            (_id(record.record_id), _text(record.query), _text(record.output), _text(record.reference or ""))
            for record in records[:MAX_ROWS]
        ]
        return _view("Records", _table(("id", "query", "output", "reference"), rows), _more(len(records)))

    def render_progress(self, state: views.StateView) -> HtmlView:
        """A bar of how far the annotating is."""
        return _view("Annotating", progress_html(state))

    def render_evaluation(self, result: views.EvaluationView) -> HtmlView:
        """Figures with intervals, the confusion matrix, and what got no verdict."""
        rows = [
            (escape(label), _n(text), render_bar(value) if value is not None else "", escape(interval))
            for label, value, text, interval in figure_rows(result)
        ]
        return _view(
            escape(title_evaluation(result)),
            f"<p>Kappa is <b>{escape(result.interpretation)}</b>.</p>",
            _table(("figure", "value", "", "95 % interval"), rows),
            plot_confusion_matrix(result.metrics),
            _failures(result),
        )

    def render_misalignments(self, analysis: views.AnalysisView) -> HtmlView:
        """Findings, recommendations, and the errors themselves."""
        return _view(
            "Misalignments",
            f"<p>{escape(analysis.summary)}</p>",
            _list(map(_finding, analysis.findings)),
            _list(escape(text) for text in analysis.recommendations),
            *(_errors(errors) for errors in (analysis.false_positives, analysis.false_negatives)),
        )

    def render_patterns(self, patterns: Sequence[views.PatternView] | views.PatternsView) -> HtmlView:
        """A table of patterns with bars of their counts."""
        found = list_patterns(patterns)
        most = max((pattern.count for pattern in found), default=1) or 1
        rows = [
            (
                f"<b>{escape(pattern.category)}</b><br>{_text(pattern.description)}",
                _n(str(pattern.count)),
                render_bar(pattern.count / most),
                _n(format_stability(pattern.stability)),
                _list(_text(note) for note in pattern.examples[:3]),
            )
            for pattern in found
        ]
        return _view("Patterns in people's notes", _table(("pattern", "n", "", "stability", "typical notes"), rows))

    def render_proposal(self, proposal: views.ProposalView) -> HtmlView:
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

    def render_history(self, rounds: Sequence[views.RoundView] | views.RoundsView) -> HtmlView:
        """Kappa over versions, and what was decided about each."""
        listed, rows = list_rounds(rounds), []
        for each in listed:
            dev, test = round_kappas(each)
            rows.append((escape(each.version), _n(dev), _n(test), escape(each.decision), escape(each.decision_reason)))
        table = _table(("version", "kappa on dev", "on test", "decision", "why"), rows)
        return _view("Versions", plot_kappa(listed), table)

    def render_message(self, text: str) -> HtmlView:
        """A line."""
        return HtmlView(f"{STYLE}<div class='caliber'>{escape(text)}</div>").show()

    def annotate(self, manager: views.AnnotatingView) -> AnnotationWidget:
        """Show a record at a time with buttons and a field for a note; every verdict counts at once.

        Raises:
            InputError: ipywidgets is not installed.
        """
        from caliber_pipeline.renderers.notebook_widget import AnnotationWidget

        return AnnotationWidget(manager).show()


NotebookCaliberHQRenderer = NotebookCaliberRenderer


def _view(title: str, *parts: str) -> HtmlView:
    return HtmlView(f"{STYLE}<div class='caliber'><h4>{title}</h4>{''.join(parts)}</div>").show()


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


def _finding(finding: views.FindingView) -> str:
    return f"<b>{escape(finding.title)}</b> ({len(finding.record_ids)}): {escape(finding.description)}"


def _errors(errors: Sequence[views.MisalignedView]) -> str:
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


def _failures(result: views.EvaluationView) -> str:
    if not result.failed:
        return ""
    rows = [(_id(failed.record_id), escape(failed.status), _text(failed.reason)) for failed in result.failed[:MAX_ROWS]]
    return (
        f"<h4>{count_failures(len(result.failed))}</h4>"
        f"{_table(('id', 'status', 'why'), rows)}{_more(len(result.failed))}"
    )


def _more(n: int) -> str:
    return f"<p class='dim'>and {n - MAX_ROWS} more</p>" if n > MAX_ROWS else ""
