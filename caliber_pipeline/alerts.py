"""Tells people of what needs them, by a webhook: failed runs, and failed checks of severity ERROR, drift among them.

A check of severity WARN, such as kappa below its target, says what every evaluation may say; it wakes nobody unless
that is asked for.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Final

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

WEBHOOK_VARIABLE: Final = "CALIBER_ALERT_WEBHOOK"
WARNINGS_VARIABLE: Final = "CALIBER_ALERT_WARNINGS"  # 1: warnings too
TIMEOUT_S: Final = 10.0
INTERVAL_S: Final = 30
MAX_EVENTS: Final = 200  # per tick; what is left comes with the next one
MAX_CHARS: Final = 3000  # what Slack shows of one text
_WATCHED: Final = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION)


@dg.sensor(
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Posts failed runs, failed checks and drift alarms to the webhook that {WEBHOOK_VARIABLE} names.",
)
def alert_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Post what happened since the last tick; what could not be posted is tried again with the next one."""
    url = os.environ.get(WEBHOOK_VARIABLE)
    storage = context.instance.event_log_storage
    last = storage.get_maximum_record_id() or 0
    if not url or context.cursor is None:
        context.update_cursor(str(last))
        return dg.SkipReason(f"set {WEBHOOK_VARIABLE} to be told" if not url else "watching from now on")
    since = int(context.cursor)
    lines, seen = [], []
    for kind in _WATCHED:
        events = storage.get_logs_for_all_runs_by_log_id(since, dagster_event_type=kind, limit=MAX_EVENTS)
        seen.append(max(events) if len(events) == MAX_EVENTS else last)
        recent = ((i, event) for i, event in events.items() if i <= last)
        lines += [(i, line) for i, event in recent if (line := describe_event(event, context.instance)) is not None]
    upto = min(seen)
    texts = [line for i, line in sorted(lines) if i <= upto]
    for message in join_lines(texts):
        post_webhook(url, message)
    context.update_cursor(str(upto))
    return dg.SkipReason(f"{len(texts)} alerts posted" if texts else "nothing to tell")


def describe_event(event: dg.EventLogEntry, instance: dg.DagsterInstance) -> str | None:
    """One line about an event that needs somebody, None for others."""
    happened = event.dagster_event
    if happened is None:
        return None
    if happened.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = happened.asset_check_evaluation_data
        is_warning = check.severity == dg.AssetCheckSeverity.WARN
        if check.passed or (is_warning and os.environ.get(WARNINGS_VARIABLE) != "1"):
            return None
        where = f"{check.asset_key.to_user_string()}"
        where += f"[{check.partition}]" if getattr(check, "partition", None) else ""
        return (
            f":warning: check {check.check_name} failed on {where} ({check.severity.value}): {check.description or ''}"
        )
    reason = " ".join(_failure_reasons(happened)) or happened.message or "no reason given"
    run = instance.get_run_by_id(event.run_id)
    partition = run.tags.get(PARTITION_NAME_TAG) if run is not None else None
    of_version = f"[{partition}]" if partition else ""
    what = f"run {event.run_id[:8]} of {event.job_name}{of_version}"
    return f":rotating_light: {what} failed: {reason.splitlines()[0]}"


def _failure_reasons(happened: dg.DagsterEvent) -> Iterator[str]:
    data = happened.job_failure_data
    step = data.first_step_failure_event
    error = step.step_failure_data.error if step is not None else data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is not None:
        _, is_named, words = error.message.partition(f"{error.cls_name}: ")  # what it is called helps nobody here
        yield " ".join((words if is_named else error.message).split())


def join_lines(lines: list[str]) -> Iterator[str]:
    """The lines in as few messages as Slack shows whole, so that none is lost where many things fail at once."""
    message = ""
    for line in lines:
        if message and len(_escape(f"{message}\n{line}")) > MAX_CHARS:
            yield message
            message = line
        else:
            message = f"{message}\n{line}" if message else line
    if message:
        yield message


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post_webhook(url: str, text: str) -> None:
    """Post a text as Slack's incoming webhooks take it: {"text": …}.

    Raises:
        RuntimeError: it was not accepted. The URL, which is a secret, is not in the message.
    """
    escaped = _escape(text)
    body = json.dumps({"text": escaped if len(escaped) <= MAX_CHARS else escaped[: MAX_CHARS - 1] + "…"}).encode()
    if not url.startswith(("https://", "http://")):
        raise RuntimeError(f"{WEBHOOK_VARIABLE} is no http(s) address")
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - the scheme was checked
            pass
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"the webhook answered {error.code}") from None
    except OSError as error:
        raise RuntimeError(f"the webhook could not be reached: {getattr(error, 'reason', error)}") from None
