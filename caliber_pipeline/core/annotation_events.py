"""What annotators did, one event per change: the latest event of a person on a record is the state it is in."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final, Literal, get_args

import pyarrow as pa

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.schemas import UTC_TIMESTAMP

Action = Literal["annotate", "skip", "note", "undo", "import"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
SEVERITIES: Final = {"minor": 0.5, "normal": 1.0, "serious": 2.0, "critical": 4.0}
"""What a wrong verdict costs, by name: each step doubles, and no severity given counts as normal."""
MAX_NOTE_LENGTH: Final = 20_000  # characters; several pages, so that only a paste by mistake meets it
MAX_NAME_LENGTH: Final = 200

EVENTS: Final = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("annotator", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("score", pa.int8()),
        pa.field("is_skipped", pa.bool_(), nullable=False),
        pa.field("notes", pa.string()),
        pa.field("severity", pa.float64()),
        pa.field("criteria_version", pa.string()),
        pa.field("inclusion_probability", pa.float64()),
        pa.field("saw_judge", pa.bool_(), nullable=False),
        pa.field("saw_others", pa.bool_(), nullable=False),
        pa.field("record_fingerprint", pa.string()),
        pa.field("created_at", UTC_TIMESTAMP, nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class AnnotationEvent:
    """The whole state of one person's judgment on one record after a change; never only the difference.

    Attributes:
        event_id: Made by whoever made the change, so that sending it twice stores it once.
        record_id: The record.
        annotator: Who judged.
        action: What the person did; an undo carries the state that it brings back.
        score: 1 accept, 0 reject, None for no verdict.
        is_skipped: The person left the record without a verdict on purpose.
        notes: Why; None for no note.
        severity: What a wrong verdict here would cost (over 0); None counts as 1.
        criteria_version: The criteria that the person saw.
        inclusion_probability: With which the record was sampled, (0, 1]; None where it was not.
        saw_judge: The judge's verdict was on the screen.
        saw_others: Other people's verdicts were on the screen.
        record_fingerprint: Of the record's text that was on the screen; None where that is not known.
        created_at: When; None for the time at which the store receives it.
    """

    event_id: str
    record_id: str
    annotator: str
    action: Action
    score: int | None = None
    is_skipped: bool = False
    notes: str | None = None
    severity: float | None = None
    criteria_version: str | None = None
    inclusion_probability: float | None = None
    saw_judge: bool = False
    saw_others: bool = False
    record_fingerprint: str | None = None
    created_at: datetime | None = None

    @property
    def status(self) -> Literal["accepted", "rejected", "skipped", "open"]:
        """Where the record stands for this person after the event."""
        if self.score is not None:
            return "accepted" if self.score == 1 else "rejected"
        return "skipped" if self.is_skipped else "open"

    def is_about(self, fingerprint: str) -> bool:
        """Whether the text that was judged is the one of this fingerprint, as far as is known."""
        return self.record_fingerprint in {None, fingerprint}


EVENT_FIELDS: Final = tuple(field.name for field in fields(AnnotationEvent))


def check_event(event: AnnotationEvent) -> None:
    """Refuse an event that no person can have meant.

    Raises:
        InputError: naming the event's record and every fault.
    """
    faults = [
        f"{name} {getattr(event, name)[:40]!r} is blank, over {MAX_NAME_LENGTH} characters or holds a NUL"
        for name in ("event_id", "record_id", "annotator")
        if not _is_name(getattr(event, name))
    ]
    if event.action not in ACTIONS:
        faults.append(f"action '{event.action}' is none of {', '.join(ACTIONS)}")
    if event.score not in {None, 0, 1}:
        faults.append(f"score {event.score} is neither 0 nor 1")
    if event.score is not None and event.is_skipped:
        faults.append("it is both judged and skipped")
    if event.action in {"annotate", "import"} and event.score is None:
        faults.append(f"action '{event.action}' has no score")
    if event.action == "skip" and not event.is_skipped:
        faults.append("action 'skip' does not skip")
    if event.notes is not None and (len(event.notes) > MAX_NOTE_LENGTH or "\0" in event.notes):
        faults.append(f"the note is over {MAX_NOTE_LENGTH} characters or holds a NUL")
    if event.severity is not None and not 0 < event.severity < float("inf"):
        faults.append(f"severity {event.severity:g} is not over 0")
    if event.inclusion_probability is not None and not 0 < event.inclusion_probability <= 1:
        faults.append(f"inclusion_probability {event.inclusion_probability:g} is not in (0, 1]")
    if faults:
        raise InputError(f"annotation of record '{event.record_id[:40]}': {'; '.join(faults)}")


def find_reason_to_wait(n_changed: int, enough: int, *, is_running: bool) -> str | None:
    """Why new annotations do not call for a recalibration yet; None where they do."""
    if n_changed < enough:
        return f"{n_changed} of {enough} new or changed annotations since the last ingestion"
    return "a recalibration is under way" if is_running else None


def _is_name(text: str) -> bool:
    return bool(text.strip()) and len(text) <= MAX_NAME_LENGTH and "\0" not in text
