import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.renderers.notebook import MAX_ROWS, NotebookCaliberRenderer
from caliber_pipeline.renderers.notebook_widget import AnnotationWidget
from caliber_pipeline.renderers.plots import plot_kappa
from caliber_pipeline.renderers.protocol import CaliberRenderer
from caliber_pipeline_tests.renderers.shown import (
    HOSTILE,
    PATTERNS,
    ROUNDS,
    Analysis,
    Misaligned,
    Proposal,
    Round,
    make_manager,
    make_result,
)

VOID = {"br"}


class _Checker(HTMLParser):
    """Collects tags and text, and sees to it that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def close(self) -> None:
        super().close()
        assert self._open == []


def check(html: str) -> _Checker:
    checker = _Checker()
    checker.feed(html)
    checker.close()
    assert "script" not in checker.tags
    return checker


def views() -> dict[str, str]:
    renderer = NotebookCaliberRenderer()
    return {
        "records": renderer.render_records(make_manager().records).html,
        "progress": renderer.render_progress(make_manager().get_state()).html,
        "evaluation": renderer.render_evaluation(make_result()).html,
        "misalignments": renderer.render_misalignments(Analysis()).html,
        "patterns": renderer.render_patterns(PATTERNS).html,
        "proposal": renderer.render_proposal(Proposal()).html,
        "history": renderer.render_history(ROUNDS).html,
        "message": renderer.render_message(HOSTILE).html,
    }


def test_data_stays_data() -> None:
    shown = {name: check(html).text for name, html in views().items()}

    for name in ("records", "misalignments", "patterns", "proposal", "history", "message"):
        assert HOSTILE in shown[name]
    record = make_manager(1).records[0]
    assert HOSTILE in check(AnnotationWidget(make_manager(1)).record_view.value).text
    assert HOSTILE in record.output


def test_shows_the_figures() -> None:
    checker = check(views()["evaluation"])

    assert "Kappa is moderate." in checker.text
    assert "0.417" in checker.text
    assert "1 record got no verdict" in checker.text
    assert "svg" in checker.tags


def test_plots_kappa_over_versions() -> None:
    svg = plot_kappa(ROUNDS)

    figures, decisions = (text.split() for text in re.findall(r"textLength='\d+'>(.*?)<", svg))
    assert figures == ["v001", "0.20", "v002", "n/a", "v003", "0.70"]
    assert decisions == ["baseline", "rejected", "promoted"]
    assert svg.count("h0") == 2  # what is undefined has no dot
    assert check(plot_kappa([Round("<b>", "rejected", {"dev": -0.5})])).text.count("<b>") >= 1
    assert "h0" not in plot_kappa([])


def test_uses_no_colour_that_only_one_theme_can_show() -> None:
    for html in views().values():
        assert not re.search(r"(?<!background-)color:\s*(#|black|white|rgb\()", html)
        assert "background:#fff" not in html


def test_counts_what_it_leaves_out() -> None:
    errors = tuple(Misaligned(f"r{i}", "false_positive") for i in range(MAX_ROWS + 3))

    assert "and 3 more" in NotebookCaliberRenderer().render_misalignments(Analysis(false_positives=errors)).html


def test_annotates_with_buttons() -> None:
    manager = make_manager()
    renderer: CaliberRenderer = NotebookCaliberRenderer()
    widget = renderer.annotate(manager)
    assert isinstance(widget, AnnotationWidget)

    widget.buttons["Accept"].click()
    widget.note.value = " wrong date "
    widget.buttons["Reject"].click()
    assert {a.record_id: (a.score, a.notes) for a in manager.annotations} == {
        "r0": (1, None),
        "r1": (0, "wrong date"),
    }
    widget.buttons["Undo"].click()
    assert "r1 (2 of 3)" in widget.record_view.value
    widget.buttons["Skip"].click()
    widget.buttons["Skip"].click()
    widget.buttons["Accept"].click()
    assert manager.get_annotations_dict() == {"r0": 1, "r2": 1}
    widget.buttons["Back"].click()
    widget.buttons["Back"].click()
    assert "Your verdict: <b>accept</b>" in widget.record_view.value
    assert repr(widget) == "AnnotationWidget(2/3 annotated)"


def test_annotating_without_records() -> None:
    widget = AnnotationWidget(make_manager(0))

    widget.buttons["Accept"].click()

    assert widget.record_view.value == "There are no records."


def test_says_how_to_get_the_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)

    with pytest.raises(InputError, match=r"pip install 'caliber-pipeline\[notebook\]'"):
        AnnotationWidget(make_manager(1))


CELLS = (
    """
from caliber_pipeline import CaliberHQ, CaliberMetric, Dataset, DatasetItem, NotebookCaliberRenderer
from caliber_pipeline_tests.renderers.shown import HOSTILE, PATTERNS, ROUNDS, Analysis, Proposal
items = [
    DatasetItem(f"i{n}", f"What is {n} + {n}?", f"It is {2 * n + n % 2}. {HOSTILE}", llm_score=1) for n in range(4)
]
hq = CaliberHQ(Dataset(items), CaliberMetric("be right", llm_provider="recorded"), NotebookCaliberRenderer())
widget = hq.annotate()
""",
    """
for verdict in ("Accept", "Reject", "Accept", "Reject"):
    widget.buttons[verdict].click()
hq.execute()
""",
    """
renderer = NotebookCaliberRenderer()
renderer.render_patterns(PATTERNS)
renderer.render_misalignments(Analysis())
renderer.render_proposal(Proposal())
renderer.render_history(ROUNDS)
""",
    """
import asyncio
from caliber_pipeline import CalibrationSession
session = CalibrationSession()
session.upload_records([{"id": n, "query": f"q{n}", "output": "a", "judgment": n % 2, "score": 1} for n in range(6)])
result = await session.evaluate("be right", llm_provider="recorded")
same = session.evaluate_sync("be right", llm_provider="recorded")
print(result.metrics.accuracy, same.metrics.accuracy)
""",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_runs_with_plots_and_widgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the kernel shows what these tests show
    cells = [{"cell_type": "code", "source": cell.strip(), "metadata": {}, "outputs": []} for cell in CELLS]
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells}
    notebook = nbformat.from_dict(content)  # type: ignore[no-untyped-call]
    place = {"metadata": {"path": str(tmp_path)}}

    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place).execute()

    outputs = [cell["outputs"] for cell in notebook.cells]
    assert "application/vnd.jupyter.widget-view+json" in outputs[0][0]["data"]
    evaluation = check(outputs[1][0]["data"]["text/html"]).text
    assert "Agreement of recorded/recorded with people on 4 records" in evaluation
    assert len(outputs[2]) == 4  # each shown once, the last one not again as the cell's value
    assert "svg" in check(outputs[2][3]["data"]["text/html"]).tags
    assert outputs[3][0]["text"] == "0.5 0.5\n"
