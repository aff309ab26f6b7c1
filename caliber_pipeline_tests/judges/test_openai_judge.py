import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from caliber_pipeline.core import conforming, schemas
from caliber_pipeline.core.criteria import Criteria, Sampling
from caliber_pipeline.core.errors import InputError, JudgeError, JudgeSettingsError
from caliber_pipeline.judges.openai_judge import OpenAIJudge, RunStats
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import Loopback, LoopbackConfig, loopback
from caliber_pipeline_tests.judges.scripted import make_task

KEY = "sk-canary-3b1f"


def make_judge(server: Loopback | str, **settings: Any) -> OpenAIJudge:  # noqa: ANN401 any setting
    url = server if isinstance(server, str) else server.base_url
    arguments: dict[str, Any] = {"model": "m", "base_url": url, "max_retries": 3}
    return OpenAIJudge(OpenAIJudgeSettings(**arguments | settings))


def make_texts(n: int, **special: str) -> dict[str, str]:
    return {f"r{i}": f"answer {i}" for i in range(n)} | special


def stats_of(judge: OpenAIJudge) -> RunStats:
    assert judge.last_run is not None
    return judge.last_run


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    """An endpoint that does everything right: rejects what is wrong."""
    with loopback(LoopbackConfig(reject_if="wrong", prompt_tokens=300, completion_tokens=20)) as running:
        yield running


@pytest.mark.parametrize("transport", ["direct", "package"])
def test_every_record_gets_its_verdict_with_one_call_and_no_other(transport: str) -> None:
    texts = make_texts(50, x="a wrong answer")
    with loopback(LoopbackConfig(reject_if="wrong")) as server:
        judge = make_judge(server, transport=transport, input_price=1.0, output_price=10.0)
        scores = run_judge(judge, make_task(texts))
        assert server.stats()["calls"] == 51
    assert scores["status"].unique().tolist() == ["scored"]
    assert scores["llm_score"].tolist() == [1] * 50 + [0]
    assert scores["llm_reasoning"].iloc[-1] == "The loopback server says 0."
    assert scores["prompt_tokens"].unique().tolist() == [300]
    # 300 tokens at 1 dollar and 20 at 10 dollars a million: 0.0003 + 0.0002
    assert scores["cost_usd"].unique().tolist() == [pytest.approx(0.0005)]
    assert scores["n_attempts"].unique().tolist() == [1]
    assert scores["latency_s"].between(0, 5).all()
    assert scores["provider"].unique().tolist() == ["custom"]
    assert stats_of(judge).n_calls == 51
    assert stats_of(judge).spent_usd == pytest.approx(51 * 0.0005)


def test_the_judge_is_a_judge(server: Loopback) -> None:
    judge: Judge = make_judge(server)
    assert (judge.provider, judge.model, judge.is_cacheable) == ("custom", "m", True)


def test_confidence_comes_from_the_score_tokens_probabilities(server: Loopback) -> None:
    scores = run_judge(make_judge(server), make_task({"a": "t"}))
    # the server gives the score's token 0.9 and the other one 0.05: 0.9 / 0.95
    assert scores["confidence"].tolist() == [pytest.approx(0.9 / 0.95, abs=1e-6)]
    assert scores["vote_share"].isna().all()


def test_confidence_is_null_where_the_endpoint_gives_no_probabilities() -> None:
    with loopback(LoopbackConfig(has_logprobs=False)) as server:
        assert run_judge(make_judge(server), make_task({"a": "t"}))["confidence"].isna().all()


@pytest.mark.parametrize(
    ("formats", "format_", "n_refused"),
    [(("json_object", "text"), "json_object", 1), (("text",), "text", 2)],
)
def test_the_reply_format_is_what_the_endpoint_accepts_and_is_remembered(
    formats: tuple[str, ...], format_: str, n_refused: int
) -> None:
    with loopback(LoopbackConfig(formats=formats)) as server:
        judge = make_judge(server)
        scores = run_judge(judge, make_task(make_texts(20)))
        assert (scores["status"] == "scored").all()
        assert server.stats()["calls"] == 20 + n_refused
        assert stats_of(judge).format == format_
        run_judge(judge, make_task(make_texts(5)))
        assert server.stats()["calls"] == 25 + n_refused


