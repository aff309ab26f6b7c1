from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core import conforming, schemas
from caliber_pipeline.core.criteria import Criteria, ExampleRef, Sampling
from caliber_pipeline.core.errors import InputError, SchemaError
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.runner import NO_VERDICT, find_open, run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.judges.scripted import ScriptedJudge, batch, make_records, make_task, verdict


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VerdictCache]:
    with VerdictCache(tmp_path / "verdicts.sqlite") as opened:
        yield opened


def test_rows_come_in_the_records_order_and_conform_to_the_schema() -> None:
    scores = run_judge(
        ScriptedJudge({"b": [verdict("c", llm_score=0)], "c": [verdict("b")]}),
        make_task({"b": "1", "a": "2", "c": "3"}),
    )
    assert scores["record_id"].tolist() == ["b", "a", "c"]
    assert scores["llm_score"].tolist() == [1, 1, 0]
    assert list(scores.columns) == schemas.JUDGE_SCORES.names
    conforming.arrow_from_frame(scores, "judge_scores")


def test_a_record_without_a_verdict_is_failed_with_a_reason_and_has_no_score() -> None:
    scores = run_judge(ScriptedJudge({"b": []}), make_task({"a": "1", "b": "2"}))
    assert scores["status"].tolist() == ["scored", "failed"]
    assert scores["failure_reason"].tolist()[1] == NO_VERDICT
    assert scores["llm_score"].isna().tolist() == [False, True]
    assert scores["provider"].tolist() == ["p", "p"]


def test_invented_and_repeated_ids_are_dropped_and_counted() -> None:
    judge = ScriptedJudge({"a": [verdict("a", llm_score=0), verdict("a"), verdict("x")], "b": [verdict("a")]})
    scores = run_judge(judge, make_task({"a": "1", "b": "2"}))
    assert scores["record_id"].tolist() == ["a", "b"]
    assert scores["llm_score"].tolist()[0] == 0
    assert scores.attrs["n_invented"] == 3


def test_a_score_that_is_neither_0_nor_1_is_unparseable_and_a_failure_has_no_score() -> None:
    judge = ScriptedJudge(
        {
            "a": [verdict("a", llm_score=7)],
            "b": [verdict("b", llm_score=None)],
            "c": [verdict("c", status="refused", failure_reason="I cannot")],
            "d": [verdict("d")],
        }
    )
    scores = run_judge(judge, make_task(dict.fromkeys("abcd", "t") | {"a": "1", "b": "2", "c": "3"}))
    assert scores["status"].tolist() == ["unparseable", "unparseable", "refused", "scored"]
    assert scores["llm_score"].isna().tolist() == [True, True, True, False]
    assert scores["failure_reason"].tolist()[2] == "I cannot"
    assert "neither 0 nor 1" in scores["failure_reason"].tolist()[0]


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(SchemaError, match="perhaps"):
        run_judge(ScriptedJudge({"a": [verdict("a", status="perhaps")]}), make_task({"a": "1"}))


def test_repeated_record_ids_are_refused_by_name() -> None:
    records = pd.concat([make_records({"a": "1"})] * 2)
    with pytest.raises(InputError, match=r"1 record ids repeat, e.g. \['a'\]"):
        run_judge(ScriptedJudge(), JudgeTask(records, Criteria(criteria="c"), make_records({})))


def test_a_second_run_reads_every_verdict_and_asks_nothing(cache: VerdictCache) -> None:
    task = make_task({"a": "1", "b": "2"})
    first = run_judge(ScriptedJudge({"a": [verdict("a", cost_usd=0.5, latency_s=0.25)]}), task, cache=cache)
    judge = ScriptedJudge()
    second = run_judge(judge, task, cache=cache)
    assert judge.asked == []
    assert second["is_cached"].tolist() == [True, True]
    pd.testing.assert_frame_equal(first.drop(columns="is_cached"), second.drop(columns="is_cached"))


def test_one_new_record_costs_one_call_and_a_new_id_for_known_content_none(cache: VerdictCache) -> None:
    run_judge(ScriptedJudge(), make_task({"a": "1", "b": "2"}), cache=cache)
    judge = ScriptedJudge()
    run_judge(judge, make_task({"a": "1", "b": "2", "c": "3", "d": "1"}), cache=cache)
    assert judge.asked == ["c"]


@pytest.mark.parametrize(
    "criteria",
    [
        Criteria(criteria="other"),
        Criteria(criteria="be right", system_prompt="s"),
        Criteria(criteria="be right", sampling=Sampling(temperature=1)),
    ],
)
def test_other_criteria_or_sampling_cost_every_call(cache: VerdictCache, criteria: Criteria) -> None:
    run_judge(ScriptedJudge(), make_task({"a": "1", "b": "2"}), cache=cache)
    judge = ScriptedJudge()
    run_judge(judge, make_task({"a": "1", "b": "2"}, criteria), cache=cache)
    assert judge.asked == ["a", "b"]


