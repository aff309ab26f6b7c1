"""Annotations in the JSON of Label Studio and of Argilla, both ways, and as CSV."""

import csv
import io
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.column_names import ANNOTATION_ALIASES, RECORD_ALIASES
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.judged_texts import JUDGED, RECORD_FINGERPRINT
from caliber_pipeline.core.schemas import ANNOTATIONS

Format = Literal["csv", "label-studio", "argilla"]
FOREIGN_ROWS: Final = pa.schema([pa.field(name, pa.string()) for name in (*ANNOTATION_ALIASES, *JUDGED)])
"""What the foreign formats are read into: text, one row per judgment, for `parse_annotations` to check."""

_VERDICTS: Final = {1: "accept", 0: "reject"}
_TEXTS: Final = ("query", "output", "reference")
_NAMES: Final = uuid.UUID(
    "6f1c1f0e-52c8-5a52-9a0e-3a7d0c1f7a10"
)  # Argilla knows people by UUID: ours are made from names
_ANNOTATORS: Final = "annotators"


def detect_format(content: object, *, source: str) -> Format:
    """Which tool wrote a JSON export.

    Raises:
        InputError: neither did.
    """
    entries = content if isinstance(content, list) else []
    keys = set().union(*(entry.keys() for entry in entries[:100] if isinstance(entry, Mapping)))
    if {"fields", "responses"} <= keys:
        return "argilla"
    if "data" in keys and keys & {"annotations", "completions"}:
        return "label-studio"
    raise InputError(
        f"{source}: is neither a Label Studio export (a list of tasks with data and annotations) nor one of Argilla "
        "(a list of records with fields and responses); export it as JSON, or give CSV, JSONL or Parquet"
    )


def parse_label_studio(tasks: Sequence[Any]) -> tuple[pa.Table, pa.Array]:
    """Judgments from exported tasks, as text.

    Of an annotation's choices the one named `verdict` counts, else the only one; notes are its text area named
    `notes`, else the only one other than `annotator`. A skipped ("cancelled") annotation has a blank score.

    Returns:
        Rows in the layout FOREIGN_ROWS and the number, from 1, of the task that each comes from. A task without
        annotations gives none.
    """
    return _rows((number, row) for number, task in enumerate(tasks, 1) for row in _judgments_of_task(task))


def parse_argilla(records: Sequence[Any]) -> tuple[pa.Table, pa.Array]:
    """Judgments from exported records, as text.

    The question named `verdict` counts, else the only one that has responses; notes are the question `notes`. People
    are named by what the record's metadata says of their ids, else by the ids.

    Returns:
        Rows in the layout FOREIGN_ROWS and the number, from 1, of the record that each comes from.
    """
    return _rows((number, row) for number, record in enumerate(records, 1) for row in _judgments_of_record(record))


def render_label_studio(records: pd.DataFrame, annotations: pd.DataFrame) -> list[dict[str, Any]]:
    """Tasks for the labeling interface in `docs/data.md`, one per record, each with its annotations.

    `completed_by` is left out, since Label Studio refuses people whom it does not know; the annotator is a result.
    Criteria versions and inclusion probabilities are lost: its annotations have no place for them.
    """
    by_record = _by_record(annotations)
    return [
        {
            "data": {"record_id": record_id, **{name: text or "" for name, text in zip(_TEXTS, texts, strict=True)}},
            "annotations": [_annotation(row) for row in by_record.get(record_id, ())],
        }
        for record_id, *texts in _texts(records)
    ]