def test_parameters_that_the_endpoint_refuses_are_left_out_and_named() -> None:
    with loopback(LoopbackConfig(refused_parameters=("temperature", "logprobs", "max_tokens"))) as server:
        judge = make_judge(server)
        scores = run_judge(judge, make_task(make_texts(20)))
        assert (scores["status"] == "scored").all()
        assert server.stats()["calls"] == 23
    assert set(stats_of(judge).adaptations) == {"no temperature", "no logprobs", "no max_tokens"}


@pytest.mark.parametrize("transport", ["direct", "package"])
def test_a_wrong_key_is_one_line_after_one_call_and_does_not_show_the_key(transport: str) -> None:
    with loopback(LoopbackConfig(api_key="right", echoes_key=True)) as server:
        judge = make_judge(server, api_key=SecretStr(KEY), transport=transport)
        with pytest.raises(JudgeSettingsError) as caught:
            run_judge(judge, make_task(make_texts(500)))
        assert server.stats()["calls"] == 1
    message = str(caught.value)
    assert "HTTP 401: Incorrect API key provided: [key]" in message
    assert "model 'm'" in message
    assert "\n" not in message


@pytest.mark.parametrize("transport", ["direct", "package"])
def test_the_right_key_is_sent_with_every_call(transport: str) -> None:
    with loopback(LoopbackConfig(api_key=KEY)) as server:
        judge = make_judge(server, api_key=SecretStr(KEY), transport=transport)
        assert (run_judge(judge, make_task(make_texts(5)))["status"] == "scored").all()


@pytest.mark.parametrize("transport", ["direct", "package"])
def test_azure_gets_its_own_path_and_header(transport: str) -> None:
    with loopback(LoopbackConfig(api_key=KEY)) as server:
        url = server.base_url.removesuffix("/v1")
        judge = make_judge(url, provider="azure", api_key=SecretStr(KEY), transport=transport, api_version="2024-10-21")
        scores = run_judge(judge, make_task(make_texts(5)))
        assert server.stats()["last_path"] == "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    assert scores["status"].tolist() == ["scored"] * 5
    assert scores["provider"].unique().tolist() == ["azure"]


def test_an_unknown_model_is_one_line_after_one_call() -> None:
    with loopback(LoopbackConfig(model="other")) as server:
        with pytest.raises(JudgeSettingsError, match="model 'm': HTTP 404: The model `m` does not exist"):
            run_judge(make_judge(server), make_task(make_texts(500)))
        assert server.stats()["calls"] == 1


