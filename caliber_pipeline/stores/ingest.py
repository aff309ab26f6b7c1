"""From input files to records and annotations, and to the rows that are neither."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.annotations import (
    annotations_from_records,
    combine_annotations,
    fingerprint_annotations,
    parse_annotations,
    resolve_annotation_columns,
)
from caliber_pipeline.core.columns import require_text
from caliber_pipeline.core.conforming import empty_frame, frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import content_hash_by_id
from caliber_pipeline.core.judged_texts import OUTDATED, reject_outdated
from caliber_pipeline.core.records import RecordParser, parse_records
from caliber_pipeline.core.schemas import REJECTED_ROWS
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.annotation_store import find_store
from caliber_pipeline.stores.input_bytes import describe_no_file
from caliber_pipeline.stores.input_files import InputFile, load_rows
from caliber_pipeline.stores.raw_rows import RawRows, rejected_rows
from caliber_pipeline.stores.tables import TableStore


@dataclass(frozen=True)
class Loaded:
    """What became of an input file.

    Attributes:
        table: The accepted rows.
        rejected: The others, with line, reason and raw text.
        input_fingerprint: What was read, and how: equal as long as reading again would give the same.
        store_place: How far the annotation store's history was read; 0 without a store.
    """

    table: pd.DataFrame
    rejected: pd.DataFrame
    input_fingerprint: str
    store_place: int = 0


def load_records(settings: Settings) -> Loaded:
    """Read the records file of a project into memory.

    Raises:
        InputError: the file as a whole cannot be used, or no row of it.
    """
    path = settings.records_file
    fingerprint = input_fingerprint(settings, path)
    rows = load_rows(path)
    parsed = parse_records(
        rows.table, rows.lines, source=rows.source, mapping=settings.columns, group_by=settings.group_by
    )
    rejected = frame_from_arrow(rejected_of(rows, parsed.is_rejected, parsed.reasons))
    if parsed.table.empty:
        raise no_records(path, len(rejected), rejected["reason"].iloc[0])
    return Loaded(parsed.table, rejected, fingerprint)


def no_records(path: Path, n_rejected: int, reason: str) -> InputError:
    """The error for a file of which no row is a record."""
    return InputError(f"{path}: none of its {n_rejected} rows is a record; the first: {reason}")


@contextmanager
def telling_of_a_swap(settings: Settings) -> Iterator[None]:
    """Where a file lacks columns because records and annotations were given for each other, say that.

    Raises:
        InputError: what was raised within, or that the two look swapped.
    """
    try:
        yield
    except InputError as error:
        if not _look_swapped(settings):
            raise
        files = f"{settings.records_file} looks like annotations and {settings.annotations_file} like records"
        raise InputError(f"{files}; give each as the other") from error


def _look_swapped(settings: Settings) -> bool:
    """Whether each of the two files has the columns of the other kind, and one of them lacks those of its own."""
    if settings.annotations_file is None:
        return False
    try:
        records, annotations = (InputFile(path).names for path in (settings.records_file, settings.annotations_file))
    except InputError:
        return False
    are_right = _has_records(records, settings) and _has_annotations(annotations, settings)
    return not are_right and _has_records(annotations, settings) and _has_annotations(records, settings)


def _has_records(names: Sequence[str], settings: Settings) -> bool:
    with suppress(InputError):
        RecordParser(names, source="", mapping=settings.columns)
        return True
    return False


def _has_annotations(names: Sequence[str], settings: Settings) -> bool:
    with suppress(InputError):
        resolve_annotation_columns(names, settings.annotation_columns, source="")
        return True
    return False


def load_annotatable(settings: Settings, tables: TableStore) -> pd.DataFrame:
    """The stored records that annotations are about, the others never in memory.

    Returns:
        record_id, texts, human_score, human_notes and ratings of the records that the records file has a verdict on,
        and of those that the annotations file or the annotation store names.
    """
    named: list[pa.Array] = []
    if settings.annotations_file is not None:
        rows = load_rows(settings.annotations_file)
        with telling_of_a_swap(settings):
            columns = resolve_annotation_columns(
                rows.table.column_names, settings.annotation_columns, source=rows.source
            )
        require_text(rows.table, [columns["record_id"]], source=rows.source)
        named += pc.utf8_trim_whitespace(rows.table.column(columns["record_id"])).chunks
    store = find_store(settings.annotation_store_url)
    if store is not None:
        with store:
            named.append(pa.array(store.annotations()["record_id"], pa.string(), from_pandas=True))
    is_rated = pc.list_value_length(pc.field("ratings")) > 0
    is_named = pc.field("record_id").isin(pc.unique(pa.chunked_array(named, pa.string())))
    return tables.select(
        "records",
        columns=["record_id", "query", "output", "reference", "human_score", "human_notes", "ratings"],
        where=pc.field("human_score").is_valid() | is_rated | is_named,
    )


def load_annotated(tables: TableStore, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The stored records that have annotations, the others never in memory; all columns, or those named.

    Raises:
        MissingStepError: records or annotations are not stored.
    """
    ids = tables.select("annotations", columns=["record_id"])["record_id"]
    is_annotated = pc.field("record_id").isin(pc.unique(pa.array(ids, pa.string(), from_pandas=True)))
    return tables.select("records", columns=columns, where=is_annotated)


