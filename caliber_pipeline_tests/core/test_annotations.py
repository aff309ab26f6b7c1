"""People's verdicts: read, rejected with a reason, and brought to one label per record."""

from collections.abc import Mapping, Sequence
from random import Random

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core.annotations import (
    annotations_from_records,
    combine_annotations,
    fingerprint_annotations,
    parse_annotations,
)
from caliber_pipeline.core.labels import resolve_labels, select_notes
from caliber_pipeline.core.records import ParsedRows
from caliber_pipeline_tests.core.test_records import parse as parse_record_rows

Row = Mapping[str, str | None]


def parse(rows: Sequence[Row], known: tuple[str, ...] = ("r1", "r2", "r3")) -> ParsedRows:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    lines = pa.array(range(2, 2 + len(rows)), pa.int64())
    return parse_annotations(table, lines, pd.Series(known), source="a.csv")


def labels_of(rows: Sequence[Row]) -> dict[str, object]:
    labels = resolve_labels(parse(rows).table)
    return {r: None if pd.isna(s) else s for r, s in zip(labels["record_id"], labels["human_score"], strict=True)}


def test_all_columns_are_typed() -> None:
    row = parse(
        [
            {
                "item_id": " r1 ",
                "judgment": "Reject",
                "note": "no",
                "rater": "ann",
                "severity": "2.5",
                "created_at": "2026-01-31T12:00:00+02:00",
                "criteria_version": "v001",
                "inclusion_probability": "0.25",
            }
        ]
    ).table.iloc[0]
    assert row["record_id"] == "r1"
    assert row["score"] == 0
    assert row["created_at"] == pd.Timestamp("2026-01-31T10:00:00Z")
    assert (row["severity"], row["inclusion_probability"], row["annotator"], row["is_gold"]) == (
        2.5,
        0.25,
        "ann",
        False,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"record_id": "zz"}, "record_id 'zz' is not among the records"),
        ({"record_id": None}, "record_id is blank"),
        ({"score": ""}, "score is blank: not annotated yet"),
        ({"score": "good"}, "score 'good' is not 0/1, accept/reject, pass/fail, true/false or yes/no"),
        ({"created_at": "yesterday"}, "created_at 'yesterday' is not a date and time like 2026-01-31T12:00:00Z"),
        ({"severity": "0"}, "severity '0' is not a number over 0"),
        ({"inclusion_probability": "1.5"}, "inclusion_probability '1.5' is not a number over 0 and at most 1"),
    ],
)
def test_a_row_that_is_no_annotation_is_rejected_with_its_value(change: Row, reason: str) -> None:
    parsed = parse([{"record_id": "r1", "score": "1", "severity": "1", **change}])
    assert parsed.table.empty
    assert parsed.reasons.to_pylist() == [reason]


def test_a_verdict_given_twice_needs_two_times() -> None:
    twice = parse([{"record_id": "r1", "score": s, "annotator": "ann"} for s in "10"])
    assert twice.table["score"].tolist() == [1]
    (reason,) = twice.reasons.to_pylist()
    assert reason == "annotator 'ann' judged 'r1' before, on line 2; give each verdict its own created_at"
    (unnamed,) = parse([{"record_id": "r1", "score": s} for s in "10"]).reasons.to_pylist()
    assert unnamed.startswith("somebody judged 'r1' before, on line 2; name the annotators' column, or give each")
    times = ["2026-01-01", "2026-01-02"]
    retest = [
        {"record_id": "r1", "score": s, "annotator": "ann", "created_at": t} for s, t in zip("10", times, strict=True)
    ]
    assert len(parse(retest).table) == 2
    assert labels_of(retest) == {"r1": 0}  # the latest verdict counts
    assert labels_of(retest[::-1]) == {"r1": 0}


def test_the_majority_decides_and_a_tie_is_no_label() -> None:
    rows: list[Row] = [
        {"record_id": r, "score": s, "annotator": a}
        for r, scores in {"r1": "110", "r2": "10", "r3": "0"}.items()
        for a, s in zip("abc", scores, strict=False)
    ]
    assert labels_of(rows) == {"r1": 1, "r2": None, "r3": 0}


def test_the_gold_label_overrides_the_annotators_and_keeps_them() -> None:
    parsed = parse_record_rows(
        [{"id": "r1", "query": "q", "output": "o", "human_score": "1", "rater1_score": "0", "rater2_score": "0"}]
    )
    annotations = annotations_from_records(parsed.table)
    labels = resolve_labels(annotations)
    assert labels["human_score"].tolist() == [1]
    assert labels["n_annotators"].tolist() == [2]
    assert labels["n_accepts"].tolist() == [0]


