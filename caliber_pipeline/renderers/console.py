"""Shows results on a terminal, and takes verdicts from a keyboard or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from caliber_pipeline.core.arguments import refuses_none
from caliber_pipeline.renderers.wording import (
    KIND,
    UNDEFINED,
    VERDICT,
    count_annotated,
    count_failures,
    diff_lines,
    figure_rows,
    format_stability,
    list_patterns,
    list_rounds,
    round_kappas,
    shorten,
    title_evaluation,
    visible,
)

if TYPE_CHECKING:
    from caliber_pipeline.core.agreement import ConfusionMatrix
    from caliber_pipeline.renderers import views

MAX_ROWS: Final = 20  # of a list on a terminal; what is left out is counted
_BAR_WIDTH: Final = 24
_MIN_BAR_WIDTH: Final = 4
_STYLE: Final = {1: "green", 0: "red"}
_KEYS: Final = ("accept", "reject", "note", "skip", "back", "undo", "quit")  # each by its first letter, too
_HELP: Final = "a accept · r reject (a note may follow, as 'r wrong date') · n NOTE · s skip · b back · u undo · q quit"


@refuses_none
class ConsoleCaliberRenderer:
    """Tables, bars and diffs by rich; colours only where the output takes them, and never with NO_COLOR set."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        file: TextIO | None = None,
        width: int | None = None,
        stdin: TextIO | None = None,
    ) -> None:
        """Write to a console.

        Args:
            console: An own one; otherwise one is made of the other arguments.
            file: Where to write; None for standard output.
            width: In characters; None for the terminal's.
            stdin: Where verdicts are read from; None for standard input.
        """
        self.console = console or Console(file=file, width=width, highlight=False)
        if isinstance(self.console.file, TextIOWrapper) and self.console.file.errors == "strict":
            self.console.file.reconfigure(errors="replace")  # what its encoding lacks must not end the session
        self._stdin = stdin

    def render_records(self, records: Sequence[views.RecordView]) -> None:
        """A table of records."""
        table = _table("Records", ("id", "query", "output"))
        for record in records[:MAX_ROWS]:
            table.add_row(_text(record.record_id), _text(shorten(record.query, 60)), _text(shorten(record.output, 120)))
        self._print(table, _more(len(records)))

    def render_progress(self, state: views.StateView) -> None:
        """A bar of how far the annotating is."""
        share, counts = count_annotated(state)
        self._print(Text.assemble(_bar(share, self.console.options), f" {counts}"))

    def render_evaluation(self, result: views.EvaluationView) -> None:
        """Figures with intervals, the confusion matrix, and what got no verdict."""
        figures = _table(title_evaluation(result), ("figure", "value", "", "95 % interval"))
        for label, value, text, interval in figure_rows(result):
            bar = _Bar(value) if value is not None else _text(UNDEFINED, "dim")
            figures.add_row(label, text, bar, interval)
        words = _text(f"Kappa is {result.interpretation}.", "bold")
        self._print(figures, words, _matrix(result.metrics), *_failures(result))

    def render_misalignments(self, analysis: views.AnalysisView) -> None:
        """Findings, recommendations, and the errors themselves."""
        self._print(_text(analysis.summary, "bold"))
        for finding in analysis.findings:
            self._print(_text(f"• {finding.title} ({len(finding.record_ids)}): {finding.description}"))
        for recommendation in analysis.recommendations:
            self._print(_text(f"→ {recommendation}", "cyan"))
        for errors in (analysis.false_positives, analysis.false_negatives):
            if errors:
                self._print(_errors(errors), _more(len(errors)))

    def render_patterns(self, patterns: Sequence[views.PatternView] | views.PatternsView) -> None:
        """A table of patterns with bars of their counts."""
        table = _table("Patterns in people's notes", ("pattern", "n", "", "stability", "typical note"))
        found = list_patterns(patterns)
        most = max((pattern.count for pattern in found), default=1) or 1
        for pattern in found:
            example = shorten(pattern.examples[0], 80) if pattern.examples else ""
            stability = format_stability(pattern.stability)
            table.add_row(
                _text(pattern.category), str(pattern.count), _Bar(pattern.count / most, 12), stability, _text(example)
            )
        self._print(table)

    def render_proposal(self, proposal: views.ProposalView) -> None:
        """The diff of old and new criteria, and where the changes come from."""
        self._print(_text(proposal.summary, "bold"))
        self._print(Panel(_diff(proposal.original_criteria, proposal.optimized_criteria), title="Criteria"))
        for suggestion in proposal.suggestions:
            self._print(_text(f"• {suggestion.aspect}: {suggestion.suggestion}\n  {suggestion.rationale}"))
        if proposal.example_ids:
            self._print(_text(f"{len(proposal.example_ids)} examples: {shorten(', '.join(proposal.example_ids), 100)}"))

    def render_history(self, rounds: Sequence[views.RoundView] | views.RoundsView) -> None:
        """A table of versions with kappa on each split."""
        table = _table("Versions", ("version", "kappa on dev", "", "on test", "decision", "why"))
        for each in list_rounds(rounds):
            value = each.kappa_by_split.get("dev")
            bar = _Bar(value, 12) if value is not None else _text("")
            dev, test = round_kappas(each)
            table.add_row(_text(each.version), dev, bar, test, each.decision, _text(each.decision_reason))
        self._print(table)

    def render_message(self, text: str) -> None:
        """A line."""
        self._print(_text(text))

    def annotate(self, manager: views.AnnotatingView) -> None:
        """Show record after record and read a line for each: a or r, n NOTE, s, b, u, q; the end of input quits."""
        self._print(_text(_HELP, "dim"))
        first = manager.get_next_unannotated()
        if first is not None:
            manager.set_current_index(manager.index_of(first.record_id))
        while (record := manager.get_current_record()) is not None:
            self._show_record(manager, record)
            line = self._read()
            if line is None or not self._obey(manager, record, line):
                break
        self.render_progress(manager.get_state())

    def _show_record(self, manager: views.AnnotatingView, record: views.RecordView) -> None:
        state = manager.get_state()
        parts = [("Query", record.query), ("Reference", record.reference), ("Output", record.output)]
        body = Text("\n\n").join(Text.assemble((f"{name}\n", "bold"), visible(text)) for name, text in parts if text)
        given = manager.get_annotation(record.record_id)
        if given is not None:
            note = f": {given.notes}" if given.notes else ""
            body.append_text(_text(f"\n\nYour verdict: {VERDICT[given.score]}{note}", _STYLE[given.score]))
        title = _text(f"{record.record_id} ({manager.current_index + 1} of {state.total}, {state.annotated} annotated)")
        self._print(Panel(body, title=title))

    def _read(self) -> str | None:
        """The next line, None at the end of input or on Ctrl-C."""
        self.console.print(_text("a/r/n/s/b/u/q > "), end="")
        stream = self._stdin or sys.stdin
        try:
            line = stream.readline()
        except KeyboardInterrupt:
            line = ""
        if not line or not stream.isatty():  # nobody pressed Enter, which ends the line of the question
            self._print(_text(line.rstrip()))
        return line.rstrip("\n") if line else None

    def _obey(self, manager: views.AnnotatingView, record: views.RecordView, line: str) -> bool:
        """Do what the line says; False to quit."""
        command, _, rest = line.strip().partition(" ")
        key, note = _parse_key(command), rest.strip() or None
        given = manager.get_annotation(record.record_id)
        if key in {"accept", "reject"}:
            kept = given.notes if given is not None and note is None else note
            manager.annotate(record.record_id, int(key == "accept"), kept)
            return self._go_on(manager)
        if key == "note" and note and given is not None:
            manager.annotate(record.record_id, given.score, note)
        elif key == "note":
            self._print(_text("give a or r first, then b and n with your note; or 'r your note'", "yellow"))
        elif key == "skip":
            return self._step(manager, 1)
        elif key == "back":
            self._step(manager, -1)
        elif key == "undo":
            manager.undo()
        elif key == "quit":
            return False
        else:
            self._print(_text(_HELP, "yellow"))
        return True

    def _go_on(self, manager: views.AnnotatingView) -> bool:
        """To the next record without a verdict; False where there is none."""
        following = manager.get_next_unannotated()
        if following is None:
            return False
        manager.set_current_index(manager.index_of(following.record_id))
        return True

    def _step(self, manager: views.AnnotatingView, by: int) -> bool:
        index = manager.current_index + by
        if not 0 <= index < manager.get_state().total:
            self._print(_text("that was the last record" if by > 0 else "this is the first record", "yellow"))
            return by < 0
        manager.set_current_index(index)
        return True

    def _print(self, *parts: RenderableType | None) -> None:
        self.console.print(Group(*(part for part in parts if part is not None)))


