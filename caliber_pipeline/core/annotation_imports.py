"""Which of the verdicts that a file brings are news, and the events that they become."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from caliber_pipeline.core.annotation_events import AnnotationEvent
from caliber_pipeline.core.fingerprints import digest

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)  # also stands for an imported annotation without a time
_SAID: Final = ("score", "notes", "severity", "criteria_version", "inclusion_probability")

Place = tuple[str, str, datetime]
"""Record, annotator and time: of what one person said there at one time, the last import counts."""


def place_of(event: AnnotationEvent) -> Place:
    """Where an imported event stands."""
    return event.record_id, event.annotator, event.created_at or EPOCH


def select_news(
    rows: Iterable[tuple[Mapping[str, Any], str | None]], latest: Mapping[Place, AnnotationEvent]
) -> list[AnnotationEvent]:
    """The events of the rows that say something else than the import before them at the same place.

    Args:
        rows: Each a row of the `annotations` schema without `is_gold`, and the fingerprint of what was judged.
        latest: The last imported event of each place.
    """
    known, news = dict(latest), []
    for row, fingerprint in rows:
        place = (row["record_id"], row["annotator"], row["created_at"] or EPOCH)
        before = known.get(place)
        if before is None or any(row[name] != getattr(before, name) for name in _SAID):
            known[place] = _event(row, fingerprint, before)
            news.append(known[place])
    return news


def _event(row: Mapping[str, Any], fingerprint: str | None, before: AnnotationEvent | None) -> AnnotationEvent:
    said = [None if value is None else str(value) for value in row.values()]
    # with the event before in its id, a verdict that is set back is not taken for the one it was at first
    event_id = digest("import", *said, *([] if before is None else [before.event_id]))
    return AnnotationEvent(
        event_id=event_id,
        action="import",
        record_fingerprint=fingerprint,
        **{**row, "created_at": row["created_at"] or EPOCH},
    )
