"""Which of the verdicts that a file brings are news, and the events that they become."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ImportedRow:
    """What a file says of one record.

    Attributes:
        values: A row of the `annotations` schema without `is_gold`.
        told: The fingerprint of the text that was judged, where the file tells it.
        current: That of the record's text at the import, where it is known.
    """

    values: Mapping[str, Any]
    told: str | None = None
    current: str | None = None

    def repeats(self, event: AnnotationEvent) -> bool:
        """Whether the row says what was imported before.

        A row that does not tell its text is taken for the verdict on the text of then, not for one on the text of now:
        a file that grows comes again with all its rows, whatever has become of the records.
        """
        is_same_text = self.told is None or self.told == event.record_fingerprint
        return is_same_text and all(self.values[name] == getattr(event, name) for name in _SAID)


def select_news(rows: Iterable[ImportedRow], latest: Mapping[Place, AnnotationEvent]) -> list[AnnotationEvent]:
    """The events of the rows that say something else than the import before them at the same place.

    Args:
        rows: What the file says.
        latest: The last imported event of each place.
    """
    known, news = dict(latest), []
    for row in rows:
        place = (row.values["record_id"], row.values["annotator"], row.values["created_at"] or EPOCH)
        before = known.get(place)
        if before is None or not row.repeats(before):
            known[place] = _event(row, before)
            news.append(known[place])
    return news


def _event(row: ImportedRow, before: AnnotationEvent | None) -> AnnotationEvent:
    said = [None if value is None else str(value) for value in row.values.values()]
    # with the event before in its id, a verdict that is set back is not taken for the one it was at first
    event_id = digest("import", *said, *([] if before is None else [before.event_id]))
    return AnnotationEvent(
        event_id=event_id,
        action="import",
        record_fingerprint=row.told or row.current,
        **{**row.values, "created_at": row.values["created_at"] or EPOCH},
    )