def load_annotations(settings: Settings, records: pd.DataFrame) -> Loaded:
    """Read the annotations of a project: those of the records, of the annotations file and of the annotation store.

    A verdict in the store on a record whose text was another one is rejected: it says nothing about the text there is.

    Raises:
        InputError: the file as a whole cannot be used.
    """
    table, rejected = annotations_from_records(records), empty_frame("rejected_annotations")
    path = settings.annotations_file
    fingerprint = input_fingerprint(settings, path) if path else records.attrs.get("records_input_fingerprint", "")
    if path is not None:
        rows = load_rows(path)
        parsed = parse_annotations(
            rows.table, rows.lines, records["record_id"], source=rows.source, mapping=settings.annotation_columns
        )
        parsed, _ = reject_outdated(parsed, rows.table, records)
        table, rejected = (
            combine_annotations(table, parsed.table),
            frame_from_arrow(rejected_of(rows, parsed.is_rejected, parsed.reasons)),
        )
    store = find_store(settings.annotation_store_url)
    if store is None:
        return Loaded(table, rejected, fingerprint)
    with store:
        place = store.last_seq()  # before the rows are read: what comes meanwhile is read again, never missed
        stored, judged_texts = store.annotations_with_texts()
    texts = content_hash_by_id(records)
    reasons = [
        _why_unusable(id_, None if pd.isna(judged) else judged, texts)
        for id_, judged in zip(stored["record_id"], judged_texts, strict=True)
    ]
    is_usable = pd.Series([reason is None for reason in reasons], index=stored.index, dtype=bool)
    unusable = _reject_stored(stored[~is_usable], [reason for reason in reasons if reason is not None])
    both = combine_annotations(table, stored[is_usable]).drop_duplicates(ignore_index=True)
    return Loaded(both, pd.concat([rejected, unusable], ignore_index=True), f"{fingerprint}:{place}", place)


def stamp_annotations(loaded: Loaded, settings: Settings, now: datetime) -> None:
    """Tell in the attrs of annotations and of rejected rows what they were made from, and when.

    Args:
        loaded: As `load_annotations` gives it.
        settings: The project.
        now: When they were read.
    """
    suffix = "" if settings.consensus == "majority" else f":{settings.consensus}"
    loaded.table.attrs = {
        "annotations_fingerprint": f"{fingerprint_annotations(loaded.table)}{suffix}",
        "consensus": settings.consensus,
        "annotations_input_fingerprint": loaded.input_fingerprint,
        "annotation_store_place": str(loaded.store_place),
        "ingested_at": now.isoformat(),
    }
    loaded.rejected.attrs = dict(loaded.table.attrs)


def input_fingerprint(settings: Settings, path: Path) -> str:
    """Identifies a file by name, size and time of change, with the settings that say how to read it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a CSV, JSONL or Parquet file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a CSV, JSONL or Parquet file") from error
    how: dict[str, object] = {"columns": settings.columns, "group_by": settings.group_by}
    if settings.annotation_columns:
        how["annotation_columns"] = settings.annotation_columns
    if settings.consensus != "majority":
        how["consensus"] = settings.consensus
    what = [str(path.resolve()), status.st_size, status.st_mtime_ns, how]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def is_ingested(settings: Settings, tables: TableStore) -> bool:
    """Whether records and annotations are stored, and reading the input again would give the same."""
    records, annotations = tables.load_attrs("records"), tables.load_attrs("annotations")
    if records is None or annotations is None:
        return False
    fingerprint = input_fingerprint(settings, settings.records_file)
    path = settings.annotations_file
    of_annotations = fingerprint if path is None else input_fingerprint(settings, path)
    if (place := find_store_place(settings)) is not None:
        of_annotations = f"{of_annotations}:{place}"
    return (
        records.get("records_input_fingerprint") == fingerprint
        and annotations.get("annotations_input_fingerprint") == of_annotations
    )


def find_store_place(settings: Settings) -> int | None:
    """How far the annotation store's history goes; None where there is no store."""
    store = find_store(settings.annotation_store_url)
    if store is None:
        return None
    with store:
        return store.last_seq()


def combined_input_fingerprint(settings: Settings) -> str:
    """Identifies all input files of a project, and how they are read; short, as it is shown as a run's tag."""
    paths = [path for path in (settings.records_file, settings.annotations_file) if path is not None]
    return hashlib.sha256("".join(input_fingerprint(settings, path) for path in paths).encode()).hexdigest()[:16]


