"""Judging through provider batches: split, polled, matched, repaired, resumed, and at half the price."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from caliber_pipeline.core.criteria import Criteria, Sampling
from caliber_pipeline.core.errors import InputError, JudgeError, SpendingCapError
from caliber_pipeline.core.pricing import pico
from caliber_pipeline.judges.batch_judge import BatchJudge, BatchLimits, StillUnderWayError
from caliber_pipeline.judges.budget import Budget
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.batch_folder import BatchFolder, StoredBatch
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import Endpoint, LoopbackConfig
from caliber_pipeline_tests.judges.batch_server import BatchConfig, BatchServer, batch_server
from caliber_pipeline_tests.judges.scripted import make_task

TEXTS = {f"r{number}": f"answer {number}" for number in range(10)}
HOW = ["prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "n_attempts", "is_cached"]


class StoppedError(Exception):
    """The process ends here."""


def make_judge(server: BatchServer, folder: Path, *, max_looks: int = 100, **limits: Any) -> BatchJudge:  # noqa: ANN401
    settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url, max_retries=1)
    n_looks = 0

    def sleep(_: float) -> None:
        nonlocal n_looks
        n_looks += 1
        if n_looks >= max_looks:
            raise StoppedError

    return BatchJudge(OpenAIJudge(settings), settings, folder, limits=BatchLimits(**limits), sleep=sleep)


def assert_as_live(server: BatchServer, found: pd.DataFrame) -> None:
    """The loopback's verdict depends on the record alone: batches must give what single calls give."""
    settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url)
    live = run_judge(OpenAIJudge(settings), make_task(TEXTS))
    pd.testing.assert_frame_equal(found.drop(columns=HOW), live.drop(columns=HOW))


def test_batches_give_the_verdicts_of_single_calls_at_half_the_price(tmp_path: Path) -> None:
    with batch_server() as server:
        judge = make_judge(server, tmp_path)
        found = run_judge(judge, make_task(TEXTS))
        assert server.n_single == 0
        assert_as_live(server, found)
        # 300 tokens at 2.50 and 20 at 10.00 US dollars per million, halved
        assert found["cost_usd"].tolist() == pytest.approx([(300 * 2.5 + 20 * 10) / 1e6 / 2] * 10)
        whole = OpenAIJudge(OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url)).estimate(make_task(TEXTS))
        assert whole.cost_usd is not None
        assert judge.estimate(make_task(TEXTS)).cost_usd == pytest.approx(whole.cost_usd / 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("limits", "n_batches"), [({"max_requests": 4}, 3), ({"max_bytes": 1}, 10), ({}, 1)])
def test_files_keep_to_the_provider_s_limits(tmp_path: Path, limits: dict[str, int], n_batches: int) -> None:
    with batch_server() as server:
        found = run_judge(make_judge(server, tmp_path, **limits), make_task(TEXTS))
        assert len(server.batches) == n_batches
        assert_as_live(server, found)


def test_lines_that_failed_or_said_nothing_are_asked_one_by_one(tmp_path: Path) -> None:
    with batch_server(BatchConfig(fails="answer 3", breaks="answer 7")) as server:
        found = run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert server.n_single == 2
        assert_as_live(server, found)


def test_a_line_that_said_nothing_is_paid_for_all_the_same(tmp_path: Path) -> None:
    budget = Budget.of(5.0)
    with batch_server(BatchConfig(breaks="answer 7")) as server:
        settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url, max_cost_usd=5.0)
        judge = BatchJudge(OpenAIJudge(settings, budget), settings, tmp_path, sleep=lambda _: None)
        run_judge(judge, make_task(TEXTS))
    # 300 tokens at 2.50 and 20 at 10.00 US dollars per million: ten lines at half of it, and one single call
    assert budget.spent == pico((300 * 2.5 + 20 * 10) / 1e6) * 6


def test_a_reply_may_hold_line_separators_that_are_no_line_ends(tmp_path: Path) -> None:
    said = json.dumps({"reasoning": "one\u2028two\x85three", "score": 1}, ensure_ascii=False)
    with batch_server() as server:
        server.endpoint = Endpoint(LoopbackConfig(replies={"answer 3": said}))
        found = run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert server.n_single == 0
        assert_as_live(server, found)


def test_what_expired_is_asked_one_by_one(tmp_path: Path) -> None:
    with batch_server(BatchConfig(ends=("expired",), n_answered=4)) as server:
        found = run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert server.n_single == 6
        assert_as_live(server, found)


def test_what_failed_in_one_batch_is_asked_at_once_while_another_is_under_way(tmp_path: Path) -> None:
    told: list[str] = []
    config = BatchConfig(n_looks=0, ends=("expired", "completed"), n_answered=3)
    with batch_server(config) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        judge = make_judge(server, tmp_path / "b", max_requests=5)
        judge.waits, judge.tell = False, told.append
        server.looks = _Late(("batch-1",))
        with pytest.raises(StillUnderWayError, match="1 batch is under way at the provider, of 5 records, sent 20"):
            run_judge(judge, make_task(TEXTS), cache=cache)
        assert server.n_single == 2
        server.looks = dict.fromkeys(server.batches, 0)
        assert_as_live(server, run_judge(judge, make_task(TEXTS), cache=cache))
        assert len(server.batches) == 2
    assert next(line for line in told if "expired" in line).endswith(
        "expired: 2 of its 5 records got no answer, and are asked one by one, at the full price"
    )


