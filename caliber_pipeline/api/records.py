"""The records and annotations that callers of the Python API hold in their hands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from caliber_pipeline.api.faults import describe_fault
from caliber_pipeline.api.fields import Item, each_item, parse_id, parse_score, read_field, read_id, read_verdict
from caliber_pipeline.core.arguments import ITEMS, accepts
from caliber_pipeline.core.column_names import GOLD, RECORD_ALIASES
from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_KNOWN: Final = frozenset({"metadata"}.union(*RECORD_ALIASES.values()))


class UploadedRecord(BaseModel):
    """One query and answer, with what came along; made from any of the names that people use for these.

    Attributes:
        record_id: Unique among the records.
        query: What the judged system was asked.
        output: What it answered.
        reference: A known good answer.
        human_score: The gold label, 1 accept, 0 reject.
        human_notes: The note that came with it.
        llm_score: A recorded judge's verdict.
        llm_reasoning: Its reasoning.
        metadata: Every other column, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_id: str
    query: str
    output: str
    reference: str | None = None
    human_score: Literal[0, 1] | None = None
    human_notes: str | None = None
    llm_score: Literal[0, 1] | None = None
    llm_reasoning: str | None = None
    metadata: dict[str, str | None] = {}

    @model_validator(mode="before")
    @classmethod
    def _use_aliases(cls, data: Any) -> Any:  # noqa: ANN401 - Pydantic hands over what it was given
        if not isinstance(data, Mapping):
            return data
        ours = {alias: name for name, aliases in RECORD_ALIASES.items() for alias in aliases}
        return {ours.get(key, key): value for key, value in data.items()}

    @property
    def id(self) -> str:
        """The record's id."""
        return self.record_id

    @property
    def actual_output(self) -> str:
        """The output."""
        return self.output

    @property
    def expected_output(self) -> str | None:
        """The reference."""
        return self.reference


