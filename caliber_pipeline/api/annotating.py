"""Keeps people's verdicts on records: several annotators, undo, history, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from caliber_pipeline.api.faults import describe_fault
from caliber_pipeline.api.fields import Item, each_item, index_by_id, parse_score
from caliber_pipeline.api.records import (
    Annotation,
    UploadedRecord,
    annotations_table,
    column_values,
    parse_annotation,
    rows_from_records,
)
from caliber_pipeline.core.arguments import INTEGER, ITEMS, NUMBER, TEXT, Kind, accepts
from caliber_pipeline.core.column_names import GOLD
from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


_SAVED: Final = Kind(lambda data: isinstance(data, Mapping) and "annotations" in data, "what to_dict returned")


@dataclass(frozen=True)
class AnnotationState:
    """How far the annotating is.

    Attributes:
        total: Records.
        annotated: Records with an annotation.
        remaining: Records without one.
        current_index: The record at hand.
        accepts: Records whose label is accept.
        rejects: Records whose label is reject.
        undecided: Annotated records without a label, as the annotators tie.
        annotators: Who annotated, sorted.
    """

    total: int
    annotated: int
    remaining: int
    current_index: int
    accepts: int
    rejects: int
    undecided: int
    annotators: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every record has an annotation."""
        return self.total > 0 and not self.remaining

    @property
    def progress(self) -> float:
        """Share of records with an annotation, 0 where there are no records."""
        return self.annotated / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            **asdict(self),
            "annotators": list(self.annotators),
            "is_complete": self.is_complete,
            "progress": self.progress,
        }


@dataclass(frozen=True)
class AnnotationChange:
    """One step of the history.

    Attributes:
        record_id: The record.
        annotator: Who.
        before: The verdict that was replaced, None for a first one.
        after: The verdict that was given.
    """

    record_id: str
    annotator: str
    before: Annotation | None
    after: Annotation