class _Late(dict[str, int]):
    """Looks that never get anywhere for some batches."""

    def __init__(self, late: tuple[str, ...]) -> None:
        super().__init__()
        self.late = late

    def __setitem__(self, name: str, n: int) -> None:
        super().__setitem__(name, -1_000 if name in self.late else n)


def test_a_wrong_key_is_the_provider_s_word_without_the_key(tmp_path: Path) -> None:
    with batch_server(BatchConfig(status=401)) as server:
        where = f"^batches of custom at {server.base_url}: "
        judge = make_judge(server, tmp_path)
        with pytest.raises(JudgeError, match=where):
            run_judge(judge, make_task(TEXTS))


def test_what_was_cancelled_is_not_asked_again_until_the_next_run(tmp_path: Path) -> None:
    with batch_server(BatchConfig(ends=("cancelled", "completed"), n_answered=4)) as server:
        with VerdictCache(tmp_path / "c.sqlite") as cache:
            found = run_judge(make_judge(server, tmp_path / "b"), make_task(TEXTS), cache=cache)
            assert found["status"].value_counts().to_dict() == {"failed": 6, "scored": 4}
            assert set(found["failure_reason"].dropna()) == {"the batch was cancelled before it came to this record"}
            assert server.n_single == 0
            again = run_judge(make_judge(server, tmp_path / "b"), make_task(TEXTS), cache=cache)
        assert server.n_single == 0
        assert_as_live(server, again)


def test_a_batch_that_the_provider_refuses_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    with batch_server(BatchConfig(ends=("failed", "completed"))) as server:
        with pytest.raises(JudgeError, match="refused batch batch-0 of 10 records: too many tokens queued; run"):
            run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert_as_live(server, run_judge(make_judge(server, tmp_path), make_task(TEXTS)))


def test_a_batch_refused_for_want_of_room_is_sent_again_even_where_the_others_have_ended_by_then(
    tmp_path: Path,
) -> None:
    other = StoredBatch("other", 1, "2026-01-01T00:00:00+00:00", "batch-other")
    with batch_server(BatchConfig(max_open=0)) as server:
        judge = make_judge(server, tmp_path)
        BatchFolder(tmp_path).save(other, ["a line of somebody else"])

        def end_the_other(_: str) -> None:
            BatchFolder(tmp_path).forget(other)
            server.config.max_open = 1

        judge.tell = end_the_other  # called when a batch was sent, before it is looked at
        assert_as_live(server, run_judge(judge, make_task(TEXTS)))
        assert len(server.batches) == 2


@pytest.mark.parametrize("waits", [True, False])
def test_a_batch_that_alone_is_too_much_ends_the_run_with_the_provider_s_reason(tmp_path: Path, *, waits: bool) -> None:
    with batch_server(BatchConfig(max_open=0)) as server:
        judge = make_judge(server, tmp_path)
        judge.waits = waits
        with pytest.raises(JudgeError, match="batch-0 of 10 records: too many tokens queued; run again when"):
            run_judge(judge, make_task(TEXTS))
        assert len(server.batches) == 1


def test_a_restart_takes_up_the_batches_under_way_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    with batch_server(BatchConfig(n_looks=3)) as server:
        with pytest.raises(StoppedError):
            run_judge(make_judge(server, tmp_path, max_looks=1, max_requests=4), make_task(TEXTS))
        assert len(server.batches) == 3
        found = run_judge(make_judge(server, tmp_path, max_requests=4), make_task(TEXTS))
        assert len(server.batches) == 3
        assert server.n_single == 0
        assert_as_live(server, found)


def test_a_batch_whose_id_was_not_noted_is_found_at_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = BatchFolder.save

    def save_or_die(self: BatchFolder, batch: Any, custom_ids: Any) -> None:  # noqa: ANN401
        if batch.batch_id is not None:
            raise StoppedError
        save(self, batch, custom_ids)

    with batch_server() as server:
        with monkeypatch.context() as patch:
            patch.setattr(BatchFolder, "save", save_or_die)
            with pytest.raises(StoppedError):
                run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert len(server.batches) == 1
        assert_as_live(server, run_judge(make_judge(server, tmp_path), make_task(TEXTS)))
        assert len(server.batches) == 1


def test_a_batch_that_never_left_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise StoppedError

    with batch_server() as server:
        with monkeypatch.context() as patch:
            patch.setattr("openai.resources.batches.Batches.create", die)
            with pytest.raises(StoppedError):
                run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert_as_live(server, run_judge(make_judge(server, tmp_path), make_task(TEXTS)))
        assert len(server.batches) == 1


