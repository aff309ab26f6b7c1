"""`CalibratedJudge.score` on what callers hold: the same records as `caliber score` makes of it, no row lost."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.api import given_records
from caliber_pipeline.api.calibrated_judge import RESULT_COLUMNS, CalibratedJudge
from caliber_pipeline.api.upload import UploadHandler
from caliber_pipeline.core.abstention import Abstention
from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline_tests.core.test_calibrated_judge import document
from caliber_pipeline_tests.judges.scripted import ScriptedJudge

pytestmark = pytest.mark.filterwarnings("ignore:the certificate does not hold")
GOOD = {"id": "A", "query": "q", "output": "fine", "expected_output": "REFTEXT"}


class Noting(ScriptedJudge):
    """Accepts everything, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[pd.DataFrame] = []

    def judge(self, task: JudgeTask) -> Any:  # noqa: ANN401 - as of the base
        self.shown.append(task.records)
        return super().judge(task)


def load(judge: Judge) -> CalibratedJudge:
    nothing_learnt = Abstention(None, 0.0, 0, 0, 0, None, "no calibration records")
    return CalibratedJudge(document(abstention=asdict(nothing_learnt)), judge=judge)


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture
def judge(noting: Noting) -> CalibratedJudge:
    return load(noting)


def test_a_blank_output_is_a_row_with_its_reason_and_no_score(judge: CalibratedJudge, noting: Noting) -> None:
    blank = [{**GOOD, "id": "B", "output": " "}, {**GOOD, "id": "C", "output": None}, {**GOOD, "id": None, "query": ""}]
    rows = [blank[0], GOOD, *blank[1:]]
    found = judge.score(rows)
    assert list(found.columns) == list(RESULT_COLUMNS)
    assert found["record_id"].astype(object).where(found["record_id"].notna(), None).tolist() == ["B", "A", "C", None]
    assert found["status"].tolist() == ["no_record", "scored", "no_record", "no_record"]
    reasons = found["failure_reason"]
    assert reasons.dropna().tolist() == ["output is blank", "output is blank", "query is blank"]
    assert found["llm_score"].notna().tolist() == [False, True, False, False]
    assert found.loc[[0, 2, 3], "is_abstained"].all()
    assert noting.asked == ["A"]


@dataclass
class Held:
    item_id: int
    question: str
    answer: str
    ground_truth: str | None = None


@pytest.mark.parametrize(
    "records",
    [
        [{"item_id": 7, "question": "q", "answer": "fine", "ground_truth": "REFTEXT", "topic": "x"}],
        pd.DataFrame([{"Id": 7.0, "Prompt": "q", "Response": "fine", "expected": "REFTEXT"}], index=[3]),
        [Held(7, "q", "fine", "REFTEXT")],
        [SimpleNamespace(id="7", input="q", actual_output="fine", reference="REFTEXT")],
        UploadHandler().from_records([{"id": 7, "query": "q", "output": "fine", "expected": "REFTEXT"}]).records,
        ({"id": "7", "query": "q", "output": "fine", "reference": "REFTEXT"} for _ in range(1)),
    ],
    ids=["dicts", "frame", "objects", "namespaces", "uploaded records", "generator"],
)
def test_columns_are_found_by_all_their_names(judge: CalibratedJudge, noting: Noting, records: Any) -> None:  # noqa: ANN401
    assert judge.score(records)["record_id"].tolist() == ["7"]
    (shown,) = noting.shown
    assert shown[["query", "output", "reference"]].iloc[0].tolist() == ["q", "fine", "REFTEXT"]


def test_a_column_of_another_name_is_mapped(judge: CalibratedJudge) -> None:
    rows = [{"id": "A", "guest": "q", "output": "fine"}]
    with pytest.raises(InputError, match=r"no column for query among .*column_mapping=\{'query': 'COLUMN'\}"):
        judge.score(rows)
    assert judge.score(rows, column_mapping={"query": "guest"})["status"].tolist() == ["scored"]