ConsoleCaliberHQRenderer = ConsoleCaliberRenderer


def _text(data: str, style: str = "") -> Text:
    """Data as it is: no markup, and nothing that a terminal obeys."""
    return Text(visible(data), style)


def _parse_key(command: str) -> str | None:
    """The key in full; None where it is none, as a word that only begins like one."""
    return next((key for key in _KEYS if command.lower() in {key, key[0]}), None)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=_text(title, "table.title"), title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _bar(share: float, options: ConsoleOptions, width: int = _BAR_WIDTH) -> Text:
    filled = round(min(max(share, 0.0), 1.0) * width)
    full, empty = "#-" if options.ascii_only else "█░"
    return Text.assemble((full * filled, "cyan"), (empty * (width - filled), "dim"))


class _Bar:
    """A bar in a table, narrower where the table has to be."""

    def __init__(self, share: float, width: int = _BAR_WIDTH) -> None:
        self._share = share
        self._width = width

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(_MIN_BAR_WIDTH, self._width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _bar(self._share, options, min(self._width, options.max_width))


def _more(n: int) -> Text | None:
    return _text(f"and {n - MAX_ROWS} more", "dim") if n > MAX_ROWS else None


def _matrix(metrics: ConfusionMatrix) -> Table:
    table = _table("Confusion matrix", ("", "judge accepts", "judge rejects"))
    table.add_row("people accept", str(metrics.true_positives), _text(str(metrics.false_negatives), "red"))
    table.add_row("people reject", _text(str(metrics.false_positives), "red"), str(metrics.true_negatives))
    return table


def _failures(result: views.EvaluationView) -> list[RenderableType]:
    if not result.failed:
        return []
    first = result.failed[0]
    return [_text(f"{count_failures(len(result.failed))}, e.g. {first.record_id}: {first.reason}", "yellow")]


def _errors(errors: Sequence[views.MisalignedView]) -> Table:
    table = _table(KIND[errors[0].kind].capitalize(), ("id", "output", "people's note", "judge's reasoning"))
    for error in errors[:MAX_ROWS]:
        texts = (error.output, error.human_notes or "", error.llm_reasoning or "")
        table.add_row(_text(error.record_id), *(_text(shorten(text, 100)) for text in texts))
    return table


def _diff(old: str, new: str) -> Text:
    """The lines of both, marked - and + and coloured."""
    text = Text()
    for sign, line in diff_lines(old, new):
        text.append(visible(f"{line}\n"), {"-": "red", "+": "green"}.get(sign, ""))
    text.rstrip()
    return text