@pytest.mark.parametrize("end", ["completed", "expired", "cancelled"])
def test_what_was_uploaded_is_deleted_once_the_verdicts_are_taken(tmp_path: Path, end: str) -> None:
    with batch_server(BatchConfig(n_looks=1, ends=(end,))) as server:
        judge = make_judge(server, tmp_path, max_requests=4)
        judge.waits = False
        with pytest.raises(StillUnderWayError):
            run_judge(judge, make_task(TEXTS))
        uploaded = {batch["input_file_id"] for batch in server.batches.values()}
        assert set(server.files) == uploaded
        assert len(uploaded) == 3
        run_judge(judge, make_task(TEXTS))
        assert server.files
        assert uploaded.isdisjoint(server.files)


@pytest.mark.parametrize(
    ("config", "reason"),
    [(BatchConfig(max_open=0), "too many tokens queued"), (BatchConfig(refuses=True), "no batches of this model")],
)
def test_what_was_uploaded_for_a_batch_that_the_provider_refuses_is_deleted(
    tmp_path: Path, config: BatchConfig, reason: str
) -> None:
    with batch_server(config) as server:
        with pytest.raises(JudgeError, match=reason):
            run_judge(make_judge(server, tmp_path), make_task(TEXTS))
        assert (server.n_files, server.files) == (1, {})


def test_a_file_that_the_provider_does_not_delete_costs_a_line_and_no_verdict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with batch_server(BatchConfig(deletes=False)) as server:
        assert_as_live(server, run_judge(make_judge(server, tmp_path), make_task(TEXTS)))
        assert "file-0" in server.files
    assert caplog.messages == ["file-0 is still at the provider (NotFoundError); delete it there"]
    assert not list(tmp_path.iterdir())


def test_other_criteria_do_not_take_up_each_other_s_batches(tmp_path: Path) -> None:
    with batch_server() as server:
        with pytest.raises(StoppedError):
            run_judge(make_judge(server, tmp_path, max_looks=1), make_task(TEXTS))
        run_judge(make_judge(server, tmp_path), make_task(TEXTS, Criteria(criteria="be brief")))
        assert len(server.batches) == 2
        assert len(list(tmp_path.iterdir())) == 1


def test_a_batch_whose_results_are_gone_says_what_to_remove(tmp_path: Path) -> None:
    with batch_server(BatchConfig(n_looks=0)) as server:
        judge = make_judge(server, tmp_path)
        judge.waits = False
        server.looks = _Late(("batch-0",))
        with pytest.raises(StillUnderWayError):
            run_judge(judge, make_task(TEXTS))
        server.looks = {"batch-0": 0}
        server._look("batch-0")
        del server.files["file-1"]
        gone = "has no results any more of batch batch-0, sent 2.* 10 records asked again remove (.*)"
        with pytest.raises(JudgeError, match=gone) as error:
            run_judge(judge, make_task(TEXTS))
        Path(str(error.value).rpartition("remove ")[2]).unlink()
        judge.waits = True
        assert_as_live(server, run_judge(judge, make_task(TEXTS)))


def test_several_votes_are_not_asked_for_in_batches(tmp_path: Path) -> None:
    criteria = Criteria(criteria="c", sampling=Sampling(n_votes=3, temperature=0.7))
    with batch_server() as server, pytest.raises(InputError, match="several votes"):
        run_judge(make_judge(server, tmp_path), make_task(TEXTS, criteria))


def test_a_spending_cap_is_held_against_the_estimate_before_anything_is_sent(tmp_path: Path) -> None:
    with batch_server() as server:
        settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url, max_cost_usd=0.0001)
        judge = BatchJudge(OpenAIJudge(settings), settings, tmp_path)
        with pytest.raises(SpendingCapError, match=r"about 0\.0\d+ US dollars, over the spending cap of 0\.0001"):
            run_judge(judge, make_task(TEXTS))
        assert not server.files


def test_what_others_spent_of_the_cap_is_not_there_for_a_batch(tmp_path: Path) -> None:
    with batch_server() as server:
        settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url, max_cost_usd=5.0)
        budget = Budget.of(5.0)
        judge = BatchJudge(OpenAIJudge(settings, budget), settings, tmp_path)
        budget.settle(0, pico(4.9999))
        with pytest.raises(SpendingCapError, match=r"over the spending cap of 5, of which 4\.9999 are spent; raise it"):
            run_judge(judge, make_task(TEXTS))
        assert not server.files


@pytest.mark.parametrize(
    ("spent", "reserved", "shown"),
    [
        (0.0, 4.9999, "4.9999 are set aside for what is under way"),
        (0.5, 4.4999, "0.5000 are spent and 4.4999 are set aside for what is under way"),
    ],
)
def test_what_is_set_aside_for_batches_just_sent_is_named_where_another_does_not_fit(
    tmp_path: Path, spent: float, reserved: float, shown: str
) -> None:
    with batch_server() as server:
        settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url, max_cost_usd=5.0)
        budget = Budget.of(5.0)
        budget.settle(0, pico(spent))
        assert budget.take(pico(reserved))
        judge = BatchJudge(OpenAIJudge(settings, budget), settings, tmp_path)
        with pytest.raises(SpendingCapError, match=f"over the spending cap of 5, of which {shown}; raise it"):
            run_judge(judge, make_task(TEXTS))
        assert not server.files