def test_equal_records_are_judged_once_and_both_get_the_verdict(cache: VerdictCache) -> None:
    judge = ScriptedJudge({"a": [verdict("a", llm_score=0)]})
    progress: list[tuple[int, int]] = []
    scores = run_judge(
        judge,
        make_task({"a": "same", "b": "other", "c": "same"}),
        cache=cache,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert judge.asked == ["a", "b"]
    assert scores["llm_score"].tolist() == [0, 1, 0]
    assert scores["is_cached"].tolist() == [False, False, True]
    assert progress == [(2, 3), (3, 3)]


def test_a_judge_that_is_not_cacheable_is_asked_about_every_record(cache: VerdictCache) -> None:
    judge = ScriptedJudge(is_cacheable=False)
    run_judge(judge, make_task({"a": "same", "b": "same"}), cache=cache)
    assert judge.asked == ["a", "b"]
    assert cache.stats().n_verdicts == 0


def test_failed_calls_are_tried_again_but_what_the_model_said_is_kept(cache: VerdictCache) -> None:
    task = make_task({"a": "1", "b": "2", "c": "3", "d": "4"})
    script = {
        "a": [verdict("a", status="failed", llm_score=None)],
        "b": [verdict("b", status="refused", llm_score=None)],
        "c": [verdict("c", status="unparseable", llm_score=None)],
        "d": [verdict("d", status="skipped", llm_score=None)],
    }
    run_judge(ScriptedJudge(script), task, cache=cache)
    judge = ScriptedJudge()
    scores = run_judge(judge, task, cache=cache)
    assert judge.asked == ["a", "d"]
    assert scores["status"].tolist() == ["scored", "refused", "unparseable", "scored"]


def test_progress_starts_with_what_was_cached_and_rises_as_verdicts_arrive(cache: VerdictCache) -> None:
    run_judge(ScriptedJudge(), make_task({"a": "1"}), cache=cache)
    judge = ScriptedJudge()
    seen: list[tuple[int, int, int]] = []
    run_judge(
        judge,
        make_task({"a": "1", "b": "2", "c": "3"}),
        cache=cache,
        on_progress=lambda done, total: seen.append((done, total, len(judge.asked))),
    )
    assert seen == [(1, 3, 0), (2, 3, 1), (3, 3, 2)]


def test_an_interrupt_closes_the_judge_and_keeps_what_arrived(cache: VerdictCache) -> None:
    judge = ScriptedJudge()

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_judge(judge, make_task({"a": "1", "b": "2", "c": "3"}), cache=cache, on_progress=interrupt)
    assert judge.is_closed
    assert cache.stats().n_verdicts == 2


def test_examples_are_marked() -> None:
    criteria = Criteria(criteria="c", examples=(ExampleRef(record_id="b", content_hash="h"),))
    scores = run_judge(ScriptedJudge(), make_task({"a": "1", "b": "2"}, criteria))
    assert scores["is_example"].tolist() == [False, True]


def test_what_a_run_would_judge_is_known_before_it(cache: VerdictCache) -> None:
    run_judge(ScriptedJudge(), make_task({"a": "1"}), cache=cache)
    remaining, n_known = find_open(ScriptedJudge(), make_task({"a": "1", "b": "2", "c": "2", "d": "3"}), cache)
    assert remaining.records["record_id"].tolist() == ["b", "d"]
    assert n_known == 2
    assert find_open(ScriptedJudge(), make_task({"a": "1"}), None)[1] == 0


def test_the_texts_of_records_that_are_all_to_be_judged_are_not_copied() -> None:
    task = make_task({"a": "1", "b": "2"})
    assert find_open(ScriptedJudge(), task, None)[0].records is task.records


def test_no_batch_has_the_ids_of_all_records_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []
    astype = pd.Index.astype

    def counting(index: "pd.Index[Any]", *args: object, **options: object) -> object:
        converted.append(len(index))
        return astype(index, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(pd.Index, "astype", counting)
    run_judge(ScriptedJudge(), make_task({f"r{number}": "text" for number in range(50)}))  # in batches of one
    assert converted.count(50) == 0


def test_no_records_give_an_empty_table_of_the_schema(cache: VerdictCache) -> None:
    scores = run_judge(ScriptedJudge(), make_task({}), cache=cache)
    assert len(scores) == 0
    assert list(scores.columns) == schemas.JUDGE_SCORES.names


@settings(max_examples=50)
@given(
    texts=st.dictionaries(st.text("abc", min_size=1, max_size=2), st.text("xy", max_size=1), max_size=6),
    replies=st.dictionaries(
        st.text("abc", min_size=1, max_size=2),
        st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.sampled_from([None, 0, 1, 2])), max_size=3),
        max_size=6,
    ),
)
def test_every_record_has_exactly_one_row_whatever_the_judge_does(
    texts: dict[str, str], replies: dict[str, list[tuple[str, int | None]]]
) -> None:
    script = {key: [verdict(name, llm_score=score) for name, score in rows] for key, rows in replies.items()}
    scores = run_judge(ScriptedJudge(script), make_task(texts))
    assert scores["record_id"].tolist() == list(texts)
    assert scores["llm_score"].notna().tolist() == [status == "scored" for status in scores["status"]]
    assert set(scores["llm_score"].dropna()) <= {0, 1}
    assert batch([]).empty


def test_another_verdict_of_people_on_an_example_is_another_question(tmp_path: Path) -> None:
    shown = make_records({"e": "an example"}).assign(human_score=1, human_notes="fine")
    judge = ScriptedJudge()
    with VerdictCache(tmp_path / "v.sqlite") as cache:
        for examples in (shown, shown, shown.assign(human_score=0), shown.assign(human_notes="better")):
            task = JudgeTask(make_records({"a": "x"}), Criteria(criteria="be right"), examples)
            run_judge(judge, task, cache=cache)
    assert judge.asked == ["a", "a", "a"]
