from pathlib import Path

import pytest

from caliber_pipeline.core.conforming import empty_frame
from caliber_pipeline.core.errors import SpendingCapError
from caliber_pipeline.core.verdicts import refuse_capped, summarize_verdicts
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.judges.scripted import ScriptedJudge, make_task, verdict

PAID = {"prompt_tokens": 100, "completion_tokens": 10, "cost_usd": 0.25, "latency_s": 0.5}


def test_a_run_is_summed_up_without_what_was_cached(tmp_path: Path) -> None:
    script = {
        "a": [verdict("a", vote_share=1.0, n_votes=3, n_attempts=3, **PAID)],
        "b": [verdict("b", vote_share=0.6, n_votes=3, n_attempts=4, **PAID | {"latency_s": 1.5})],
        "c": [verdict("c", status="refused", llm_score=None, **PAID | {"latency_s": 1.0})],
    }
    with VerdictCache(tmp_path / "c.sqlite") as cache:
        run_judge(ScriptedJudge(script), make_task({"a": "1"}), cache=cache)
        scores = run_judge(ScriptedJudge(script), make_task({"a": "1", "b": "2", "c": "3"}), cache=cache)
    summary = summarize_verdicts(scores)
    assert summary.n_by_status == {"scored": 2, "refused": 1}
    assert summary.coverage == pytest.approx(2 / 3)
    assert (summary.n_records, summary.n_cached) == (3, 1)
    # b took 4 calls and c took 1; a was read from the cache
    assert (summary.n_calls, summary.prompt_tokens, summary.completion_tokens) == (5, 200, 20)
    assert summary.cost_usd == pytest.approx(0.5)
    assert summary.mean_latency_s == pytest.approx(1.25)
    # the mean of 1.0 and 0.6
    assert summary.repeat_stability == pytest.approx(0.8)
    assert not summary.is_capped


def test_an_unknown_price_leaves_the_cost_unknown_and_a_cap_shows() -> None:
    script = {
        "a": [verdict("a", **PAID | {"cost_usd": None})],
        "b": [verdict("b", status="skipped", llm_score=None, n_attempts=0)],
    }
    summary = summarize_verdicts(run_judge(ScriptedJudge(script), make_task({"a": "1", "b": "2"})))
    assert summary.cost_usd is None
    assert summary.prompt_tokens == 100
    assert summary.is_capped
    assert summary.repeat_stability is None


def test_a_judge_that_reports_no_figures_leaves_them_unknown() -> None:
    summary = summarize_verdicts(run_judge(ScriptedJudge(), make_task({"a": "1"})))
    assert (summary.n_calls, summary.coverage) == (1, 1.0)
    assert (summary.prompt_tokens, summary.cost_usd, summary.mean_latency_s) == (None, None, None)


def test_nothing_judged_is_undefined_and_costs_nothing() -> None:
    summary = summarize_verdicts(empty_frame("judge_scores"))
    assert summary.coverage is None
    assert summary.mean_latency_s is None
    assert (summary.cost_usd, summary.n_calls) == (0, 0)


def test_a_cap_that_left_one_record_unasked_ends_the_run_with_its_coverage() -> None:
    texts = {f"r{i}": f"{i}" for i in range(100)}
    script = {"r7": [verdict("r7", status="skipped", llm_score=None, n_attempts=0)]}
    refuse_capped(summarize_verdicts(run_judge(ScriptedJudge(), make_task(texts))), "under 'v001'")
    capped = summarize_verdicts(run_judge(ScriptedJudge(script), make_task(texts)))
    with pytest.raises(
        SpendingCapError, match=r"99 of 100 records judged under 'v001' \(99.0%\); the verdicts are kept"
    ):
        refuse_capped(capped, "under 'v001'")
