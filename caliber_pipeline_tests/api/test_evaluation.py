import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.api.evaluation import EvaluationRunner
from caliber_pipeline.api.records import Annotation
from caliber_pipeline.api.results import EvaluationConfig, EvaluationResult, compare
from caliber_pipeline.api.upload import UploadHandler
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA
from caliber_pipeline.core.errors import CriteriaError, InputError, JudgeError, MissingStepError
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline_tests.api.clause_judge import make_flawed_rows
from caliber_pipeline_tests.judges.scripted import ScriptedJudge, verdict

RECORDED = EvaluationConfig("be right", llm_provider="recorded")

# human, llm: 3 TP, 2 TN, 1 FP, 2 FN, one without an annotation, one without a verdict
SCORES = [(1, 1)] * 3 + [(0, 0)] * 2 + [(0, 1)] + [(1, 0)] * 2 + [(None, 1), (1, None)]


def make_rows(scores: list[tuple[int | None, int | None]] = SCORES) -> list[dict[str, Any]]:
    return [
        {"id": i, "query": f"q{i}", "output": f"a{i}", "judgment": human, "score": llm, "explanation": f"because {i}"}
        for i, (human, llm) in enumerate(scores)
    ]


def test_compares_recorded_verdicts_with_people() -> None:
    result = EvaluationRunner(RECORDED).run_sync(make_rows())

    # accuracy 5/8; precision 3/4; recall 3/5; specificity 2/3; F1 = 6/9
    # kappa: po = 5/8, pe = (5/8)(4/8) + (3/8)(4/8) = 1/2, so (5/8 - 1/2) / (1/2) = 1/4
    metrics = result.metrics
    assert (metrics.accuracy, metrics.precision, metrics.recall) == (5 / 8, 3 / 4, 3 / 5)
    assert metrics.specificity == pytest.approx(2 / 3)
    assert metrics.f1_score == pytest.approx(2 / 3)
    assert metrics.cohen_kappa == pytest.approx(1 / 4)
    assert result.interpretation == "fair"
    assert result.confusion_matrix == {"LLM=0": {"Human=0": 2, "Human=1": 2}, "LLM=1": {"Human=0": 1, "Human=1": 3}}
    assert [record.record_id for record in result.records] == [str(i) for i in range(8)]
    assert [record.score_difference for record in result.records] == [0, 0, 0, 0, 0, 1, -1, -1]
    assert [record.record_id for record in result.misaligned] == ["5", "6", "7"]
    assert result.records[5].llm_reasoning == "because 5"
    assert [(f.record_id, f.status, f.reason) for f in result.failed] == [
        ("9", "failed", "the records file has no verdict here")
    ]
    low, high = result.interval("cohen_kappa") or (0, 0)
    assert low < 1 / 4 < high
    assert result.config is RECORDED


def test_gives_the_same_result_for_every_form_of_input() -> None:
    rows = make_rows()
    upload = UploadHandler().from_records(rows)
    annotations = {row["id"]: row["judgment"] for row in rows if row["judgment"] is not None}
    runner = EvaluationRunner(RECORDED)

    results = [
        runner.run_sync(upload),
        runner.run_sync(upload.records),
        runner.run_sync(upload.table),
        runner.run_sync(pd.DataFrame(rows)),
        runner.run_sync(rows, annotations),
        runner.run_sync(rows, {str(key): Annotation(record_id="?", score=score) for key, score in annotations.items()}),
        runner.run_sync(rows, {key: np.int64(score) for key, score in annotations.items()}),
        runner.run_sync(rows, {float(key): np.bool_(score) for key, score in annotations.items()}),
        runner.run_sync(rows, upload.annotations),
        runner.run_sync(rows, pd.DataFrame({"id": list(annotations), "score": list(annotations.values())})),
        asyncio.run(runner.run(rows)),
    ]

    assert all(result.records == results[0].records for result in results)


def test_takes_the_records_table_as_pandas_reads_it(tmp_path: Path) -> None:
    upload = UploadHandler().from_records([{**row, "team": "red"} for row in make_rows()])
    tables = TableStore(str(tmp_path))
    tables.save(upload.table, tables.path("records"), "records")
    stored = pd.read_parquet(tmp_path / "records.parquet")

    result = EvaluationRunner(RECORDED).run_sync(stored)

    assert result.records == EvaluationRunner(RECORDED).run_sync(upload).records


def test_knows_its_splits() -> None:
    result = EvaluationRunner(RECORDED).run_sync(make_rows())

    assert sum(result.on_split(split).metrics.n for split in ("train", "dev", "test")) == result.metrics.n
    with pytest.raises(InputError, match="split is 'all'; give train, dev or test"):
        result.on_split("all")