@pytest.mark.parametrize("transport", ["direct", "package"])
def test_a_refused_connection_is_one_line_at_once(transport: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        start = time.perf_counter()
        with pytest.raises(JudgeSettingsError, match=f"custom at {url}, model 'm': Connection refused"):
            run_judge(make_judge(url, transport=transport), make_task(make_texts(500)))
        assert time.perf_counter() - start < 5


def test_no_money_left_ends_the_run_and_keeps_what_was_judged(tmp_path: Path) -> None:
    config = LoopbackConfig(errors={"answer 399": (429, "insufficient_quota")}, latency_s=0.002)
    with loopback(config) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(JudgeError, match="HTTP 429: The call failed: insufficient_quota") as caught:
            run_judge(make_judge(server, max_concurrency=4), make_task(make_texts(2000)), cache=cache)
        assert not isinstance(caught.value, InputError)  # no setting is to blame
        assert 350 <= cache.stats().n_verdicts < 500


def test_a_server_that_asks_to_wait_for_hours_ends_the_run() -> None:
    config = LoopbackConfig(p_429=1.0, retry_after_s=7200, retry_after_form="seconds")
    with (
        loopback(config) as server,
        pytest.raises(JudgeError, match="asks to wait 7200 s, longer than 600 s"),
    ):
        run_judge(make_judge(server), make_task(make_texts(5)))


def test_three_records_that_fail_at_the_start_are_held_to_be_the_endpoints_fault() -> None:
    with loopback(LoopbackConfig(errors={"answer": (400, "bad_request")})) as server:
        with pytest.raises(JudgeError, match="the first 3 records failed, the last one with: HTTP 400"):
            run_judge(make_judge(server), make_task(make_texts(500)))
        assert server.stats()["calls"] == 3


def test_an_endpoint_that_goes_down_ends_the_run_and_keeps_what_was_judged(tmp_path: Path) -> None:
    texts = make_texts(50) | {f"late{i}": f"late {i}" for i in range(500)}
    config = LoopbackConfig(errors={"late": (500, "server_error")}, latency_s=0.001)
    with loopback(config) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        judge = make_judge(server, max_retries=0, max_concurrency=4)
        with pytest.raises(JudgeError, match="no call was answered while 20 were given up: HTTP 500"):
            run_judge(judge, make_task(texts), cache=cache)
        assert cache.stats().n_verdicts == 50
        assert server.stats()["calls"] < 100


def test_a_reply_without_a_verdict_is_repaired_once_and_then_unparseable() -> None:
    replies = {"mumble": "maybe so", "stubborn": "who knows", "holds no valid verdict": "still neither"}
    with loopback(LoopbackConfig(replies=replies)) as server:
        scores = run_judge(make_judge(server), make_task({"a": "mumble", "b": "fine"}))
    assert scores["status"].tolist() == ["unparseable", "scored"]
    assert scores["n_attempts"].tolist() == [2, 1]
    assert scores["llm_score"].isna().tolist() == [True, False]
    assert scores["failure_reason"].iloc[0] == 'the reply says neither 0 nor 1: "still neither"'
    assert scores["completion_tokens"].tolist() == [40, 20]


def test_a_repair_that_works_gives_a_verdict() -> None:
    with loopback(LoopbackConfig(replies={"mumble": "maybe so"})) as server:
        judge = make_judge(server)
        scores = run_judge(judge, make_task({"a": "mumble"}))
    assert (scores["status"].tolist(), scores["n_attempts"].tolist()) == (["scored"], [2])
    assert stats_of(judge).n_repairs == 1


def test_refusals_are_refused_and_not_asked_again() -> None:
    config = LoopbackConfig(
        replies={"weapon": "refusal: I cannot help with that."}, errors={"blood": (400, "content_filter")}
    )
    with loopback(config) as server:
        scores = run_judge(make_judge(server), make_task({"a": "fine", "b": "weapon", "c": "blood"}))
        assert server.stats()["calls"] == 3
    assert scores["status"].tolist() == ["scored", "refused", "refused"]
    assert scores["failure_reason"].tolist()[1] == "I cannot help with that."
    assert "content_filter" in scores["failure_reason"].tolist()[2]


def test_a_record_that_the_endpoint_cannot_take_is_failed_and_the_others_are_judged() -> None:
    with loopback(LoopbackConfig(errors={"endless": (400, "context_length_exceeded")})) as server:
        scores = run_judge(make_judge(server), make_task(make_texts(20, x="endless")))
    assert scores["status"].value_counts().to_dict() == {"scored": 20, "failed": 1}
    assert scores["failure_reason"].iloc[-1] == "HTTP 400: The call failed: context_length_exceeded"
    assert scores["llm_score"].isna().iloc[-1]


def test_a_call_that_fails_every_time_is_failed_with_its_reason() -> None:
    with loopback(LoopbackConfig(errors={"cursed": (500, "server_error")})) as server:
        scores = run_judge(make_judge(server, max_retries=1), make_task(make_texts(3, x="cursed")))
    assert scores["status"].tolist() == ["scored"] * 3 + ["failed"]
    assert scores["failure_reason"].iloc[-1] == "HTTP 500: The call failed: server_error (attempt 2, the last)"


def test_a_record_that_takes_too_long_in_all_is_failed() -> None:
    with loopback(LoopbackConfig(errors={"cursed": (500, "server_error")})) as server:
        scores = run_judge(make_judge(server, record_timeout_s=0.3), make_task(make_texts(3, x="cursed")))
    assert "no verdict within 0.3 s; last: HTTP 500" in scores["failure_reason"].iloc[-1]


@pytest.mark.parametrize("transport", ["direct", "package"])
def test_no_attempt_takes_longer_than_what_is_left_of_its_record(transport: str) -> None:
    with loopback(LoopbackConfig(p_hang=1.0)) as server:
        judge = make_judge(server, transport=transport, record_timeout_s=0.5, attempt_timeout_s=30.0)
        start = time.perf_counter()
        scores = run_judge(judge, make_task({"a": "t"}))
        elapsed = time.perf_counter() - start
        assert server.stats()["calls"] == 1
    assert scores["failure_reason"].tolist() == ["no verdict within 0.5 s; last: no reply within 0.5 s"]
    assert elapsed < 10


def test_further_votes_share_the_time_of_their_record() -> None:
    criteria = Criteria(criteria="c", sampling=Sampling(temperature=1.0, n_votes=5))
    with loopback(LoopbackConfig(latency_s=1.0)) as server:
        scores = run_judge(make_judge(server, record_timeout_s=1.8), make_task({"a": "t"}, criteria))
        # the first vote takes 1 s, the second is given up after the 0.8 s that are left, the others are not asked for
        assert server.stats()["calls"] == 2
    assert scores["n_votes"].tolist() == [1]


def test_votes_give_the_majority_and_its_share() -> None:
    criteria = Criteria(criteria="c", sampling=Sampling(temperature=1.0, n_votes=5))
    with loopback(LoopbackConfig(reject_if="wrong", p_flip=0.2)) as server:
        scores = run_judge(make_judge(server), make_task(make_texts(40, x="wrong"), criteria))
        assert server.stats()["calls"] == 5 * 41
    assert (scores["status"] == "scored").all()
    assert scores["n_votes"].unique().tolist() == [5]
    assert set(scores["vote_share"].round(1)) <= {0.6, 0.8, 1.0}
    assert scores["vote_share"].tolist() == scores["confidence"].tolist()
    # With 1 of 5 votes flipped on average, a majority is wrong with probability 0.058: 41 records give 2.4 on average,
    # and more than 9 less than once in 10,000 times.
    assert int((scores["llm_score"].iloc[:-1] == 1).sum()) >= 31


def test_votes_that_tie_are_unparseable() -> None:
    criteria = Criteria(criteria="c", sampling=Sampling(temperature=1.0, n_votes=2))
    with loopback(LoopbackConfig(p_flip=0.5)) as server:
        scores = run_judge(make_judge(server), make_task(make_texts(40), criteria))
    tied = scores[scores["status"] == "unparseable"]
    assert 8 <= len(tied) <= 32  # half of 40, six standard deviations to either side at most
    assert tied["failure_reason"].unique().tolist() == ["the votes tie, 1 to 1"]
    assert tied["llm_score"].isna().all()
    assert tied["confidence"].isna().all()


def test_votes_at_temperature_0_are_warned_about(server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    criteria = Criteria(criteria="c", sampling=Sampling(n_votes=3))
    run_judge(make_judge(server), make_task({"a": "t"}, criteria))
    assert "temperature 0" in caplog.text


def test_text_in_a_record_is_sent_as_it_is_and_cannot_break_the_request(server: Loopback) -> None:
    texts = {"a": '"}]} \\ \n\t\u2028 wrong', "b": "日本 🎌", "c": "a\\ud800"}
    scores = run_judge(make_judge(server), make_task(texts))
    assert scores["llm_score"].tolist() == [0, 1, 1]


def test_criteria_bound_to_another_model_are_refused(server: Loopback) -> None:
    with pytest.raises(InputError, match="bound to model 'other', but the judge is 'm'"):
        run_judge(make_judge(server), make_task({"a": "t"}, Criteria(criteria="c", model="other")))


def test_identity_tells_provider_model_sampling_and_template_apart(server: Loopback) -> None:
    criteria = Criteria(criteria="c")
    identities = [
        dict(make_judge(server).identity(criteria)),
        dict(make_judge(server, model="n").identity(criteria)),
        dict(make_judge("http://elsewhere/v1").identity(criteria)),
        dict(make_judge(server, provider="vllm").identity(criteria)),
        dict(make_judge(server).identity(Criteria(criteria="c", sampling=Sampling(temperature=1)))),
        dict(make_judge(server, max_output_tokens=64).identity(criteria)),
    ]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 6
    assert identities[0]["template"] == "1"
    own_limit = Criteria(criteria="c", sampling=Sampling(max_tokens=64))
    assert make_judge(server).identity(own_limit) == identities[-1]


def test_a_reply_that_was_cut_is_asked_for_again_once_its_limit_is_raised(tmp_path: Path) -> None:
    with VerdictCache(tmp_path / "c.sqlite") as cache:
        for limit, reply, status, n_calls in ((8, "The answer", "unparseable", 2), (800, '{"score": 1}', "scored", 1)):
            with loopback(LoopbackConfig(replies={"t": reply})) as server:
                judge = make_judge(server, max_output_tokens=limit)
                assert run_judge(judge, make_task({"a": "t"}), cache=cache)["status"].tolist() == [status]
                assert server.stats()["calls"] == n_calls  # a repair is tried


def test_the_estimate_before_a_run_matches_its_calls(server: Loopback) -> None:
    task = make_task(make_texts(7), Criteria(criteria="c", sampling=Sampling(temperature=1, n_votes=3)))
    judge = make_judge(server, input_price=1.0, output_price=1.0)
    estimate = judge.estimate(task)
    run_judge(judge, task)
    assert estimate.n_calls == stats_of(judge).n_calls == 21


def test_no_records_make_no_call() -> None:
    with loopback(LoopbackConfig()) as server:
        assert len(run_judge(make_judge(server), make_task({}))) == 0
        assert server.stats().get("calls", 0) == 0


def test_one_judge_serves_several_runs(server: Loopback) -> None:
    judge = make_judge(server)
    for _ in range(3):
        assert (run_judge(judge, make_task(make_texts(10)))["status"] == "scored").all()


def test_a_fatal_error_comes_after_what_was_judged_before_it() -> None:
    config = LoopbackConfig(errors={"answer 99": (401, "invalid_api_key")}, latency_s=0.001)
    seen = 0
    with loopback(config) as server:
        batches = make_judge(server, max_concurrency=1).judge(make_task(make_texts(200)))
        with pytest.raises(JudgeError, match="401"):  # noqa: PT012 what was yielded before counts
            for batch in batches:
                seen += len(batch)
    assert seen == 99


def test_the_key_is_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = LoopbackConfig(p_500=0.2, errors={"cursed": (400, f"bad-{KEY}")}, api_key=KEY)
    with loopback(config) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        judge = make_judge(server, api_key=SecretStr(KEY), transport="package")
        scores = run_judge(judge, make_task(make_texts(20, x="cursed")), cache=cache)
        pq.write_table(
            conforming.arrow_from_frame(scores, "judge_scores"), tmp_path / "scores.parquet", compression="none"
        )
        wrong = make_judge(server, api_key=SecretStr(f"{KEY}-wrong"))
        with pytest.raises(JudgeError) as caught:
            run_judge(wrong, make_task({"a": "t"}))
    assert scores["status"].tolist()[-1] == "failed"
    shown = [repr(judge), repr(judge.last_run), str(judge.identity(Criteria(criteria="c"))), caplog.text]
    shown += [repr(caught.value), str(caught.value.__cause__), str(caught.value.__context__), scores.to_json()]
    for text in shown:
        assert KEY not in text
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes(), file


def test_batches_come_as_verdicts_arrive_and_not_at_the_end() -> None:
    times: list[float] = []
    with loopback(LoopbackConfig(latency_s=0.1)) as server:
        start = time.perf_counter()
        judge = make_judge(server, max_concurrency=4)
        run_judge(judge, make_task(make_texts(60)), on_progress=lambda *_: times.append(time.perf_counter() - start))
    # 60 records, 4 at once, 0.1 s each, take 1.5 s; batches come five times a second
    assert len(times) >= 5
    assert times[1] < times[-1] / 2


def test_a_generator_of_batches_conforms_to_the_protocol(server: Loopback) -> None:
    task: JudgeTask = make_task({"a": "t"})
    batches = cast("list[pd.DataFrame]", list(make_judge(server).judge(task)))
    assert [len(batch) for batch in batches] == [1]
    assert list(batches[0].columns) == schemas.JUDGE_SCORES.names[:15]
