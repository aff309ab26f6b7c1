import asyncio
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.api.hq import BaseMetric, CaliberHQ, CaliberMetric, Dataset, DatasetItem, WebCaliberHQ
from caliber_pipeline.core.errors import InputError, MissingStepError
from caliber_pipeline.renderers.console import ConsoleCaliberRenderer
from caliber_pipeline_tests.judges.scripted import ScriptedJudge, verdict


class Recorded(BaseMetric):
    instruction = "Score 1 if the answer is right"
    llm_provider = "recorded"


ITEMS = (
    DatasetItem("a", "2 + 2?", "4", "4", judgment=1, llm_score=1, llm_reasoning="right"),
    DatasetItem("b", "2 + 3?", "6", "5", judgment=0, llm_score=1, llm_reasoning="looks right"),
    DatasetItem("c", "1 + 1?", "2", judgment=1, llm_score=0),
    DatasetItem("d", "1 + 0?", "1", judgment=1),
)


def quiet() -> ConsoleCaliberRenderer:
    return ConsoleCaliberRenderer(file=io.StringIO(), width=100)


def test_execute_gives_one_row_per_item() -> None:
    hq = CaliberHQ(Dataset(ITEMS), Recorded, quiet())

    frame = hq.execute()

    assert list(frame.columns) == [
        "id", "aligned", "human_score", "llm_score", "score_difference", "query", "actual_output", "expected_output",
        "llm_explanation",
    ]  # fmt: skip
    assert list(frame["id"]) == ["a", "b", "c", "d"]
    assert list(frame["aligned"][:3]) == [True, False, False]
    assert list(frame["score_difference"][:3]) == [0, 1, -1]
    assert frame["llm_score"].isna().tolist() == [False, False, False, True]
    assert frame["llm_explanation"][3] == "the records file has no verdict here"
    assert hq.result is not None
    assert hq.result.metrics.accuracy == 1 / 3


def test_shows_the_agreement_through_the_renderer() -> None:
    file = io.StringIO()

    CaliberHQ(Dataset(ITEMS), Recorded(), ConsoleCaliberRenderer(file=file, width=100)).execute()

    assert "Confusion matrix" in file.getvalue()


def test_names_the_items_without_a_judgment() -> None:
    items = [DatasetItem(f"i{n}", "q", f"a{n}") for n in range(7)]

    with pytest.raises(MissingStepError, match=r"2 items have no judgment: \['i0', 'i1'\]; annotate"):
        CaliberHQ(Dataset([*items[:2], *ITEMS]), Recorded).execute()
    with pytest.raises(MissingStepError, match=r"7 items have no judgment, e\.g\. \['i0', .*'i4'\]; annotate"):
        WebCaliberHQ(Dataset(items), Recorded).execute()


def test_annotates_through_the_renderer() -> None:
    items = [DatasetItem("x", "q", "a", llm_score=1), DatasetItem("y", "q", "b", llm_score=1)]
    renderer = ConsoleCaliberRenderer(file=io.StringIO(), stdin=io.StringIO("a\nr too short\n"))
    hq = CaliberHQ(Dataset(items), Recorded, renderer)

    hq.annotate()

    assert [(item.judgment, item.notes) for item in hq.dataset.items] == [(1, None), (0, "too short")]
    assert items[1].judgment is None
    assert list(hq.execute()["aligned"]) == [True, False]


def test_web_results_are_json() -> None:
    seen: list[tuple[int, int]] = []
    hq = WebCaliberHQ(Dataset(ITEMS), Recorded)

    answer = hq.execute(as_dict=True, on_progress=lambda done, total: seen.append((done, total)))

    assert json.loads(json.dumps(answer)) == answer
    assert answer["results"][1]["aligned"] is False
    assert answer["metrics"]["false_positives"] == 1
    assert answer["confusion_matrix"] == {"LLM=0": {"Human=0": 0, "Human=1": 1}, "LLM=1": {"Human=0": 1, "Human=1": 1}}
    assert answer["failed"] == [
        {"record_id": "d", "status": "failed", "reason": "the records file has no verdict here"}
    ]
    assert seen == [(4, 4)]
    assert len(hq.execute(as_dict=False)) == 4
    assert asyncio.run(hq.execute_async()) == answer


def test_web_takes_records_as_they_come() -> None:
    records: list[dict[str, Any]] = [
        {"record_id": 1, "input": "q", "response": "a", "human_score": "accept", "score": 1, "explanation": "fine"}
    ]

    hq = WebCaliberHQ.from_records(records, CaliberMetric("be right", llm_provider="recorded"))

    assert hq.execute()["results"][0]["llm_explanation"] == "fine"
    with pytest.raises(InputError, match="item '2' has no query and no output"):
        WebCaliberHQ.from_records([{"id": 2}], Recorded)


def test_a_dataset_makes_items_of_dicts() -> None:
    dataset = Dataset([{"id": "a", "question": "2 + 2?", "answer": 4, "judgment": "yes"}])  # type: ignore[list-item]

    assert dataset == Dataset([DatasetItem("a", "2 + 2?", "4", judgment=1)])


def test_web_results_of_a_frame_are_json() -> None:
    frame = pd.DataFrame({"id": [1, 2], "good": [None, "2"], "score": [1.0, 0.0], "note": [np.nan, "no"]})
    items = [
        DatasetItem(id_, "1 + 1?", "2", good, score, note, llm_score=1)
        for id_, good, score, note in zip(frame["id"], frame["good"], frame["score"], frame["note"], strict=True)
    ]

    answer = WebCaliberHQ(Dataset(items), Recorded).execute()

    assert json.loads(json.dumps(answer)) == answer
    assert [(row["id"], row["expected_output"], row["human_score"]) for row in answer["results"]] == [
        (1, None, 1),
        (2, "2", 0),
    ]


def test_metric_shows_its_examples() -> None:
    judge = ScriptedJudge({"a": [verdict("a", llm_score=0)]})
    metric = CaliberMetric("be right", examples=[{"input": "2 + 2? 5", "output": "0"}], judge=judge)
    hq = CaliberHQ(Dataset(ITEMS), metric, quiet())

    hq.execute()

    assert hq.result is not None
    assert hq.result.criteria.criteria == "be right\n\nExample input:\n2 + 2? 5\nExample output:\n0"


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match=r"1 record ids repeat, e\.g\. \['a'\]"):
        Dataset([ITEMS[0], ITEMS[0]])
    with pytest.raises(InputError, match="judgment of item 'a' is 3"):
        DatasetItem("a", "q", "o", judgment=3)
    with pytest.raises(InputError, match="BaseMetric has no instruction"):
        CaliberHQ(Dataset(ITEMS), BaseMetric())
    with pytest.raises(InputError, match="CaliberMetric has no instruction"):
        CaliberHQ(Dataset(ITEMS), CaliberMetric(None))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="record 'a' has no query and no output"):
        CaliberHQ(Dataset([DatasetItem("a", " ", "")]), Recorded)
    assert len(Dataset(ITEMS)) == 4