class AnnotationManager:
    """People's verdicts on a list of records.

    A verdict without an annotator is the label itself ('gold'); verdicts of named annotators make the label by majority
    where there is no gold one, and a tie leaves the record undecided.
    """

    @accepts(records=ITEMS, annotations=ITEMS)
    def __init__(
        self,
        records: Iterable[Item],
        annotations: Iterable[Annotation] = (),
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Start with records, and with the annotations that there are already.

        Args:
            records: Records as models, dicts or objects; a `human_score` among their fields is an annotation.
            annotations: More annotations; they replace those of the same annotator that came with the records.
            clock: The time, for the annotations' dates.

        Raises:
            InputError: ids repeat, a record has no query or no output, or an annotation is for an unknown record.
        """
        self._records = [_as_record(record) for record in each_item(records)]
        self._index_of = {record_id: i for i, record_id in enumerate(index_by_id(self._records))}
        self._is_open = bytearray(b"\1" * len(self._records))
        self._by_id: dict[str, dict[str, Annotation]] = {}
        self._history: list[AnnotationChange] = []
        self._current = 0
        self._revision = 0
        self._clock = clock
        for record in self._records:
            if record.human_score is not None:
                self._put(Annotation(record_id=record.record_id, score=record.human_score, notes=record.human_notes))
        for annotation in annotations:
            self._check(annotation.record_id)
            self._put(annotation)

    @property
    def records(self) -> list[UploadedRecord]:
        """The records, in their order."""
        return list(self._records)

    @property
    def annotations(self) -> list[Annotation]:
        """Every annotator's latest verdict on each record, in the records' order."""
        annotated = sorted(self._by_id, key=self._index_of.__getitem__)
        return [annotation for record_id in annotated for annotation in self._by_id[record_id].values()]

    @property
    def history(self) -> list[AnnotationChange]:
        """What was done, oldest first, less what was undone."""
        return list(self._history)

    @property
    def current_index(self) -> int:
        """The index of the record at hand."""
        return self._current

    @property
    def revision(self) -> int:
        """Grows with every change of the annotations."""
        return self._revision

    @property
    def progress(self) -> float:
        """Share of records with an annotation."""
        return len(self._by_id) / len(self._records) if self._records else 0.0

    @accepts(annotator=TEXT.or_none, severity=NUMBER.or_none)
    def annotate(
        self,
        record_id: str,
        score: int,
        notes: str | None = None,
        annotator: str | None = None,
        *,
        severity: float | None = None,
        criteria_version: str | None = None,
    ) -> Annotation:
        """Give or change a verdict.

        Args:
            record_id: The record.
            score: 1 accept, 0 reject.
            notes: Why.
            annotator: Who; without one the verdict is the label itself.
            severity: How bad a wrong verdict here would be, above 0.
            criteria_version: The criteria that the person saw.

        Raises:
            InputError: the record is unknown, the score is neither 0 nor 1, the severity is not above 0, or a text is
                none (half of a surrogate pair).
        """
        record_id = self._check(record_id)
        if severity is not None and not 0 < severity < float("inf"):
            raise InputError(f"the severity of '{record_id}' is {severity}; give a number above 0")
        annotation = parse_annotation(
            {
                "record_id": record_id,
                "score": parse_score(score, what=f"the score of '{record_id}'"),
                "notes": notes.strip() if isinstance(notes, str) else notes,
                "annotator": str(annotator or "").strip() or GOLD,
                "severity": severity,
                "created_at": self._clock(),
                "criteria_version": criteria_version,
            }
        )
        before = self._put(annotation)
        self._history.append(AnnotationChange(record_id, annotation.annotator, before, annotation))
        return annotation

    def undo(self) -> AnnotationChange | None:
        """Take the last step back and go to its record; None where there is nothing to undo."""
        if not self._history:
            return None
        change = self._history.pop()
        if change.before is not None:
            self._put(change.before)
        else:
            annotators = self._by_id[change.record_id]
            del annotators[change.annotator]
            self._revision += 1
            if not annotators:
                del self._by_id[change.record_id]
                self._is_open[self._index_of[change.record_id]] = 1
        self._current = self._index_of[change.record_id]
        return change

    def get_annotation(self, record_id: str, annotator: str | None = None) -> Annotation | None:
        """An annotator's verdict, or without an annotator what makes the label.

        That is the gold verdict, else a single annotator's, else the majority's (annotator 'consensus'); None where
        there is none or the annotators tie.
        """
        by_annotator = self._by_id.get(self._check(record_id), {})
        if annotator is not None or GOLD in by_annotator:
            return by_annotator.get(annotator or GOLD)
        if len(by_annotator) < 2:
            return next(iter(by_annotator.values()), None)
        score, notes = _labels(list(by_annotator.values())).get(str(record_id), (None, None))
        if score is None:
            return None
        return Annotation.model_validate(
            {"record_id": str(record_id), "score": score, "notes": notes, "annotator": "consensus"}
        )

    def get_annotations(self, record_id: str) -> list[Annotation]:
        """Every annotator's verdict on a record."""
        return list(self._by_id.get(self._check(record_id), {}).values())

    def get_annotations_dict(self) -> dict[str, int]:
        """The label of each record that has one, in the records' order."""
        labels = _labels(self.annotations)
        return {r: labels[r][0] for r in sorted(labels, key=self._index_of.__getitem__)}

    @accepts(index=INTEGER)
    def get_record(self, index: int) -> UploadedRecord:
        """The record at an index.

        Raises:
            InputError: there is none.
        """
        if not 0 <= index < len(self._records):
            raise InputError(f"no record at index {index}; there are {len(self._records)}, from 0")
        return self._records[index]

    def get_record_by_id(self, record_id: str) -> UploadedRecord:
        """The record of an id.

        Raises:
            InputError: there is none.
        """
        return self._records[self._index_of[self._check(record_id)]]

    def get_current_record(self) -> UploadedRecord | None:
        """The record at hand; None where there are no records."""
        return self._records[self._current] if self._records else None

    @accepts(index=INTEGER)
    def set_current_index(self, index: int) -> UploadedRecord:
        """Go to a record.

        Raises:
            InputError: there is none at the index.
        """
        record = self.get_record(index)
        self._current = index
        return record

    def get_next_unannotated(self) -> UploadedRecord | None:
        """The next record without an annotation, from the one at hand on and then from the start; None at the end."""
        found = self._is_open.find(1, self._current)
        if found < 0:
            found = self._is_open.find(1)
        return self._records[found] if found >= 0 else None

    def index_of(self, record_id: str) -> int:
        """A record's index.

        Raises:
            InputError: the record is unknown.
        """
        return self._index_of[self._check(record_id)]

    def is_complete(self) -> bool:
        """Whether there are records and every one has an annotation."""
        return bool(self._records) and len(self._by_id) == len(self._records)

    def get_state(self) -> AnnotationState:
        """How far the annotating is."""
        labels = [score for score, _ in _labels(self.annotations).values()]
        annotators = {name for by_annotator in self._by_id.values() for name in by_annotator}
        n_annotated = len(self._by_id)
        return AnnotationState(
            total=len(self._records),
            annotated=n_annotated,
            remaining=len(self._records) - n_annotated,
            current_index=self._current,
            accepts=sum(labels),
            rejects=len(labels) - sum(labels),
            undecided=n_annotated - len(labels),
            annotators=tuple(sorted(annotators)),
        )

    def table(self) -> pd.DataFrame:
        """The annotations as a table of the `annotations` schema."""
        return annotations_table(self.annotations)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"records": [record.model_dump(mode="json") for record in self._records], **self.annotations_to_dict()}

    def annotations_to_dict(self) -> dict[str, Any]:
        """All but the records, ready for JSON."""
        return {
            "annotations": [annotation.model_dump(mode="json") for annotation in self.annotations],
            "history": [
                {
                    "before": change.before.model_dump(mode="json") if change.before else None,
                    "after": change.after.model_dump(mode="json"),
                }
                for change in self._history
            ],
            "current_index": self._current,
        }

    @classmethod
    @accepts(data=_SAVED, records=ITEMS.or_none)
    def from_dict(cls, data: Mapping[str, Any], records: Iterable[Item] | None = None) -> AnnotationManager:
        """What `to_dict` was made from.

        Args:
            data: The dict.
            records: The records, where the dict holds none.
        """
        kept = [_as_record(r) for r in (data["records"] if records is None else records)]
        manager = cls([record.model_copy(update={"human_score": None}) for record in kept])
        manager._records = kept
        for annotation in data["annotations"]:
            manager._put(Annotation.model_validate(annotation))
        for change in data["history"]:
            after = Annotation.model_validate(change["after"])
            before = Annotation.model_validate(change["before"]) if change["before"] else None
            manager._history.append(AnnotationChange(after.record_id, after.annotator, before, after))
        manager._current = int(data["current_index"])
        return manager

    def _put(self, annotation: Annotation) -> Annotation | None:
        by_annotator = self._by_id.setdefault(annotation.record_id, {})
        before = by_annotator.get(annotation.annotator)
        by_annotator[annotation.annotator] = annotation
        self._is_open[self._index_of[annotation.record_id]] = 0
        self._revision += 1
        return before

    def _check(self, record_id: str) -> str:
        if str(record_id) not in self._index_of:
            first = ", ".join(list(self._index_of)[:3])
            raise InputError(f"no record '{record_id}' among {len(self._records)} records ({first}, …)")
        return str(record_id)