class Annotation(BaseModel):
    """A person's verdict on a record.

    Attributes:
        record_id: The record.
        score: 1 accept, 0 reject.
        notes: Why.
        annotator: Who; 'gold' where the verdict is the label itself.
        severity: How bad a wrong verdict here would be.
        created_at: When, in UTC.
        criteria_version: The criteria that the person saw.
        inclusion_probability: With which the record was drawn, where it was drawn at random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_id: str
    score: Literal[0, 1]
    notes: str | None = None
    annotator: str = GOLD
    severity: float | None = None
    created_at: datetime | None = None
    criteria_version: str | None = None
    inclusion_probability: float | None = None

    @field_validator("notes")
    @classmethod
    def _blank_is_none(cls, notes: str | None) -> str | None:
        return notes if notes and notes.strip() else None

    @field_validator("notes", "annotator")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None:
            text.encode()  # half of a surrogate pair could not be stored
        return text

    @property
    def human_score(self) -> int:
        """The score."""
        return self.score

    @property
    def human_notes(self) -> str | None:
        """The notes."""
        return self.notes


def records_from_table(table: pd.DataFrame) -> list[UploadedRecord]:
    """One model per row of a `records` table."""
    from caliber_pipeline.core.conforming import arrow_from_frame

    names = [name for name in UploadedRecord.model_fields if name != "metadata"]
    arrow = arrow_from_frame(table, "records")
    columns = [arrow.column(name).to_pylist() for name in names]
    metadata = (dict(pairs) for pairs in arrow.column("metadata").to_pylist())
    # the table was checked row by row when it was made: checking again would triple the time
    return [
        UploadedRecord.model_construct(**dict(zip(names, row, strict=True)), metadata=other)
        for row, other in zip(zip(*columns, strict=True), metadata, strict=True)
    ]


@accepts(records=ITEMS)
def rows_from_records(records: Iterable[Item]) -> list[dict[str, Any]]:
    """Each record as a dict under our names, from dicts or objects with any of the aliases.

    A dict's other keys and the items of `metadata` stand beside them.
    """
    rows = []
    for record in each_item(records):
        row = {name: read_field(record, name) for name in RECORD_ALIASES}
        row["record_id"] = read_id(record)
        other = read_field(record, "metadata")
        others = dict(other) if isinstance(other, Mapping) else {}
        if isinstance(record, Mapping):
            others |= {str(key): value for key, value in record.items() if key not in _KNOWN}
        rows.append(others | row)
    return rows


def parse_annotation(data: Mapping[str, Any]) -> Annotation:
    """An annotation from our names.

    Raises:
        InputError: a value does not fit, as notes that are no text.
    """
    try:
        return Annotation.model_validate(data)
    except ValidationError as error:
        raise InputError(f"the annotation of '{data['record_id']}': {describe_fault(error)}") from error


@accepts(annotations=ITEMS)
def annotations_from(annotations: Mapping[Any, Any] | Iterable[Item]) -> list[Annotation]:
    """Annotations from `{id: 0/1}`, `{id: Annotation}`, or a list of annotations as dicts or objects.

    Raises:
        InputError: a score is neither 0 nor 1, or an item has no id.
    """
    if isinstance(annotations, Mapping):
        return [_annotation(parse_id(key), value) for key, value in annotations.items()]
    return [_annotation(read_id(item), item) for item in each_item(annotations)]


def annotations_table(annotations: Sequence[Annotation]) -> pd.DataFrame:
    """The `annotations` table of these."""
    import pyarrow as pa

    from caliber_pipeline.core.conforming import frame_from_arrow
    from caliber_pipeline.core.schemas import ANNOTATIONS

    columns = {name: [getattr(a, name) for a in annotations] for name in Annotation.model_fields}
    columns["is_gold"] = [a.annotator == GOLD for a in annotations]
    return frame_from_arrow(pa.table({name: columns[name] for name in ANNOTATIONS.names}, schema=ANNOTATIONS))


def annotations_from_table(table: pd.DataFrame) -> list[Annotation]:
    """One model per row of an `annotations` table."""
    from caliber_pipeline.core.conforming import arrow_from_frame

    rows = arrow_from_frame(table, "annotations").select(list(Annotation.model_fields)).to_pylist()
    return [Annotation.model_construct(**row) for row in rows]


def column_values(column: pd.Series) -> list[Any]:
    """A column's values as plain Python ones, None where missing."""
    import pyarrow as pa

    return list(pa.array(column, from_pandas=True).to_pylist())


def text_rows(columns: Mapping[str, Sequence[Any]]) -> tuple[pa.Table, dict[int, str]]:
    """Columns of any values as text, the form in which files are read; None, NaN and blank are null.

    Returns:
        The rows, and by row why it holds what is no text: half of a surrogate pair, which is replaced.
    """
    import pyarrow as pa

    arrays, faults = {}, dict[int, str]()
    for name, values in columns.items():
        texts = list(map(_to_text, values))
        try:
            arrays[name] = pa.array(texts, pa.string())
        except UnicodeEncodeError:
            clean = [None if text is None else text.encode("utf-8", "backslashreplace").decode() for text in texts]
            arrays[name] = pa.array(clean, pa.string())
            wrong = (i for i in range(len(texts)) if clean[i] != texts[i])
            faults |= dict.fromkeys(wrong, f"{name} is no Unicode text: it holds half of a surrogate pair")
    return pa.table(arrays), faults


def _to_text(value: object) -> str | None:
    import json

    import numpy as np
    import pandas as pd

    if isinstance(value, str):
        return value or None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if value is None or pd.isna(value):  # type: ignore[call-overload]  # any scalar will do
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # integer columns with gaps arrive as floats
    return str(value)


def _annotation(record_id: str, value: Item) -> Annotation:
    if isinstance(value, Annotation):
        return value.model_copy(update={"record_id": record_id})
    found = read_verdict(value)
    score = found.pop("score")
    if score is None and not isinstance(value, Mapping):
        score = value  # the score itself
    return parse_annotation(
        {
            **{name: each for name, each in found.items() if each is not None},
            "record_id": record_id,
            "score": parse_score(score, what=f"the score of '{record_id}'"),
        }
    )
