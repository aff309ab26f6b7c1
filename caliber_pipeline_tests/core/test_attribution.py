from typing import Any

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.attribution import (
    ask_owner,
    attribute_misalignments,
    build_relabel_queue,
    contradicted_by_neighbours,
    split_patterns,
)
from caliber_pipeline.core.conforming import empty_frame
from caliber_pipeline.core.misalignments import find_misalignments, needs_vectors

NO_MEMBERS = pd.DataFrame({"record_id": [], "pattern_id": []}, dtype="string[pyarrow]")


def rows_of(*rows: dict[str, Any]) -> pd.DataFrame:
    base = {"human_score": 0, "llm_score": 1, "n_annotators": 1, "n_accepts": 0, "vote_share": None}
    frame = pd.DataFrame([base | {"record_id": f"r{i}"} | row for i, row in enumerate(rows)])
    return frame.astype({"vote_share": "double[pyarrow]", "record_id": "string[pyarrow]"})


@pytest.mark.parametrize(
    ("row", "attribution"),
    [
        ({"n_annotators": 2, "vote_share": 1.0}, "judge_error"),
        ({"n_annotators": 2}, "judge_error_unverified"),
        ({"vote_share": 1.0}, "judge_error_unverified"),
        ({}, "judge_error_unverified"),
        ({"n_annotators": 3, "n_accepts": 1, "vote_share": 1.0}, "label_doubt"),
        ({"n_annotators": 1, "n_accepts": 1}, "label_doubt"),  # the only annotator differs from the gold label
        ({"n_annotators": 2, "vote_share": 0.6}, "criteria_gap"),
        ({"n_annotators": 3, "n_accepts": 1, "vote_share": 0.6}, "criteria_gap"),
    ],
)
def test_each_misalignment_is_attributed_by_what_is_known(row: dict[str, Any], attribution: str) -> None:
    wrong = rows_of(row)

    attributed = attribute_misalignments(wrong, wrong, NO_MEMBERS)

    assert attributed["attribution"].tolist() == [attribution]
    assert attributed["attribution_reason"].str.len().gt(0).all()


def test_a_lone_label_is_doubted_only_against_neighbours_and_a_stable_judge() -> None:
    wrong = rows_of({"vote_share": 1.0}, {"vote_share": None}, {"vote_share": 1.0, "n_annotators": 2})

    attributed = attribute_misalignments(wrong, wrong, NO_MEMBERS, np.array([True, True, True]))

    assert attributed["attribution"].tolist() == ["label_doubt", "judge_error_unverified", "judge_error"]


def test_people_who_split_along_a_pattern_show_a_gap_in_the_criteria() -> None:
    split = {"n_annotators": 3, "n_accepts": 1}
    scored = rows_of(split, split, split, {"n_annotators": 2}, split, {"n_annotators": 2}, {"n_annotators": 2})
    members = pd.DataFrame(
        {"record_id": ["r0", "r1", "r2", "r3", "r4", "r5", "r6"], "pattern_id": ["tone"] * 4 + ["facts"] * 3}
    )

    # tone: 3 of 4 records are split; facts: 1 of 3.
    assert split_patterns(scored, members) == {"tone"}
    attributed = attribute_misalignments(scored, scored, members)
    assert (
        attributed["attribution"].tolist()
        == ["criteria_gap"] * 3 + ["judge_error_unverified", "label_doubt"] + ["judge_error_unverified"] * 2
    )


def _unit(*angles: float) -> Floats:
    return np.array([[np.cos(a), np.sin(a)] for a in angles])


def test_neighbours_contradict_only_where_they_are_near_and_of_one_mind() -> None:
    vectors = _unit(0, 0.01, 0.02, 0.03, 0.04, 0.05, 3)

    def contradicted(labels: list[float]) -> list[object]:
        return list(contradicted_by_neighbours(vectors, np.array(labels), np.array([0, 6])))

    assert contradicted([0, 1, 1, 1, 1, 0, 0]) == [True, False]  # the last one has no near neighbour
    assert contradicted([0, 1, 1, 1, 0, 0, 0]) == [False, False]
    assert contradicted_by_neighbours(vectors[:3], np.array([0.0, 1, 1]), np.array([0])).tolist() == [False]


