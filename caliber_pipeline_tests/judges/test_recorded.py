"""The recorded judge repeats the file, and a missing verdict is a failure."""

import pandas as pd
import pytest

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import JudgeError
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline_tests.judges.scripted import make_records

CRITERIA = Criteria(criteria="x")


def test_verdicts_are_repeated_and_a_missing_one_has_failed() -> None:
    records = make_records({"a": "x", "b": "y", "c": "z"})
    records["llm_score"] = pd.Series([1, 0, None], dtype="int8[pyarrow]")
    records["llm_reasoning"] = ["fine", None, None]
    verdicts = run_judge(RecordedJudge(), JudgeTask(records, CRITERIA, make_records({})))
    assert verdicts["status"].tolist() == ["scored", "scored", "failed"]
    assert verdicts["llm_score"].tolist()[:2] == [1, 0]
    assert verdicts["failure_reason"].tolist()[2] == "the records file has no verdict here"
    assert verdicts["n_attempts"].tolist() == [0, 0, 0]


def test_a_file_without_any_verdict_is_one_error() -> None:
    task = JudgeTask(make_records({"a": "x"}), CRITERIA, make_records({}))
    with pytest.raises(JudgeError, match="needs a column llm_score"):
        run_judge(RecordedJudge(), task)


def test_a_shard_may_have_no_verdict_at_all() -> None:
    task = JudgeTask(make_records({"a": "x"}), CRITERIA, make_records({}))
    assert run_judge(RecordedJudge(sees_all=False), task)["status"].tolist() == ["failed"]


def test_its_verdicts_depend_on_no_criteria() -> None:
    judge = RecordedJudge()
    assert judge.identity(CRITERIA) == judge.identity(Criteria(criteria="other"))
    assert not judge.is_cacheable