def test_recorded_verdicts_are_read_under_any_of_their_names_and_forms() -> None:
    judge = load(RecordedJudge())
    rows = [
        {"id": n, "query": "q", "output": f"o{n}", "score": s} for n, s in enumerate(["accept", 0, 1.0, "maybe", None])
    ]
    found = judge.score(rows)
    assert found["llm_score"].astype("Float64").fillna(-1).tolist() == [1, 0, 1, -1, -1]
    assert found["status"].tolist() == ["scored", "scored", "scored", "no_record", "failed"]
    assert "maybe" in found["failure_reason"].iloc[3]


def test_equal_texts_under_ids_of_their_own_are_records_of_their_own(judge: CalibratedJudge) -> None:
    rows = [{"id": "1", "query": "q", "output": "x"}, {"id": "2", "query": "q", "output": "x"}]
    assert judge.score([*rows, {**rows[0], "id": None}])["status"].tolist() == ["scored"] * 3
    found = judge.score([*rows, {**rows[0], "output": "another"}])
    assert found["record_id"].tolist() == ["1", "2", "1"]
    assert found["failure_reason"].iloc[2] == "record_id '1' repeats that of line 1"


def test_nothing_given_is_nothing_scored(judge: CalibratedJudge) -> None:
    assert len(judge.score([])) == 0
    assert list(judge.score(pd.DataFrame({"query": [], "output": []})).columns) == list(RESULT_COLUMNS)
    with pytest.raises(InputError, match="no column for output"):
        judge.score(pd.DataFrame({"query": []}))
    assert judge.score([{**GOOD, "output": ""}])["status"].tolist() == ["no_record"]


@pytest.mark.parametrize("records", [["q"], "q", None, [None], {"query": "q", "output": "o"}])
def test_what_holds_no_records_is_refused(judge: CalibratedJudge, records: Any) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match="give a list"):
        judge.score(records)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.sampled_from([None, "a", "b", 3]), "output": st.sampled_from([None, "", "x", "y", "\ud800"])},
            optional={"score": st.sampled_from([0, 1, "no", "what"]), "query": st.just("q")},
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_row_comes_out_in_its_place(rows: list[dict[str, Any]]) -> None:
    rows = [{**row, "query": row.get("query")} for row in rows]
    found = load(ScriptedJudge()).score(rows)
    assert len(found) == len(rows)
    is_scored = (found["status"] == "scored").to_numpy(dtype=bool)
    assert (found["llm_score"].notna().to_numpy() == is_scored).all()
    assert (found["failure_reason"].isna().to_numpy() == is_scored).all()
    for row, record_id in zip(rows, found["record_id"], strict=True):
        if row["id"] is not None:
            assert record_id == str(row["id"])


def test_records_as_ingest_makes_them_are_not_parsed_again(
    judge: CalibratedJudge, noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = UploadHandler().from_records([GOOD]).table
    monkeypatch.setattr(given_records, "UploadHandler", None)
    assert judge.score(table)["status"].tolist() == ["scored"]
    assert noting.shown[0]["reference"].tolist() == ["REFTEXT"]


@pytest.mark.parametrize(
    ("column", "values"), [("output", ["", "x"]), ("query", [None, "x"]), ("record_id", ["a", "a"])]
)
def test_a_frame_of_the_right_types_that_was_not_ingested_is_parsed(
    judge: CalibratedJudge, column: str, values: list[str | None]
) -> None:
    texts = {name: pa.array(["a", "b"]) for name in ("record_id", "query", "output", "reference", "llm_reasoning")}
    frame = frame_from_arrow(pa.table({**texts, column: pa.array(values), "llm_score": pa.nulls(2, pa.int8())}))
    assert sorted(judge.score(frame)["status"]) == ["no_record", "scored"]
    assert np.array_equal(judge.score(frame).index, [0, 1])
