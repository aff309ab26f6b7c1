import multiprocessing
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from caliber_pipeline.core.annotation_events import EVENTS, AnnotationEvent
from caliber_pipeline.core.conforming import arrow_from_frame, conform_frame
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.schemas import ANNOTATIONS
from caliber_pipeline.stores.annotation_store import AnnotationStore, parse_store_url

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def event(id_: str, record: str = "r1", annotator: str = "ada", **values: object) -> AnnotationEvent:
    defaults: dict[str, Any] = {"action": "annotate", "score": 1}
    return AnnotationEvent(event_id=id_, record_id=record, annotator=annotator, **(defaults | values))


@pytest.fixture
def store(store_url: str) -> Iterator[AnnotationStore]:
    with AnnotationStore(store_url) as opened:
        yield opened


def test_what_is_stored_is_read_back_with_every_value_after_reopening(store_url: str) -> None:
    stored = event(
        "e1", notes="zu kühl 🙁 שלום", severity=2.0, criteria_version="v001", inclusion_probability=0.25,
        saw_judge=True, saw_others=True, created_at=NOON,
    )  # fmt: skip
    with AnnotationStore(store_url) as store:
        assert store.append([stored]) == [True]
    with AnnotationStore(store_url) as store:
        assert store.state("r1", "ada") == stored
        assert store.state("r1", "ben") is None
        assert store.state("r2", "ada") is None


def test_an_event_sent_twice_is_stored_once(store: AnnotationStore) -> None:
    assert store.append([event("e1")]) == [True]
    assert store.append([event("e1"), event("e2", score=0), event("e2", score=0)]) == [False, True, False]
    assert store.history()["event_id"].tolist() == ["e1", "e2"]


def test_the_latest_event_of_a_person_counts_and_history_keeps_all(store: AnnotationStore) -> None:
    store.append([event("e1", notes="fine"), event("e2", score=0, notes="no"), event("e3", annotator="ben")])
    table = store.annotations()
    shown = table[["record_id", "annotator", "score", "notes"]].astype(object).fillna("-")
    assert shown.to_numpy().tolist() == [["r1", "ada", 0, "no"], ["r1", "ben", 1, "-"]]
    assert store.history()["notes"].fillna("").tolist() == ["fine", "no", ""]
    assert [state.annotator for state in store.states_of_record("r1")] == ["ada", "ben"]


def test_undo_brings_back_the_state_before_and_keeps_both(store: AnnotationStore) -> None:
    store.append([event("e1", notes="first"), event("e2", score=0)])
    store.append([event("u1", action="undo", score=1, notes="first")])
    assert store.annotations()["score"].tolist() == [1]
    store.append([event("u2", action="undo", score=None)])
    assert store.annotations().empty
    state = store.state("r1", "ada")
    assert state is not None
    assert state.status == "open"
    assert len(store.history()) == 4


def test_skips_and_notes_without_a_verdict_are_no_annotations(store: AnnotationStore) -> None:
    store.append(
        [
            event("e1", action="skip", score=None, is_skipped=True, notes="unsure"),
            event("e2", "r2", action="note", score=None, notes="half a thought"),
            event("e3", "r3", score=0),
        ]
    )
    assert store.annotations()["record_id"].tolist() == ["r3"]
    states = [store.state(record, "ada") for record in ("r1", "r2", "r3")]
    assert [state and state.status for state in states] == ["skipped", "open", "rejected"]


def test_the_exported_table_conforms_to_the_schema_even_when_empty(store: AnnotationStore) -> None:
    assert arrow_from_frame(store.annotations(), "annotations").schema.equals(ANNOTATIONS)
    assert store.history().columns.tolist() == EVENTS.names
    assert store.last_seq() == 0
    store.append([event("e1", severity=4.0)])
    assert arrow_from_frame(store.annotations(), "annotations").num_rows == 1


def test_a_clock_that_runs_backwards_does_not_bring_an_old_verdict_back(store_url: str) -> None:
    times = iter([NOON, NOON - timedelta(hours=1)])
    with AnnotationStore(store_url, clock=lambda: next(times)) as store:
        store.append([event("e1", score=1)])
        store.append([event("e2", score=0)])
        assert store.annotations()["score"].tolist() == [0]
        assert store.history()["created_at"].is_monotonic_increasing


