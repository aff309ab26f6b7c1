import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.records import Annotation, UploadedRecord, annotations_from
from caliber_pipeline.core.column_names import GOLD
from caliber_pipeline.core.errors import InputError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def make_records(n: int) -> list[dict[str, Any]]:
    return [{"record_id": f"r{i}", "query": "q", "output": f"a{i}"} for i in range(n)]


def make_manager(n: int = 3) -> AnnotationManager:
    times = iter(NOON + timedelta(minutes=i) for i in range(10_000))
    return AnnotationManager(make_records(n), clock=lambda: next(times))


def test_annotates_and_changes_a_verdict() -> None:
    manager = make_manager()

    manager.annotate("r1", 0, " wrong ")
    manager.annotate("r1", 1)

    annotation = manager.get_annotation("r1")
    assert annotation is not None
    assert (annotation.score, annotation.notes, annotation.created_at) == (1, None, NOON + timedelta(minutes=1))
    assert [change.before.notes if change.before else None for change in manager.history] == [None, "wrong"]
    assert manager.get_annotation("r0") is None
    assert manager.get_annotations_dict() == {"r1": 1}


def test_annotations_are_understood_by_the_names_that_files_may_have() -> None:
    spoken = {"item_id": 1, "label": "reject", "comment": "rude", "rater": "ann", "timestamp": NOON.isoformat()}
    record = {"id": "r2", "score": 1, "judgment": 0, "human_notes": "wrong"}  # the score is the judge's
    first, second = annotations_from([spoken, record])
    assert first == Annotation(record_id="1", score=0, notes="rude", annotator="ann", created_at=NOON)
    assert second == Annotation(record_id="r2", score=0, notes="wrong", annotator=GOLD)


def test_undo_brings_back_what_was_before() -> None:
    manager = make_manager()
    manager.annotate("r2", 0, "wrong")
    manager.annotate("r2", 1)

    manager.undo()
    restored = manager.get_annotation("r2")
    assert restored is not None
    assert (restored.score, restored.notes) == (0, "wrong")
    assert manager.current_index == 2

    manager.undo()
    assert manager.get_annotation("r2") is None
    assert manager.undo() is None
    assert manager.get_state().annotated == 0


def test_labels_by_gold_then_majority() -> None:
    manager = make_manager(4)
    for annotator, score in (("ann", 0), ("bob", 0), ("eve", 1)):
        manager.annotate("r0", score, f"{annotator} says", annotator)
    manager.annotate("r1", 1, annotator="ann")
    manager.annotate("r1", 0, annotator="bob")
    manager.annotate("r2", 0, annotator="ann")
    manager.annotate("r2", 1)

    assert manager.get_annotations_dict() == {"r0": 0, "r2": 1}
    consensus = manager.get_annotation("r0")
    assert consensus is not None
    assert (consensus.annotator, consensus.notes) == ("consensus", "ann says / bob says")
    assert manager.get_annotation("r1") is None
    by_ann = manager.get_annotation("r1", "ann")
    assert by_ann is not None
    assert by_ann.score == 1
    assert [a.annotator for a in manager.get_annotations("r2")] == ["ann", GOLD]
    state = manager.get_state()
    assert (state.annotated, state.remaining, state.accepts, state.rejects, state.undecided) == (3, 1, 1, 1, 1)
    assert state.annotators == ("ann", "bob", "eve", GOLD)
    assert state.to_dict()["progress"] == 0.75


def test_walks_through_the_records() -> None:
    manager = make_manager()

    current = manager.get_current_record()
    assert current is not None
    assert current.record_id == "r0"
    manager.annotate("r0", 1)
    assert [r.record_id if (r := manager.get_next_unannotated()) else None] == ["r1"]
    manager.set_current_index(2)
    manager.annotate("r2", 1)
    after_wrap = manager.get_next_unannotated()
    assert after_wrap is not None
    assert after_wrap.record_id == "r1"
    assert not manager.is_complete()
    manager.annotate("r1", 0)
    assert manager.is_complete()
    assert manager.get_next_unannotated() is None
    assert manager.progress == 1.0
    assert manager.get_record(1) == manager.get_record_by_id("r1")


def test_takes_annotations_that_come_with_records() -> None:
    records = [{"id": 7, "input": "q", "response": "a", "judgment": "accept", "notes": "good", "colour": "red"}]

    manager = AnnotationManager(records)

    assert manager.get_annotations_dict() == {"7": 1}
    assert manager.records == [
        UploadedRecord(
            record_id="7", query="q", output="a", human_score=1, human_notes="good", metadata={"colour": "red"}
        )
    ]


def test_nothing_is_complete_without_records() -> None:
    manager = AnnotationManager([])

    assert not manager.is_complete()
    assert manager.get_current_record() is None
    assert manager.get_state().progress == 0.0


def test_refuses_what_it_does_not_know() -> None:
    manager = make_manager()
    with pytest.raises(InputError, match=r"no record 'x' among 3 records \(r0, r1, r2, …\)"):
        manager.annotate("x", 1)
    with pytest.raises(InputError, match="the score of 'r0' is 2; give 1 to accept or 0 to reject"):
        manager.annotate("r0", 2)
    with pytest.raises(InputError, match="the severity of 'r0' is -1"):
        manager.annotate("r0", 1, severity=-1)
    with pytest.raises(InputError, match="no record at index 3; there are 3"):
        manager.get_record(3)
    with pytest.raises(InputError, match=r"1 record ids repeat, e.g. \['r0'\]"):
        AnnotationManager([*make_records(1), *make_records(1)])
    with pytest.raises(InputError, match="no record 'x'"):
        AnnotationManager(make_records(1), [Annotation(record_id="x", score=1)])
    assert manager.history == []


class AnnotatingMachine(RuleBasedStateMachine):
    """Whatever is done, undone and saved, the manager agrees with a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = make_manager(4)
        self.states: list[dict[tuple[str, str], int]] = [{}]

    @rule(i=st.integers(0, 3), score=st.integers(0, 1), annotator=st.sampled_from([None, "ann", "bob"]))
    def annotate(self, i: int, score: int, annotator: str | None) -> None:
        self.manager.annotate(f"r{i}", score, annotator=annotator)
        self.states.append(self.states[-1] | {(f"r{i}", annotator or GOLD): score})

    @precondition(lambda self: len(self.states) > 1)
    @rule()
    def undo(self) -> None:
        self.manager.undo()
        self.states.pop()

    @rule()
    def save_and_load(self) -> None:
        data = json.loads(json.dumps(self.manager.to_dict()))
        restored = AnnotationManager.from_dict(data)
        assert restored.to_dict() == self.manager.to_dict()
        assert restored.records == self.manager.records
        self.manager = restored

    @invariant()
    def agrees(self) -> None:
        kept = {(a.record_id, a.annotator): a.score for a in self.manager.annotations}
        assert kept == self.states[-1]
        annotated = {record_id for record_id, _ in kept}
        assert self.manager.progress == len(annotated) / 4
        assert self.manager.is_complete() == (len(annotated) == 4)
        following = self.manager.get_next_unannotated()
        assert (following is None) == self.manager.is_complete()
        assert following is None or following.record_id not in annotated


AnnotatingMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=15)
test_annotating_is_consistent = AnnotatingMachine.TestCase