def refuse_forgotten_options(settings: Settings, tables: TableStore) -> None:
    """Keep what is stored from being read as other data, because nobody named again what it was read with.

    Raises:
        InputError: no records are named, and the stored ones are of another file; or evaluated records were grouped by
            another column, so that those of train would be judged on dev.
    """
    stored = tables.load_attrs("records") or {}
    before, group_by = stored.get("records_file"), stored.get("group_by")
    if settings.records is None and before not in {None, str(settings.records_file)}:
        raise InputError(
            f"{settings.output}: holds the records of {before}, and {settings.records_file} would replace them; "
            "name the file with --records, or another --output"
        )
    if group_by is not None and group_by != (settings.group_by or "") and tables.versions("optimized_criteria"):
        how = f"--group-by {group_by}" if group_by else "no --group-by"
        raise InputError(
            f"{settings.output}: its versions were evaluated with {how}, and other groups would move records between "
            f"train, dev and test; give {how}, or name another --output"
        )


def refuse_losing_all(settings: Settings, loaded: Loaded, tables: TableStore) -> None:
    """Keep stored annotations where none would take their place, because nobody named their file again.

    Raises:
        InputError: annotations are stored, and there is none in what was read.
    """
    n = tables.count("annotations")
    if len(loaded.table) or not n:
        return
    why = "" if loaded.rejected.empty else f" (the first row rejected: {loaded.rejected['reason'].iloc[0]})"
    raise InputError(
        f"{settings.annotations_file or settings.records_file}: holds no verdict of people on a record{why}; the {n} "
        f"annotations in {settings.output} stay; name their file with --annotations, or another --output"
    )


def stored_texts(tables: TableStore, record_ids: Iterable[str]) -> dict[str, str]:
    """Per record that is stored, of those named, a hash of its texts; the others are never in memory."""
    is_named = pc.field("record_id").isin(pa.array(list(record_ids), pa.string()))
    columns = ["record_id", "query", "output", "reference"]
    return content_hash_by_id(tables.select("records", columns=columns, where=is_named))


def labelled_texts(tables: TableStore) -> dict[str, str]:
    """Per stored record that has annotations a hash of its texts; none as long as no version was evaluated on them."""
    if not tables.versions("optimized_criteria") or tables.load_attrs("annotations") is None:
        return {}
    return content_hash_by_id(load_annotated(tables))


def describe_lost_labels(before: Mapping[str, str], tables: TableStore) -> str | None:
    """What to say of records that were labelled before and are not now; None where all still are.

    Args:
        before: `labelled_texts` as they were before the input was read.
        tables: What is stored now.
    """
    n_lost = len(before.items() - labelled_texts(tables).items())
    if not n_lost:
        return None
    there = stored_texts(tables, before)
    if before.items() & there.items():
        return f"of {len(before)} labelled records {n_lost} are gone, have another text, or have no label any more"
    return (
        f"these are other data: none of the {n_lost} records that were labelled before is among them; the criteria and "
        f"the history in {tables.folder} come from those, and another --output would keep the two apart"
    )


def find_missing_input(settings: Settings) -> str | None:
    """What is missing of the input files, or leaves open which they are, in words."""
    try:
        files = {"records": settings.records_file, "annotations": settings.annotations_file}
    except InputError as error:
        return str(error)
    for name, path in files.items():
        if path is not None and not path.is_file():
            return f"{path}: {describe_no_file(path)}; give the {name} as a CSV, JSONL or Parquet file"
    return None


def _why_unusable(record_id: str, judged: str | None, texts: Mapping[str, str]) -> str | None:
    """Why an annotation in the store is of no use to the records that there are now; None where it is."""
    if record_id not in texts:
        return f"record_id '{record_id}' is not among the records"
    return None if judged in {None, texts[record_id]} else f"record '{record_id}' {OUTDATED}"


def _reject_stored(stored: pd.DataFrame, reasons: list[str]) -> pd.DataFrame:
    raws = [" ".join(row) for row in stored[["record_id", "annotator", "score"]].astype(str).to_numpy()]
    return frame_from_arrow(rejected_rows("annotation store", [None] * len(raws), reasons, raws))


def rejected_of(rows: RawRows, is_rejected: pa.Array, reasons: pa.Array) -> pa.Table:
    """All rejected rows, with those that could not be read, in the order of the file."""
    if not rows.broken.num_rows and not len(reasons):
        return rows.broken
    faulty = rejected_rows(
        rows.source,
        rows.lines.filter(is_rejected).to_pylist(),
        reasons.to_pylist(),
        rows.render_raw(is_rejected),
    )
    return pa.concat_tables([rows.broken, faulty]).sort_by("line").cast(REJECTED_ROWS)