def test_says_what_a_config_is() -> None:
    with pytest.raises(InputError, match="config is 'be right'; give an EvaluationConfig, or None"):
        EvaluationRunner("be right")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="examples is 5; give a list of records or of record ids"):
        EvaluationConfig("be right", examples=5)  # type: ignore[arg-type]
    assert EvaluationConfig("be right", "gpt-4o", "recorded", None, None) == RECORDED  # type: ignore[arg-type]


def test_survives_json() -> None:
    result = EvaluationRunner(RECORDED).run_sync(make_rows())

    restored = EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict())))

    assert restored.to_dict() == result.to_dict()
    assert restored.records == result.records
    assert restored.failed == result.failed
    assert restored.metrics == result.metrics
    assert restored.config == result.config


@pytest.mark.parametrize(
    ("scores", "kappa"),
    [
        ([(1, 1), (1, 1)], None),  # chance agreement is 1
        ([(0, 1), (1, 1)], 0.0),  # a constant judge
        ([(1, None), (0, 1)], 0.0),
    ],
)
def test_undefined_kappa_is_none(scores: list[tuple[int | None, int | None]], kappa: float | None) -> None:
    assert EvaluationRunner(RECORDED).run_sync(make_rows(scores)).metrics.cohen_kappa == kappa


def test_without_any_verdict_figures_are_none() -> None:
    judge = ScriptedJudge({"0": [verdict("0", status="refused", llm_score=None, failure_reason="no")]})

    result = EvaluationRunner(judge=judge).run_sync(make_rows([(1, None)]))

    assert (result.metrics.n, result.metrics.accuracy, result.interval("accuracy")) == (0, None, None)
    assert result.interpretation == "undefined"
    assert result.failed[0].reason == "no"


def test_examples_are_shown_and_count_in_no_figure() -> None:
    judge = _Watcher()
    rows = make_rows()
    config = EvaluationConfig(
        "be right",
        examples=[
            rows[0],
            "5",
            {"input": "what?", "output": "that", "judgment": "accept"},
            {"input": "x", "output": "y"},
        ],
    )

    result = EvaluationRunner(config, judge=judge).run_sync(rows)

    task = judge.tasks[0]
    assert list(task.examples["human_score"]) == [1, 0, 1]
    assert list(task.examples["query"]) == ["q0", "q5", "what?"]
    assert task.criteria.criteria == "be right\n\nExample input:\nx\nExample output:\ny"
    assert result.example_ids == ["0", "5"]
    assert not {"0", "5"} & {record.record_id for record in result.records}
    assert EvaluationConfig.from_dict(json.loads(json.dumps(config.to_dict()))).to_dict() == config.to_dict()


def test_refuses_examples_that_show_nothing() -> None:
    def run(example: object) -> None:
        EvaluationRunner(EvaluationConfig(examples=[example]), judge=ScriptedJudge()).run_sync(make_rows())

    with pytest.raises(InputError, match="its record is not among the records"):
        run("unknown")
    with pytest.raises(InputError, match="example '8' has no human_score; annotate it"):
        run("8")


def test_says_what_is_missing() -> None:
    runner = EvaluationRunner(RECORDED)
    with pytest.raises(MissingStepError, match="no record has a label: annotate records first"):
        runner.run_sync(make_rows([(None, 1)]))
    with pytest.raises(InputError, match=r"2 annotations are for no record, e\.g\. \['x', 'y'\]"):
        runner.run_sync(make_rows(), {"x": 1, "y": 0, 1: 1})
    with pytest.raises(InputError, match="records: line 1: query is blank"):
        runner.run_sync([{"id": 1, "query": "", "output": "a"}])
    with pytest.raises(JudgeError, match="no record brings a verdict"):
        runner.run_sync(make_rows([(1, None)]))
    with pytest.raises(JudgeError, match="no key for provider 'openai'; set OPENAI_API_KEY"):
        EvaluationRunner().run_sync(make_rows())
    with pytest.raises(JudgeError, match="unknown provider 'nobody'; known are local, recorded, openai"):
        EvaluationRunner(EvaluationConfig(llm_provider="nobody")).run_sync(make_rows())
    assert EvaluationRunner().config == EvaluationConfig(DEFAULT_CRITERIA, "gpt-4o", "openai")


def test_reports_progress_while_it_goes_on() -> None:
    judge = _Watcher()
    seen: list[tuple[int, int]] = []
    at_verdict: list[int] = []
    judge.on_record = lambda: at_verdict.append(len(seen))

    async def run() -> None:
        await EvaluationRunner(RECORDED, judge=judge).run(
            make_rows(), on_progress=lambda done, total: seen.append((done, total))
        )
        assert len(seen) == 9

    judge.pause_s = 0.02
    asyncio.run(run())
    assert seen == [(i, 9) for i in range(1, 10)]
    assert at_verdict[-1] > 0