def test_a_note_without_a_score_stays_with_the_record_and_is_no_annotation() -> None:
    scores = {"rater1_score": "1", "rater2_score": None, "rater2_notes": "cannot tell"}
    parsed = parse_record_rows([{"id": "r1", "query": "q", "output": "o", **scores}])
    noted = {"annotator": "rater2", "score": None, "notes": "cannot tell"}
    assert [noted in ratings for ratings in parsed.table["ratings"]] == [True]
    assert annotations_from_records(parsed.table)[["annotator", "score"]].to_numpy().tolist() == [["rater1", 1]]


def test_a_consensus_by_skill_settles_ties_for_the_better_annotator_and_leaves_gold_alone() -> None:
    # ann and bob agree on twenty records, of which cleo gets half wrong; on r20 cleo differs from ann alone.
    ids = [f"r{i}" for i in range(22)]
    rows = [
        {"record_id": r, "annotator": a, "score": str(i % 2)} for i, r in enumerate(ids[:20]) for a in ("ann", "bob")
    ]
    rows += [{"record_id": r, "annotator": "cleo", "score": str(i // 2 % 2)} for i, r in enumerate(ids[:20])]
    rows += [
        {"record_id": "r20", "annotator": "ann", "score": "1"},
        {"record_id": "r20", "annotator": "cleo", "score": "0"},
    ]
    rows += [
        {"record_id": "r21", "annotator": "ann", "score": "1"},
        {"record_id": "r21", "annotator": "gold", "score": "0"},
    ]
    annotations = parse(rows, tuple(ids)).table

    majority = resolve_labels(annotations).set_index("record_id")["human_score"]
    annotations.attrs["consensus"] = "dawid_skene"
    by_skill = resolve_labels(annotations).set_index("record_id")["human_score"]

    assert pd.isna(majority["r20"])
    assert (by_skill["r20"], by_skill["r21"]) == (1, 0)
    assert by_skill[ids[:20]].tolist() == majority[ids[:20]].tolist()


def test_the_annotator_gold_of_a_file_overrides_the_others() -> None:
    rows = [{"record_id": "r1", "score": "1", "annotator": name} for name in ("ann", "bob")]
    assert labels_of([*rows, {"record_id": "r1", "score": "0", "annotator": "gold"}]) == {"r1": 0}


def test_notes_are_those_of_the_people_who_agree_with_the_label() -> None:
    rows: list[Row] = [
        {"record_id": "r1", "score": "0", "annotator": "b", "notes": "rude"},
        {"record_id": "r1", "score": "1", "annotator": "c", "notes": "fine"},
        {"record_id": "r1", "score": "0", "annotator": "a", "notes": "cold"},
        {"record_id": "r2", "score": "1", "annotator": "a"},
    ]
    labels = resolve_labels(parse(rows).table)
    assert labels["human_notes"].tolist() == ["cold / rude", pd.NA]
    records = pd.DataFrame({"record_id": ["r1", "r2"], "split": ["dev", "train"]})
    notes = select_notes(labels, records)
    assert notes.to_dict("records") == [
        {"record_id": "r1", "text": "cold / rude", "polarity": "reject", "split": "dev"}
    ]


def test_no_annotations_are_no_labels() -> None:
    assert resolve_labels(parse([{"record_id": "r1", "score": ""}]).table).empty


rows = st.lists(
    st.fixed_dictionaries(
        {
            "record_id": st.sampled_from(["r1", "r2", "zz", ""]),
            "score": st.sampled_from(["1", "0", "", "x"]),
            "annotator": st.sampled_from(["a", "b", None]),
            "created_at": st.sampled_from([None, "2026-01-01", "no"]),
        }
    ),
    min_size=1,
    max_size=12,
)


@given(rows)
def test_every_row_is_an_annotation_or_a_rejection(given_rows: list[Row]) -> None:
    parsed = parse(given_rows)
    assert len(parsed.table) + len(parsed.reasons) == len(given_rows)


@settings(max_examples=30)  # pandas over Arrow takes a tenth of a second for each
@given(rows, st.randoms())
def test_labels_and_fingerprint_do_not_depend_on_the_order(given_rows: list[Row], random: Random) -> None:
    table = parse(given_rows).table
    shuffled = table.iloc[random.sample(range(len(table)), len(table))]
    assert fingerprint_annotations(shuffled) == fingerprint_annotations(table)
    pd.testing.assert_frame_equal(resolve_labels(shuffled), resolve_labels(table))


def test_annotations_of_both_sources_are_sorted_together() -> None:
    parsed = parse_record_rows([{"id": "r2", "query": "q", "output": "o", "human_score": "1"}])
    both = combine_annotations(annotations_from_records(parsed.table), parse([{"record_id": "r1", "score": "0"}]).table)
    assert list(zip(both["record_id"], both["annotator"], strict=True)) == [("r1", "unnamed"), ("r2", "gold")]
