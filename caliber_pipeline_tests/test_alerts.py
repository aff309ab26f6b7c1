"""The alert sensor, against a receiver on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from caliber_pipeline.alerts import MAX_CHARS, WARNINGS_VARIABLE, WEBHOOK_VARIABLE, alert_sensor, post_webhook
from caliber_pipeline.assets.definition import one_line_failures
from caliber_pipeline.core.errors import JudgeError


class Receiver:
    """Keeps what is posted to it, and answers with `status`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.status == 200:
                    receiver.texts.append(body["text"])
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.url)
    yield receiver
    receiver.close()


@dg.asset
def fragile(context: dg.AssetExecutionContext) -> int:
    if context.run.tags.get("break"):
        raise dg.Failure("the records <changed>\nand more")
    return 1


@dg.asset_check(asset=fragile)
def no_drift(fragile: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="judge drift of -25.0%")


@dg.asset_check(asset=fragile)
def kappa_reaches_target(fragile: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="kappa 0.42 misses 0.6")


def tick(instance: dg.DagsterInstance, cursor: str | None) -> tuple[str | None, str]:
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    outcome = alert_sensor(context)
    assert isinstance(outcome, dg.SkipReason)
    return context.cursor, str(outcome.skip_message)


def test_failed_runs_and_checks_reach_the_webhook_once(receiver: Receiver, instance: dg.DagsterInstance) -> None:
    dg.materialize([fragile], instance=instance, tags={"break": "1"}, raise_on_error=False)
    cursor, message = tick(instance, None)
    assert message == "watching from now on"  # what was before the first look is old news

    dg.materialize([fragile, no_drift, kappa_reaches_target], instance=instance)
    failed = dg.materialize([fragile], instance=instance, tags={"break": "1"}, raise_on_error=False)
    cursor, message = tick(instance, cursor)

    assert message == "2 alerts posted"
    [text] = receiver.texts
    check, run = text.splitlines()
    assert check == ":warning: check no_drift failed on fragile (ERROR): judge drift of -25.0%"
    assert run.startswith(f":rotating_light: run {failed.run_id[:8]} of ")
    assert "the records &lt;changed&gt; and more" in run
    _, message = tick(instance, cursor)
    assert message == "nothing to tell"
    assert len(receiver.texts) == 1


def test_a_failed_run_is_told_with_its_version_and_in_the_error_s_own_words(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["v001"]))
    def judged() -> None:
        with one_line_failures():
            raise JudgeError("the provider refused batch b-1: no money left")

    cursor, _ = tick(instance, None)
    failed = dg.materialize([judged], instance=instance, partition_key="v001", raise_on_error=False)
    tick(instance, cursor)
    [text] = receiver.texts
    what, _, why = text.partition(" failed: ")
    assert what.startswith(f":rotating_light: run {failed.run_id[:8]} of ")
    assert what.endswith("[v001]")
    assert why == "the provider refused batch b-1: no money left"


def test_warnings_are_posted_where_they_are_asked_for(
    receiver: Receiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor, _ = tick(instance, None)
    dg.materialize([fragile, kappa_reaches_target], instance=instance)
    assert tick(instance, cursor)[1] == "nothing to tell"

    monkeypatch.setenv(WARNINGS_VARIABLE, "1")

    assert tick(instance, cursor)[1] == "1 alerts posted"
    assert receiver.texts == [":warning: check kappa_reaches_target failed on fragile (WARN): kappa 0.42 misses 0.6"]


def test_what_could_not_be_posted_is_posted_with_the_next_tick(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    cursor, _ = tick(instance, None)
    dg.materialize([fragile], instance=instance, tags={"break": "1"}, raise_on_error=False)
    receiver.status = 503

    with pytest.raises(RuntimeError, match=r"^the webhook answered 503$"):
        tick(instance, cursor)

    receiver.status = 200
    _, message = tick(instance, cursor)
    assert message == "1 alerts posted"


def test_without_a_webhook_the_sensor_says_how_to_name_one(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)

    assert tick(instance, None)[1] == f"set {WEBHOOK_VARIABLE} to be told"


def test_an_unreachable_webhook_is_an_error_without_its_address(receiver: Receiver) -> None:
    receiver.close()

    with pytest.raises(RuntimeError, match="could not be reached") as caught:
        post_webhook(receiver.url, "hello")
    assert "hook" not in str(caught.value).replace("webhook", "")
    with pytest.raises(RuntimeError, match=r"is no http\(s\) address"):
        post_webhook("file:///etc/passwd", "hello")


def test_many_alerts_at_once_come_in_several_messages_and_none_is_lost(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    @dg.multi_asset_check(specs=[dg.AssetCheckSpec(f"check_{i:02d}", asset="fragile") for i in range(40)])
    def many() -> Iterator[dg.AssetCheckResult]:
        for i in range(40):
            yield dg.AssetCheckResult(
                passed=False, asset_key="fragile", check_name=f"check_{i:02d}", description="<" * 30
            )

    cursor, _ = tick(instance, None)
    dg.materialize([fragile, many], instance=instance)
    _, message = tick(instance, cursor)

    assert message == "40 alerts posted"
    assert len(receiver.texts) > 1
    assert max(map(len, receiver.texts)) <= MAX_CHARS
    lines = [line for text in receiver.texts for line in text.splitlines()]
    assert sorted(line.split()[2] for line in lines) == [f"check_{i:02d}" for i in range(40)]


def test_long_texts_are_cut_to_what_slack_shows(receiver: Receiver) -> None:
    post_webhook(receiver.url, "x" * 10_000)

    assert len(receiver.texts[0]) == MAX_CHARS
