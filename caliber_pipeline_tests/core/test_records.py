"""Rows become records or rejections with a reason; ids, groups and splits are stable."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.records import ParsedRows, metadata_columns, parse_records
from caliber_pipeline.core.splits import default_groups, normalise, splits_of_hashes


def parse(rows: Sequence[Mapping[str, str | None]], **options: object) -> ParsedRows:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    lines = pa.array(range(2, 2 + len(rows)), pa.int64())
    return parse_records(table, lines, source="f.csv", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        {"record_id": "id", "query": "input", "output": "response", "reference": "ground_truth"},
        {"record_id": "item_id", "query": "question", "output": "answer", "reference": "expected"},
        {"record_id": "Record_ID", "query": "PROMPT", "output": "Actual_Output", "reference": "expected_output"},
    ],
)
def test_the_names_that_people_use_are_understood(names: dict[str, str]) -> None:
    row = {"record_id": "1", "query": "q", "output": "o", "reference": "r"}
    parsed = parse([{theirs: row[ours] for ours, theirs in names.items()}])
    assert parsed.table[list(row)].to_dict("records") == [row]


def test_recorded_verdicts_are_found_under_their_names() -> None:
    parsed = parse(
        [{"input": "q", "output": "o", "score": "pass", "explanation": "why", "judgment": "no", "notes": "n"}]
    )
    row = parsed.table.iloc[0]
    assert (row["llm_score"], row["llm_reasoning"], row["human_score"], row["human_notes"]) == (1, "why", 0, "n")


def test_a_mapping_wins_over_the_names_and_its_column_is_not_used_twice() -> None:
    row = {"question": "q", "answer": "draft", "final": "o", "id": "1"}
    parsed = parse([row], mapping={"output": "final"})
    assert parsed.table["output"].tolist() == ["o"]
    assert dict(parsed.table["metadata"].iloc[0]) == {"answer": "draft"}


def test_unknown_columns_are_kept_as_metadata() -> None:
    parsed = parse([{"query": "q", "output": "o", "model": "m1", "n": None}, {"query": "p", "output": "o", "n": "2"}])
    assert [dict(m) for m in parsed.table["metadata"]] == [{"model": "m1", "n": None}, {"model": None, "n": "2"}]
    assert metadata_columns(parsed.table, ["n"])["n"].tolist() == [pd.NA, "2"]
    with pytest.raises(
        InputError, match=r"no record has the metadata column \['x'\]; the columns are \['model', 'n'\]"
    ):
        metadata_columns(parsed.table, ["n", "x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no column for output among query, id; name it with --column output=COLUMN"),
        ({"mapping": {"output": "nope"}}, "has no column 'nope' for 'output'; it has query, id"),
        (
            {"mapping": {"query": "id", "output": "id"}},
            "column 'id' is mapped to both 'query' and 'output'; give each a column of its own",
        ),
        ({"mapping": {"answer": "id"}}, "unknown column name 'answer'; map one of record_id, query"),
        ({"mapping": {"output": "id"}, "group_by": "book"}, "no column 'book' to group by; it has query, id"),
    ],
)
def test_columns_that_are_not_there_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse([{"query": "q", "id": "1"}], **options)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *[(t, 1) for t in ("1", "1.0", "accept", "PASS", " True ", "yes")],
        *[(t, 0) for t in ("0", "0.0", "Reject", "fail", "FALSE", "no")],
        ("", None),
        (" ", None),
    ],
)
def test_scores_in_their_known_forms(text: str, score: int | None) -> None:
    value = parse([{"query": "q", "output": "o", "human_score": text}]).table["human_score"].iloc[0]
    assert value == score if score is not None else pd.isna(value)


@pytest.mark.parametrize("text", ["maybe", "2", "0.5", "-1", "nan", "11", "ja"])
def test_any_other_score_is_a_rejected_row_and_never_a_guess(text: str) -> None:
    parsed = parse([{"query": "q", "output": "o", "rater1_score": text}])
    assert parsed.table.empty
    expected = "0/1, accept/reject, pass/fail, true/false or yes/no"
    assert parsed.reasons.to_pylist() == [f"rater1_score '{text}' is not {expected}"]


def test_a_row_tells_all_that_is_wrong_with_it() -> None:
    parsed = parse([{"query": " ", "output": None, "score": "5", "id": "1"}])
    assert parsed.reasons.to_pylist() == [
        "query is blank; output is blank; score '5' is not 0/1, accept/reject, pass/fail, true/false or yes/no"
    ]


@pytest.mark.parametrize("bad", [{0}, {0, 1, 500, 999}, {998, 999}, set(range(0, 1000, 50)), set(range(1000))])
def test_the_others_stay_as_they_are_however_many_are_rejected(bad: set[int]) -> None:
    rows = [
        {"id": str(i), "query": f"q{i}", "output": " " if i in bad else f"o{i}", "model": f"m{i}"} for i in range(1000)
    ]
    parsed = parse(rows)
    kept = [row for i, row in enumerate(rows) if i not in bad]
    alone = parse(kept).table if kept else parse(rows).table
    assert parsed.table["record_id"].tolist() == [row["id"] for row in kept]
    assert parsed.table["output"].tolist() == [row["output"] for row in kept]
    pd.testing.assert_frame_equal(parsed.table.drop(columns="line"), alone.drop(columns="line"))
    assert parsed.table["line"].tolist() == [int(str(row["id"])) + 2 for row in kept]


def test_the_first_of_equal_ids_stays_and_the_others_are_rejected_with_its_line() -> None:
    parsed = parse(
        [{"id": i, "query": q, "output": "o"} for i, q in [("7", "a"), ("8", "b"), ("7", "c"), (" 7 ", "d")]]
    )
    assert parsed.table["record_id"].tolist() == ["7", "8"]
    assert parsed.reasons.to_pylist() == ["record_id '7' repeats that of line 2"] * 2


def test_a_rejected_row_does_not_take_an_id() -> None:
    parsed = parse([{"id": "7", "query": "", "output": "o"}, {"id": "7", "query": "q", "output": "o"}])
    assert parsed.table["query"].tolist() == ["q"]


def test_missing_ids_come_from_the_content_and_do_not_depend_on_the_place() -> None:
    one = parse([{"query": "q", "output": "o"}, {"query": "p", "output": "o"}]).table.set_index("query")["record_id"]
    two = parse([{"query": "p", "output": "o"}, {"query": "q", "output": "o"}]).table.set_index("query")["record_id"]
    assert one.to_dict() == two.to_dict()
    assert one["q"].startswith("r-")
    again = parse([{"query": "q", "output": "o"}, {"query": "q", "output": "o"}])
    assert again.reasons.to_pylist() == ["same query and output as line 2"]


def test_ratings_of_several_annotators_are_listed_per_record() -> None:
    parsed = parse(
        [
            {"query": "a", "output": "o", "rater1_score": "1", "rater2_score": "0", "rater2_notes": "no"},
            {"query": "b", "output": "o", "rater1_score": None, "rater2_score": ""},
            {"query": "c", "output": "o", "rater1_score": None, "rater2_score": "yes", "rater2_notes": None},
            {"query": "d", "output": "o", "rater1_score": None, "rater2_score": "", "rater2_notes": "cannot tell"},
            {"query": "e", "output": "o", "rater1_score": None, "rater2_score": "", "rater2_notes": " "},
        ]
    )
    assert [list(r) for r in parsed.table["ratings"]] == [
        [{"annotator": "rater1", "score": 1, "notes": None}, {"annotator": "rater2", "score": 0, "notes": "no"}],
        [],
        [{"annotator": "rater2", "score": 1, "notes": None}],
        [{"annotator": "rater2", "score": None, "notes": "cannot tell"}],
        [],
    ]


def test_records_of_a_named_group_share_a_split_and_one_without_stands_alone() -> None:
    rows = [{"id": str(i), "query": f"q{i}", "output": "o", "book": f"b{i % 7}" if i else None} for i in range(70)]
    table = parse(rows, group_by="book").table
    assert table.groupby("group")["split"].nunique().max() == 1
    assert table.loc[table["record_id"] == "0", "group"].tolist() == ["record 0"]
    assert table["group"].nunique() == 8


def test_near_duplicate_queries_share_a_group_and_few_queries_are_told_apart_by_output() -> None:
    many = pd.Series([f"query {i}" for i in range(19)] + ["Where is  it", " where IS it"])
    assert default_groups(many, pd.Series(["x"] * 21)).nunique() == 20
    few = pd.Series(["same"] * 4)
    assert default_groups(few, pd.Series(["a", "b", "c", "a"])).nunique() == 3


def split_groups(groups: list[str]) -> list[str]:
    return [str(split) for split in splits_of_hashes(hash_texts(pd.Series(groups))).to_pylist()]


@given(st.lists(st.text(" \t\n\r\f\x0b aA\u00e9\u00a0\u2003", max_size=6), max_size=9), st.integers(0, 3))
def test_texts_that_differ_in_case_and_white_space_alone_are_one_key(texts: list[str], n_left_out: int) -> None:
    keys = normalise(pa.array(texts, pa.string())[n_left_out:])

    assert keys.to_pylist() == [re.sub(r"[ \t\n\f\r]+", " ", text.lower()).strip() for text in texts[n_left_out:]]


def test_a_split_does_not_change_when_records_are_added() -> None:
    groups = [f"g{i}" for i in range(2000)]
    split = split_groups(groups)
    assert split_groups(groups[::-1])[::-1] == split
    shares = pd.Series(split).value_counts(normalize=True)
    # 2,000 draws: three standard errors of a share of 0.4 are 0.033
    assert shares["train"] == pytest.approx(0.4, abs=0.033)
    assert shares["dev"] == pytest.approx(0.4, abs=0.033)
    # The hash is part of the data: another one would move records between train, dev and test.
    assert split_groups(["a", "b", "c", "d", "e"]) == ["dev", "dev", "test", "dev", "dev"]


cells = st.one_of(st.none(), st.sampled_from(["", " ", "1", "0", "x", "accept", "a\nb"]))


@given(
    st.lists(
        st.fixed_dictionaries(dict.fromkeys(("id", "query", "output", "human_score", "rater1_score", "m"), cells)),
        min_size=1,
        max_size=12,
    )
)
def test_every_row_is_a_record_or_a_rejection(rows: list[dict[str, str | None]]) -> None:
    parsed = parse(rows)
    assert len(parsed.table) + len(parsed.reasons) == len(rows)
    assert parsed.table["record_id"].is_unique
    kept = [line for line, bad in enumerate(parsed.is_rejected.to_pylist(), start=2) if not bad]
    assert parsed.table["line"].tolist() == kept
    assert all(parsed.reasons.to_pylist())
