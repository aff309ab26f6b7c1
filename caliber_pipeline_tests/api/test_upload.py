import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.api.upload import MAX_WARNINGS, UploadHandler
from caliber_pipeline.core.errors import InputError

ROWS = [
    {"id": 1, "question": "q1", "answer": "a1", "judgment": 1, "score": 0, "explanation": "no", "topic": "x"},
    {"id": 2, "question": "q2", "answer": "a2", "judgment": None, "score": 1},
]


def check_rows(ids: list[str], scores: list[int | None], llm: list[int | None]) -> None:
    assert ids == ["1", "2"]
    assert scores == [1, None]
    assert llm == [0, 1]


def test_reads_the_same_records_from_every_source(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "r.csv", index=False)
    frame.to_parquet(tmp_path / "r.parquet")
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    handler = UploadHandler()

    results = [
        handler.from_csv(tmp_path / "r.csv"),
        handler.from_parquet(str(tmp_path / "r.parquet")),
        handler.from_jsonl(tmp_path / "r.jsonl"),
        handler.from_dataframe(frame),
        handler.from_records(ROWS),
    ]

    for result in results:
        records = result.records
        check_rows([r.record_id for r in records], [r.human_score for r in records], [r.llm_score for r in records])
        assert records[0].metadata["topic"] == "x"
        assert records[0].llm_reasoning == "no"
        assert (result.total_count, result.has_llm_scores, result.validation_warnings) == (2, True, [])
        assert [(a.record_id, a.score, a.annotator) for a in result.annotations] == [("1", 1, "gold")]


def test_says_why_rows_were_rejected() -> None:
    result = UploadHandler().from_records(
        [
            {"query": "q", "output": ""},
            {"query": "q", "output": "a", "judgment": "maybe"},
            {"query": "q", "output": "a"},
        ]
    )

    assert result.total_count == 1
    assert [row.line for row in result.rejected] == [1, 2]
    assert result.validation_warnings == [
        "records: line 1: output is blank",
        "records: line 2: judgment 'maybe' is not 0/1, accept/reject, pass/fail, true/false or yes/no",
    ]
    assert result.rejected[1].raw == "q,a,maybe"
    assert not result.has_llm_scores


def test_strict_mode_raises_on_the_first_fault() -> None:
    with pytest.raises(InputError, match="records: line 2: query is blank"):
        UploadHandler(strict_validation=True).from_records([{"query": "q", "output": "a"}, {"query": "", "output": ""}])


def test_lists_no_more_warnings_than_a_person_reads() -> None:
    rows = [{"query": "", "output": f"a{i}"} for i in range(MAX_WARNINGS + 5)]

    result = UploadHandler().from_records([*rows, {"query": "q", "output": "a"}])

    assert len(result.rejected) == MAX_WARNINGS + 5
    assert len(result.validation_warnings) == MAX_WARNINGS + 1
    assert result.validation_warnings[-1] == "records: 5 more rows rejected"


def test_half_of_a_surrogate_pair_rejects_its_row_alone() -> None:
    rows = [{"query": "q", "output": "a"}, {"query": "q", "output": "b\ud83d"}, {"query": "", "output": "c"}]

    result = UploadHandler().from_records(rows)

    assert [record.output for record in result.records] == ["a"]
    assert [(row.line, row.reason) for row in result.rejected] == [
        (2, "output is no Unicode text: it holds half of a surrogate pair"),
        (3, "query is blank"),
    ]
    assert result.rejected[0].raw == "q,b\\ud83d"
    with pytest.raises(InputError, match="line 2: output is no Unicode text"):
        UploadHandler(strict_validation=True).from_dataframe(pd.DataFrame(rows[:2], dtype=object))


def test_warns_of_columns_that_are_no_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"query": ["q"], "output": ["a"], "picture": [b"\xff\xd8"]})
    frame.to_parquet(tmp_path / "r.parquet")

    result = UploadHandler().from_parquet(tmp_path / "r.parquet")

    assert result.left_out == ("picture",)
    assert result.validation_warnings == ["r.parquet: column 'picture' left out: its bytes are no UTF-8 text"]


@pytest.mark.parametrize(
    "mapping", [{"query": "frage", "actual_output": "antwort"}, {"frage": "query", "antwort": "output"}]
)
def test_a_mapping_may_be_given_either_way_round(mapping: dict[str, str]) -> None:
    result = UploadHandler().from_records([{"frage": "q", "antwort": "a"}], column_mapping=mapping)

    assert (result.records[0].query, result.records[0].output) == ("q", "a")


def test_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    handler = UploadHandler()
    with pytest.raises(InputError, match=r"maps none of record_id, .* to one of the columns a, b"):
        handler.from_records([{"a": "q", "b": "a"}], column_mapping={"query": "frage"})
    with pytest.raises(
        InputError, match=r"for output among query; name it with column_mapping=\{'output': 'COLUMN'\}$"
    ):
        handler.from_records([{"query": "q"}])
    with pytest.raises(InputError, match="records: got str among the records; give a list of dicts"):
        handler.from_records(["query"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="there are no rows"):
        handler.from_records([])
    with pytest.raises(InputError, match=r"expected a file that ends in \.csv"):
        handler.from_csv(tmp_path / "r.parquet")
    with pytest.raises(InputError, match="no such file"):
        handler.from_csv(tmp_path / "r.csv")
    with pytest.raises(InputError, match=r"1 column names repeat, e.g. \['query'\]"):
        handler.from_dataframe(pd.DataFrame([["q", "q", "a"]], columns=["query", "query", "output"]))


def test_takes_values_of_any_type() -> None:
    frame = pd.DataFrame(
        {
            "id": [1.0, 2.0],
            "query": [{"text": "q"}, ["a", "b"]],
            "output": ["a", 5],
            "judgment": [True, float("nan")],
            "when": [pd.Timestamp("2026-01-31"), pd.NaT],
        }
    )

    first, second = UploadHandler().from_dataframe(frame).records

    assert (first.record_id, first.query, first.human_score) == ("1", '{"text": "q"}', 1)
    assert (second.query, second.output, second.human_score) == ('["a", "b"]', "5", None)
    assert first.metadata == {"when": "2026-01-31 00:00:00"}


texts = st.text(max_size=4)


@settings(max_examples=50)
@given(st.lists(st.fixed_dictionaries({"id": texts, "query": texts, "output": texts, "judgment": texts}), min_size=1))
def test_accounts_for_every_row(rows: list[dict[str, str]]) -> None:
    result = UploadHandler().from_records(rows)

    assert result.total_count + len(result.rejected) == len(rows)
    assert len({record.record_id for record in result.records}) == result.total_count
    assert all(row.reason for row in result.rejected)
