import pytest

from caliber_pipeline.core.criteria import Criteria, Sampling
from caliber_pipeline.core.judge_prompt import build_prefix, build_record_message
from caliber_pipeline.core.pricing import FREE, Price, estimate_run, pico, price_of, usd
from caliber_pipeline_tests.judges.scripted import make_records


def test_costs_are_exact_in_whole_units() -> None:
    # 1,000,000 tokens at 2.50 and 100,000 at 10.00 are 2.50 + 1.00 dollars
    assert usd(Price(2.5, 10).cost(1_000_000, 100_000)) == 3.5
    assert sum(Price(0.15, 0.6).cost(1, 0) for _ in range(10**4)) == Price(0.15, 0.6).cost(10**4, 0)
    assert pico(3.5) == Price(2.5, 10).cost(1_000_000, 100_000)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-2024-08-06", "openai/gpt-4o", "GPT-4o"])
def test_snapshots_and_vendor_prefixes_have_the_models_price(model: str) -> None:
    assert price_of(model) == Price(2.5, 10)


def test_an_unknown_model_has_no_price() -> None:
    assert price_of("my-own-model") is None
    assert price_of("gpt-4o-mini") != price_of("gpt-4o")


def test_an_estimate_counts_votes_as_calls_and_bytes_by_four() -> None:
    records = make_records({"a": "x" * 400, "b": "é" * 200})
    criteria = Criteria(criteria="c" * 1000, sampling=Sampling(temperature=1, n_votes=3))
    estimate = estimate_run(records, criteria, make_records({}), price=Price(1, 2), n_cached=5)
    assert (estimate.n_records, estimate.n_cached, estimate.n_calls) == (7, 5, 6)
    messages = build_prefix(criteria, make_records({}))
    sent = sum(len(message["content"].encode()) for message in messages) * 2
    sent += sum(len(build_record_message("q", output, None).encode()) for output in ("x" * 400, "é" * 200))
    # about a quarter of the bytes, three times, with a few tokens around each message
    assert estimate.prompt_tokens == pytest.approx(3 * sent / 4, rel=0.05)
    assert estimate.completion_tokens == 6 * 80
    assert estimate.cost_usd == pytest.approx((estimate.prompt_tokens + 2 * estimate.completion_tokens) / 1e6)


def test_an_estimate_without_a_price_has_no_cost_and_a_free_one_costs_nothing() -> None:
    records, criteria = make_records({"a": "x"}), Criteria(criteria="c")
    assert estimate_run(records, criteria, make_records({}), price=None).cost_usd is None
    assert estimate_run(records, criteria, make_records({}), price=FREE).cost_usd == 0
    assert estimate_run(make_records({}), criteria, make_records({}), price=FREE).n_calls == 0
