import io
import json
from pathlib import Path

import pytest

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.renderers.json_renderer import JsonCaliberRenderer
from caliber_pipeline.renderers.protocol import CaliberRenderer
from caliber_pipeline_tests.renderers.shown import (
    HOSTILE,
    PATTERNS,
    ROUNDS,
    Analysis,
    Found,
    Proposal,
    Rounds,
    make_manager,
    make_result,
)


def test_returns_what_json_reads() -> None:
    renderer = JsonCaliberRenderer()

    evaluation = json.loads(renderer.render_evaluation(make_result()))
    assert evaluation["type"] == "evaluation"
    assert evaluation["metrics"]["accuracy"] == 5 / 7
    assert evaluation["metrics"]["true_positives"] == 3
    assert len(evaluation["intervals"]["cohen_kappa"]) == 2
    assert len(evaluation["records"]) == 7
    assert evaluation["failed"][0]["record_id"] == "r7"
    assert json.loads(renderer.render_records(make_manager().records))["records"][0]["output"] == f"a0 {HOSTILE}"
    assert json.loads(renderer.render_misalignments(Analysis()))["findings"][0]["record_ids"] == ["r1", "r2"]
    assert json.loads(renderer.render_patterns(PATTERNS))["patterns"][0]["stability"] == 0.9
    assert renderer.render_patterns(Found()) == renderer.render_patterns(PATTERNS)
    assert renderer.render_history(Rounds()) == renderer.render_history(ROUNDS)
    assert json.loads(renderer.render_proposal(Proposal()))["suggestions"][0]["suggestion"] == HOSTILE
    assert json.loads(renderer.render_history(ROUNDS))["versions"][1]["kappa_by_split"]["dev"] is None
    assert json.loads(renderer.render_message("hello")) == {"type": "message", "text": "hello"}
    assert json.loads(renderer.render_progress(make_manager().get_state()))["total"] == 3


def test_undefined_figures_are_null() -> None:
    evaluation = json.loads(JsonCaliberRenderer().render_evaluation(make_result([(1, 1)])))

    assert evaluation["metrics"]["cohen_kappa"] is None
    assert evaluation["intervals"]["cohen_kappa"] is None


def test_offers_the_next_record() -> None:
    manager = make_manager(1)
    renderer: CaliberRenderer = JsonCaliberRenderer()

    assert json.loads(str(renderer.annotate(manager)))["record"]["record_id"] == "r0"
    manager.annotate("r0", 1)
    assert json.loads(str(renderer.annotate(manager)))["record"] is None


def test_writes_one_line_per_object_where_asked(tmp_path: Path) -> None:
    stream = io.StringIO()
    for renderer in (JsonCaliberRenderer(stream), JsonCaliberRenderer(tmp_path / "out.jsonl")):
        renderer.render_message("one")
        renderer.render_message("two\nlines")

    for text in (stream.getvalue(), (tmp_path / "out.jsonl").read_text(encoding="utf-8")):
        assert [json.loads(line)["text"] for line in text.splitlines()] == ["one", "two\nlines"]


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/out\.jsonl: cannot be written \(No such file"):
        JsonCaliberRenderer(tmp_path / "none" / "out.jsonl").render_message("one")
    with pytest.raises(InputError, match="target is 5; give a stream or a path, or None"):
        JsonCaliberRenderer(5)  # type: ignore[arg-type]