def test_importing_the_same_annotations_again_changes_nothing(store: AnnotationStore) -> None:
    rows = pd.DataFrame(
        {
            "record_id": ["r1", "r2"], "annotator": "cy", "score": [1, 0], "notes": [None, "bad"],
            "severity": pd.array([None, 2.0], "Float64"), "created_at": [NOON, pd.NaT], "criteria_version": None,
            "inclusion_probability": None, "is_gold": False,
        }
    )  # fmt: skip
    annotations = conform_frame(rows, "annotations")
    assert store.import_annotations(annotations) == 2
    assert store.import_annotations(annotations) == 0
    assert arrow_from_frame(store.annotations(), "annotations").equals(arrow_from_frame(annotations, "annotations"))


def imported(**values: Any) -> pd.DataFrame:  # noqa: ANN401 - what a column of a frame can hold
    rows = pd.DataFrame({name: [None] for name in ANNOTATIONS.names})
    chosen: dict[str, Any] = {"record_id": "r1", "annotator": "ada", "is_gold": False} | values
    return conform_frame(rows.assign(**chosen), "annotations")


@pytest.mark.parametrize("time", [None, NOON], ids=["no-time", "unchanged-time"])
def test_an_imported_verdict_that_is_set_back_counts_again(store: AnnotationStore, time: datetime | None) -> None:
    first, second = (imported(score=score, created_at=time) for score in (1, 0))
    assert [store.import_annotations(rows) for rows in (first, second, first)] == [1, 1, 1]
    assert store.annotations()["score"].tolist() == [1]
    assert store.import_annotations(first) == 0
    assert [store.import_annotations(rows) for rows in (second, first)] == [1, 1]
    assert store.annotations()["score"].tolist() == [1]
    assert store.history()["score"].tolist() == [1, 0, 1, 0, 1]


def test_an_imported_file_with_several_times_changes_nothing_when_it_comes_again(store: AnnotationStore) -> None:
    both = pd.concat([imported(score=1, created_at=NOON), imported(score=0, created_at=NOON + timedelta(hours=1))])
    assert [store.import_annotations(both) for _ in range(2)] == [2, 0]
    assert store.import_annotations(imported(score=1, created_at=NOON)) == 0
    assert store.annotations()["score"].tolist() == [0]


def test_a_verdict_that_is_set_back_in_a_file_does_not_replace_the_one_of_the_page(store_url: str) -> None:
    with AnnotationStore(store_url, clock=lambda: NOON) as store:
        store.import_annotations(imported(score=1))
        store.append([event("e1", score=0)])
        assert [store.import_annotations(imported(score=score)) for score in (0, 1)] == [1, 1]
        assert store.annotations()["score"].tolist() == [0]


def test_many_records_are_imported_at_once_and_known_again(store: AnnotationStore) -> None:
    rows = conform_frame(
        pd.concat([imported(score=1)] * 1201).assign(record_id=[f"r{i}" for i in range(1201)]), "annotations"
    )
    assert [store.import_annotations(rows) for _ in range(2)] == [1201, 0]


def test_one_import_that_nobody_can_mean_keeps_out_all(store: AnnotationStore) -> None:
    with pytest.raises(InputError, match="severity -1 is not over 0"):
        store.import_annotations(pd.concat([imported(score=1), imported(score=1, annotator="ben", severity=-1.0)]))
    assert store.last_seq() == 0


def test_imported_gold_labels_override_the_others_as_those_of_a_file_do(store: AnnotationStore) -> None:
    rows = pd.DataFrame({name: [None] * 3 for name in ANNOTATIONS.names})
    rows = rows.assign(record_id="r1", annotator=["ada", "ben", "gold"], score=[1, 1, 0], is_gold=[False, False, True])
    store.import_annotations(conform_frame(rows, "annotations"))
    assert store.annotations()["is_gold"].tolist() == [False, False, True]
    labels = resolve_labels(store.annotations())
    assert (labels["human_score"].tolist(), labels["n_annotators"].tolist()) == ([0], [2])