def render_argilla(
    records: pd.DataFrame, annotations: pd.DataFrame, user_ids: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Records for Argilla with the fields query, output, reference and the questions verdict, notes, severity.

    Times, criteria versions and inclusion probabilities are lost: Argilla's responses have no place for them.

    Args:
        records: The records.
        annotations: The annotations.
        user_ids: Argilla's id of an annotator, where the responses shall belong to people whom it knows.
    """
    by_record = _by_record(annotations)
    known = dict(user_ids or {})
    exported = []
    for record_id, *texts in _texts(records):
        responses: dict[str, list[dict[str, str]]] = {}
        people = {}
        for row in by_record.get(record_id, ()):
            user_id = known.get(row["annotator"], str(uuid.uuid5(_NAMES, row["annotator"])))
            people[user_id] = row["annotator"]
            answers = {"verdict": _VERDICTS[row["score"]], "notes": row["notes"], "severity": row["severity"]}
            for question, value in answers.items():
                if value is not None:
                    responses.setdefault(question, []).append({"value": str(value), "user_id": user_id})
        exported.append(
            {
                "id": record_id,
                "fields": {name: text for name, text in zip(_TEXTS, texts, strict=True) if text is not None},
                "metadata": {_ANNOTATORS: [f"{user_id} {name}" for user_id, name in people.items()]} if people else {},
                "suggestions": {},
                "responses": responses,
                "vectors": {},
            }
        )
    return exported


def render_csv(annotations: pd.DataFrame, fingerprints: pd.Series | None = None) -> str:
    """The annotations as CSV, complete: reading it back gives the same table.

    Args:
        annotations: The annotations.
        fingerprints: Per annotation the content hash of what was judged, null where not known; a column where given.
    """
    names = [name for name in ANNOTATIONS.names if name != "is_gold"]
    hashes = [None] * len(annotations) if fingerprints is None else pa.array(fingerprints, from_pandas=True).to_pylist()
    header = names if fingerprints is None else [*names, RECORD_FINGERPRINT]
    buffer = io.StringIO()
    writer = csv.writer(buffer)  # ends lines by \r\n, and so quotes a text that holds either of the two alone
    writer.writerow(header)
    for row, fingerprint in zip(_plain(annotations), hashes, strict=True):
        moment = row["created_at"]
        row["created_at"] = moment.isoformat().replace("+00:00", "Z") if moment is not None else None
        row[RECORD_FINGERPRINT] = fingerprint
        writer.writerow(["" if row[name] is None else row[name] for name in header])
    return buffer.getvalue()


def _judgments_of_task(task: object) -> Iterator[dict[str, object]]:
    if not isinstance(task, Mapping):
        yield {}
        return
    data = _mapping(task.get("data"))
    record_id = _first(data, RECORD_ALIASES["record_id"])
    judged = _judged_texts(data)
    annotations = task.get("annotations", task.get("completions", []))
    for annotation in annotations if isinstance(annotations, list) else [None]:
        if not isinstance(annotation, Mapping):
            yield {"record_id": record_id}
            continue
        values = _results(annotation.get("result"))
        texts = {name: text for name, text in values["textarea"].items() if name != "annotator"}
        yield {
            "record_id": record_id,
            "annotator": values["textarea"].get("annotator", _person(annotation.get("completed_by"))),
            "score": None if annotation.get("was_cancelled") else _named_or_only(values["choices"], "verdict"),
            "notes": _named_or_only(texts, "notes"),
            "severity": values["number"].get("severity"),
            "created_at": annotation.get("created_at"),
            **judged,
        }


def _judged_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: text for name in JUDGED if isinstance(text := fields.get(name), str)}


def _results(result: object) -> dict[str, dict[str, object]]:
    """The values of the annotation's controls, by the control's type and name."""
    values: dict[str, dict[str, object]] = {"choices": {}, "textarea": {}, "number": {}}
    for entry in result if isinstance(result, list) else []:
        value = entry.get("value") if isinstance(entry, Mapping) else None
        kind = str(entry.get("type")) if isinstance(value, Mapping) else ""
        if not isinstance(value, Mapping) or kind not in values:
            continue
        content = value.get({"choices": "choices", "textarea": "text", "number": "number"}[kind])
        if isinstance(content, list):
            content = "\n".join(map(str, content)) if content else None
        values[kind][str(entry.get("from_name"))] = content
    return values


def _judgments_of_record(record: object) -> Iterator[dict[str, object]]:
    if not isinstance(record, Mapping):
        yield {}
        return
    by_question = {question: answers for question, answers in _mapping(record.get("responses")).items() if answers}
    others = {q: a for q, a in by_question.items() if q not in {"notes", "severity"}}
    verdicts = _named_or_only(others, "verdict")
    people = _mapping(record.get("metadata")).get(_ANNOTATORS)
    told = [str(person) for person in people] if isinstance(people, list) else []
    names = dict(person.split(" ", 1) for person in told if " " in person)
    by_user = {question: _by_user(by_question.get(question)) for question in ("notes", "severity")}
    for user_id, score in _by_user(verdicts).items():
        yield {
            "record_id": record.get("id"),
            "annotator": names.get(user_id, user_id),
            "score": score,
            **{question: answers.get(user_id) for question, answers in by_user.items()},
            **_judged_texts(_mapping(record.get("fields"))),
        }


def _by_user(answers: object) -> dict[str, object]:
    entries = [a for a in answers if isinstance(a, Mapping)] if isinstance(answers, list) else []
    return {str(a.get("user_id")): a.get("value") for a in entries if a.get("status") != "discarded"}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _named_or_only(values: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - values of foreign JSON
    return values.get(name, next(iter(values.values())) if len(values) == 1 else None)


def _person(completed_by: object) -> object:
    if isinstance(completed_by, Mapping):
        return _first(completed_by, ("email", "username", "id"))
    return completed_by


def _first(values: Mapping[str, Any], names: Sequence[str]) -> object:
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


def _rows(rows: Iterator[tuple[int, Mapping[str, object]]]) -> tuple[pa.Table, pa.Array]:
    numbered = list(rows)
    texts = {name: pa.array([_text(row.get(name)) for _, row in numbered], pa.string()) for name in FOREIGN_ROWS.names}
    return pa.table(texts, schema=FOREIGN_ROWS), pa.array([number for number, _ in numbered], pa.int64())


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _texts(records: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    columns = (pa.array(records[name], from_pandas=True).to_pylist() for name in ("record_id", *_TEXTS))
    return zip(*columns, strict=True)


def _plain(annotations: pd.DataFrame) -> list[dict[str, Any]]:
    table = pa.table({name: pa.array(annotations[name], from_pandas=True) for name in ANNOTATIONS.names})
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _by_record(annotations: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    by_record: dict[str, list[dict[str, Any]]] = {}
    for row in _plain(annotations):
        by_record.setdefault(row["record_id"], []).append(row)
    return by_record


def _annotation(row: Mapping[str, Any]) -> dict[str, Any]:
    values: list[tuple[str, str, dict[str, Any]]] = [
        ("verdict", "choices", {"choices": [_VERDICTS[row["score"]]]}),
        ("annotator", "textarea", {"text": [row["annotator"]]}),
    ]
    if row["notes"] is not None:
        values.append(("notes", "textarea", {"text": [row["notes"]]}))
    if row["severity"] is not None:
        values.append(("severity", "number", {"number": row["severity"]}))
    exported: dict[str, Any] = {
        "result": [
            {"from_name": name, "to_name": "output", "type": type_, "value": value} for name, type_, value in values
        ],
        "was_cancelled": False,
        "ground_truth": bool(row["is_gold"]),
    }
    if row["created_at"] is not None:
        exported["created_at"] = row["created_at"].isoformat().replace("+00:00", "Z")
    return exported