def test_works_under_a_running_event_loop() -> None:
    async def notebook_cell() -> EvaluationResult:
        return EvaluationRunner(RECORDED).run_sync(make_rows())

    assert asyncio.run(notebook_cell()).metrics.n == 8


def test_cancelling_stops_the_judge() -> None:
    judge, is_under_way = _Watcher(), threading.Event()
    judge.pause_s, judge.on_record = 0.02, is_under_way.set

    async def run() -> None:
        task = asyncio.create_task(EvaluationRunner(judge=judge).run(make_rows([(1, 1)] * 200)))
        await asyncio.to_thread(is_under_way.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert judge.is_closed
    assert len(judge.asked) < 100


def test_compares_two_evaluations_on_what_both_judged() -> None:
    rows = make_rows()
    before = EvaluationRunner(RECORDED).run_sync(rows)
    better = [{**row, "score": row["judgment"]} for row in rows[1:]]
    better[0]["score"] = 0
    after = EvaluationRunner(RECORDED).run_sync(better)

    comparison = compare(before, after)

    assert comparison.fixed == ["5", "6", "7"]
    assert comparison.broken == ["1"]
    assert (comparison.only_a, comparison.only_b) == (["0"], ["9"])
    # a: TP 2, TN 2, FP 1, FN 2 of 7; b: TP 3, TN 3, FN 1
    assert comparison.metrics_a.accuracy == 4 / 7
    assert comparison.metrics_b.accuracy == 6 / 7
    assert comparison.n == 7
    assert comparison.kappa_gain is not None
    assert comparison.kappa_gain > 0
    assert comparison.p_value is not None
    json.dumps(comparison.to_dict())


def test_comparison_leaves_relabelled_records_out() -> None:
    rows = make_rows()
    relabelled = [{**row, "judgment": 0} if row["id"] == 0 else row for row in rows]

    comparison = compare(EvaluationRunner(RECORDED).run_sync(rows), EvaluationRunner(RECORDED).run_sync(relabelled))

    assert comparison.relabelled == ["0"]
    assert comparison.n == 7


def test_ten_thousand_recorded_verdicts_take_under_two_seconds() -> None:
    rows = make_rows([(i % 2, (i // 3) % 2) for i in range(10_000)])
    EvaluationRunner(RECORDED).run_sync(rows[:10])  # imports

    start = time.process_time()
    result = EvaluationRunner(RECORDED).run_sync(rows)
    _ = result.metrics, result.records, result.interpretation

    assert len(result.records) == 10_000
    assert time.process_time() - start < 2


class _Watcher(ScriptedJudge):
    """Keeps its tasks, and takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[JudgeTask] = []
        self.pause_s = 0.0
        self.on_record: Callable[[], object] = lambda: None

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        self.tasks.append(task)
        for batch in super().judge(task):
            assert threading.current_thread() is not threading.main_thread()
            time.sleep(self.pause_s)
            self.on_record()
            yield batch


@pytest.mark.parametrize("scores", [[(1, 1)], [(1, 1), (0, 0)], [(1, 0), (1, 0)], [(1, 1), (1, 0), (0, 0)]])
def test_a_handful_of_records_of_one_group_has_figures_without_a_warning(scores: list[tuple[int, int]]) -> None:
    rows = [{"id": i, "query": "q", "output": "o", "judgment": j, "score": s} for i, (j, s) in enumerate(scores)]

    result = EvaluationRunner(EvaluationConfig(llm_provider="recorded")).run_sync(rows)

    low, high = result.interval("accuracy") or (0.0, 0.0)
    assert 0 <= low <= high <= 1


def test_an_error_of_the_progress_callback_reaches_the_caller() -> None:
    def fail(done: int, total: int) -> None:
        raise LookupError(f"{done} of {total}")

    with pytest.raises(LookupError, match="2 of 2"):
        EvaluationRunner(EvaluationConfig(llm_provider="recorded")).run_sync(make_flawed_rows(2), on_progress=fail)


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ("  ", "criteria: criteria is blank"),
        ("\ud800", "criteria: Input should be a valid string"),
        (None, "criteria: Input should be a valid string"),
    ],
)
def test_criteria_that_are_none_are_named_in_one_line(criteria: str | None, message: str) -> None:
    config = EvaluationConfig(criteria, llm_provider="recorded")  # type: ignore[arg-type]  # a slip of the caller

    with pytest.raises(CriteriaError, match=message) as caught:
        EvaluationRunner(config).run_sync(make_flawed_rows(2))

    assert "\n" not in str(caught.value)