def test_many_rows_are_held_against_their_neighbours_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, labels, rows = _unit(*np.linspace(0, 1, 60)), rng.integers(0, 2, 60).astype(float), np.arange(0, 60, 2)
    at_once = contradicted_by_neighbours(vectors, labels, rows)

    monkeypatch.setattr("caliber_pipeline.core.attribution.MAX_SIMILARITIES", 100)

    assert at_once.any()
    assert contradicted_by_neighbours(vectors, labels, rows).tolist() == at_once.tolist()
    assert contradicted_by_neighbours(vectors, labels, rows[:0]).tolist() == []


def _records(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"record_id": ids, "query": "q", "output": "o", "reference": None}, dtype="string[pyarrow]")


def test_the_relabel_queue_holds_ties_doubts_and_abstentions_once_each() -> None:
    labels = pd.DataFrame(
        {
            "record_id": pd.array(["tie", "doubt", "sure"], dtype="string[pyarrow]"),
            "human_score": pd.array([None, 0, 1], dtype="int8[pyarrow]"),
            "n_annotators": [2, 3, 2],
            "n_accepts": [1, 1, 2],
        }
    )
    misalignments = pd.DataFrame(
        {
            "record_id": pd.array(["doubt", "sure"], dtype="string[pyarrow]"),
            "attribution": ["label_doubt", "judge_error"],
            "attribution_reason": ["annotators differ", "…"],
        }
    )

    queue = build_relabel_queue(labels, _records("tie", "doubt", "sure", "new"), misalignments, ("new", "tie"))

    assert queue["record_id"].tolist() == ["tie", "doubt", "new"]
    assert queue["reason"].tolist() == ["annotators tie", "annotators differ", "the judge abstains"]
    assert queue["n_annotators"].tolist() == [2, 3, 0]
    assert "llm_score" not in queue.columns


def test_an_empty_relabel_queue_has_its_columns() -> None:
    labels = pd.DataFrame({"record_id": [], "human_score": [], "n_annotators": [], "n_accepts": []})
    none = pd.DataFrame({"record_id": [], "attribution": [], "attribution_reason": []})

    queue = build_relabel_queue(labels.astype({"record_id": "string[pyarrow]"}), _records(), none)

    assert len(queue) == 0


def test_gaps_become_one_question_per_pattern() -> None:
    misalignments = pd.DataFrame(
        {
            "record_id": ["r1", "r2", "r3", "r4"],
            "human_score": [1, 0, 0, 1],
            "pattern_name": ["tone", "tone", None, "tone"],
            "attribution": ["criteria_gap", "criteria_gap", "criteria_gap", "judge_error"],
        }
    )

    loose, tone = ask_owner(misalignments)

    assert tone.record_ids == ("r1", "r2")
    assert tone.text.startswith("The criteria leave 2 records about 'tone' open: people accept 1 and reject 1")
    assert (loose.pattern_name, loose.record_ids) == (None, ("r3",))


def test_neighbours_are_asked_only_where_a_stable_judge_could_contradict_a_lone_label() -> None:
    lone = rows_of({"vote_share": 1.0})

    assert needs_vectors(lone)
    assert not needs_vectors(lone.assign(n_annotators=2))
    assert not needs_vectors(rows_of({}))


def test_a_lone_label_against_near_neighbours_is_doubted_in_the_list_of_misalignments() -> None:
    n = 7
    scored = rows_of(*[{"human_score": 1, "llm_score": 1, "vote_share": 1.0} for _ in range(n)])
    scored.loc[0, "human_score"] = 0
    texts = dict.fromkeys(("human_notes", "llm_reasoning", "confidence", "severity"))
    scored = scored.assign(split="train", is_example=False, **texts)
    vectors = _unit(*(i / 100 for i in range(n)))

    found = find_misalignments(scored, _records(*scored["record_id"]), empty_frame("patterns"), vectors)

    assert found["record_id"].tolist() == ["r0"]
    assert found["attribution"].tolist() == ["label_doubt"]

    # what proposals are written from must not depend on the labels of dev and test
    elsewhere = scored.assign(split=["train", *["test"] * (n - 1)])
    found = find_misalignments(elsewhere, _records(*scored["record_id"]), empty_frame("patterns"), vectors)
    assert found["attribution"].tolist() == ["judge_error_unverified"]
    # a doubtful record of dev is shown to people, and may be held against all
    outside = scored.assign(split=["dev", *["train"] * (n - 1)])
    found = find_misalignments(outside, _records(*scored["record_id"]), empty_frame("patterns"), vectors)
    assert found["attribution"].tolist() == ["label_doubt"]