def test_an_imported_older_verdict_does_not_replace_a_newer_one(store_url: str) -> None:
    with AnnotationStore(store_url, clock=lambda: NOON) as store:
        store.append([event("e1", score=0)])
        rows = pd.DataFrame({name: [None] for name in ANNOTATIONS.names})
        rows = rows.assign(record_id="r1", annotator="ada", score=1, is_gold=False)
        assert store.import_annotations(conform_frame(rows, "annotations")) == 1
        assert store.annotations()["score"].tolist() == [0]


def test_changes_are_followed_from_a_place_on(store: AnnotationStore) -> None:
    store.append([event("e1"), event("e2", annotator="ben"), event("e3", "r2")])
    first, place = store.changes("ada")
    assert [change.event_id for change in first] == ["e1", "e3"]
    assert place == store.last_seq()
    assert store.changes("ada", after=place) == ([], place)
    store.append([event("e4", "r2", score=0)])
    assert [change.event_id for change in store.changes("ada", after=place)[0]] == ["e4"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score": 2}, "score 2 is neither"),
        ({"score": None}, "has no score"),
        ({"is_skipped": True}, "both judged and skipped"),
        ({"action": "skip", "score": None}, "does not skip"),
        ({"action": "delete"}, "none of annotate"),
        ({"annotator": " "}, "annotator ' ' is blank"),
        ({"record_id": "r" * 201}, "over 200 characters"),
        ({"notes": "a\0b"}, "holds a NUL"),
        ({"severity": 0.0}, "severity 0 is not over 0"),
        ({"severity": float("nan")}, "severity nan"),
        ({"inclusion_probability": 1.5}, r"1\.5 is not in"),
    ],
)
def test_an_event_that_nobody_can_mean_is_refused_and_nothing_stored(
    store: AnnotationStore, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        store.append([event("good"), replace(event("bad"), **values)])
    assert store.last_seq() == 0


def test_the_database_itself_refuses_to_change_or_remove_history(store: AnnotationStore, store_url: str) -> None:
    store.append([event("e1")])
    engine = sa.create_engine(parse_store_url(store_url))
    for statement in ("UPDATE annotation_events SET score = 0", "DELETE FROM annotation_events"):
        with pytest.raises(sa.exc.DBAPIError, match="never changed"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()
    assert store.annotations()["score"].tolist() == [1]


def test_a_fact_belongs_to_the_store_for_good(store: AnnotationStore, store_url: str) -> None:
    secret = store.fact("secret")
    assert len(secret) > 30
    assert store.fact("other") != secret
    with AnnotationStore(store_url) as again:
        assert again.fact("secret") == secret


def test_threads_writing_at_once_lose_and_double_nothing(store: AnnotationStore) -> None:
    def annotate(name: str) -> None:
        for i in range(20):
            store.append([event(f"{name}-{i}", f"r{i}", name)])
            store.append([event(f"shared-{i}", f"r{i}", "shared")])

    threads = [threading.Thread(target=annotate, args=(f"a{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = Counter(store.annotations()["annotator"])
    assert counts == {f"a{n}": 20 for n in range(8)} | {"shared": 20}
    assert len(store.history()) == 9 * 20


def write_from_process(url: str, name: str) -> None:
    with AnnotationStore(url) as store:
        for i in range(25):
            store.append([event(f"{name}-{i}", f"r{i}", name), event(f"shared-{i}", f"r{i}", "shared")])


@pytest.mark.slow
def test_processes_opening_and_writing_one_store_at_once_lose_nothing(store_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_from_process, args=(store_url, f"p{n}")) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with AnnotationStore(store_url) as store:
        assert Counter(store.annotations()["annotator"]) == {"p0": 25, "p1": 25, "p2": 25, "shared": 25}


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    path.write_text("not a database, but long enough to be taken for one " * 20)
    with pytest.raises(InputError, match=r"notes\.sqlite: not usable as annotation store"):
        AnnotationStore(path)


def test_a_path_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"notes\.sqlite: not usable as annotation store \(File exists\)"):
        AnnotationStore(tmp_path / "file" / "notes.sqlite")


def test_a_store_of_a_later_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    AnnotationStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE annotation_store SET value = '99' WHERE name = 'layout'")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="layout 99"):
        AnnotationStore(path)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(InputError, match="not usable as annotation store") as caught:
        AnnotationStore("postgresql://ada:hunter2@127.0.0.1:9/notes")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/db", "redis://x", "http://"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        parse_store_url(url)