def _labels(annotations: list[Annotation]) -> dict[str, tuple[int, str | None]]:
    """Score and notes of each record with a label."""
    if not annotations:
        return {}
    if len({annotation.record_id for annotation in annotations}) == len(annotations):
        return {a.record_id: (a.score, a.notes) for a in annotations}
    from caliber_pipeline.core.labels import resolve_labels

    labels = resolve_labels(annotations_table(annotations))
    decided = labels[labels["human_score"].notna()]
    columns = (column_values(decided[name]) for name in ("record_id", "human_score", "human_notes"))
    return {record_id: (score, note) for record_id, score, note in zip(*columns, strict=True)}


def _as_record(record: Item) -> UploadedRecord:
    if isinstance(record, UploadedRecord):
        return record
    row = rows_from_records([record])[0]
    missing = [name for name in ("query", "output") if row[name] is None]
    if missing:
        raise InputError(f"record '{row['record_id']}' has no {' and no '.join(missing)}")
    names = set(UploadedRecord.model_fields)
    known = {name: value for name, value in row.items() if name in names}
    other = {str(name): None if value is None else str(value) for name, value in row.items() if name not in names}
    for name in ("human_score", "llm_score"):
        if known.get(name) is not None:
            known[name] = parse_score(known[name], what=f"{name} of '{row['record_id']}'")
    try:
        return UploadedRecord.model_validate({**known, "metadata": other})
    except ValidationError as error:
        raise InputError(f"record '{row['record_id']}': {describe_fault(error)}") from error
