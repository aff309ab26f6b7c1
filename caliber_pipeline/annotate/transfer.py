"""Annotations from files of other tools into the store, and from the store into theirs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from caliber_pipeline.core.annotation_formats import (
    Format,
    detect_format,
    parse_argilla,
    parse_label_studio,
    render_argilla,
    render_csv,
    render_label_studio,
)
from caliber_pipeline.core.annotations import UNNAMED, parse_annotations
from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.errors import InputError, describe_read_error
from caliber_pipeline.core.fingerprints import content_hash_by_id
from caliber_pipeline.core.judged_texts import reject_outdated
from caliber_pipeline.stores.annotation_store import AnnotationStore
from caliber_pipeline.stores.input_files import load_rows

_FORMAT_OF: Final[Mapping[str, Format]] = {".csv": "csv", ".json": "label-studio"}


def render_export(
    format_: Format, records: pd.DataFrame, annotations: pd.DataFrame, fingerprints: pd.Series
) -> tuple[str, int]:
    """The text of an export, and how many annotations it holds.

    CSV carries the fingerprint of what was judged. The others carry the records' texts as they are now, and so leave
    out the verdicts on earlier ones.

    Args:
        format_: The form.
        records: The records.
        annotations: The annotations.
        fingerprints: Per annotation the fingerprint of what was judged, null where not known.
    """
    if format_ == "csv":
        return render_csv(annotations, fingerprints), len(annotations)
    hashes = content_hash_by_id(records)
    pairs = zip(annotations["record_id"], pa.array(fingerprints, from_pandas=True).to_pylist(), strict=True)
    is_current = [judged in {None, hashes.get(record_id)} for record_id, judged in pairs]
    current = annotations[is_current].reset_index(drop=True)
    render = render_label_studio if format_ == "label-studio" else render_argilla
    return json.dumps(render(records, current), ensure_ascii=False, indent=1), len(current)


def load_annotation_file(
    path: Path, records: pd.DataFrame, mapping: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, list[str | None], list[str]]:
    """Read annotations from CSV, JSONL or Parquet, or from a JSON export of Label Studio or Argilla.

    A row that tells the query, the output or the fingerprint of what was judged is rejected where the record's is
    another one. `mapping` is from our column names to the file's, where the aliases do not fit.

    Returns:
        The annotations, per annotation the fingerprint of the record where the file tells what was judged, and per
        rejected row its place in the file and why.

    Raises:
        InputError: the file cannot be read or is of no known form.
    """
    is_json = path.suffix.lower() == ".json"
    if not is_json:
        raw = load_rows(path)
        broken = [f"line {line}: {reason}" for line, reason in _columns(raw.broken, "line", "reason")]
        table, lines, what = raw.table, raw.lines, "line"
    else:
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except RecursionError as error:
            raise InputError(f"{path}: cannot be read as JSON ({error})") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as JSON ({describe_read_error(error)})") from error
        is_tasks = detect_format(content, source=path.name) == "label-studio"
        table, lines = parse_label_studio(content) if is_tasks else parse_argilla(content)
        broken, what = [], "task" if is_tasks else "record"
    parsed = parse_annotations(
        table, lines, records["record_id"], source=path.name, mapping=None if is_json else mapping
    )
    parsed, told = reject_outdated(parsed, table, records)
    places = lines.filter(parsed.is_rejected).to_pylist()
    rejected = [f"{what} {place}: {why}" for place, why in zip(places, parsed.reasons.to_pylist(), strict=True)]
    sound = parsed.table
    hashes = content_hash_by_id(records) if told.any() else {}
    fingerprints = [hashes[id_] if is_told_ else None for id_, is_told_ in zip(sound["record_id"], told, strict=True)]
    return sound, fingerprints, broken + rejected


def _columns(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def import_annotations(
    store: AnnotationStore,
    path: Path,
    records: pd.DataFrame,
    mapping: Mapping[str, str] | None = None,
    *,
    annotator: str | None = None,
) -> tuple[int, int, list[str]]:
    """Bring a file's annotations into the store; bringing them again changes nothing. Arguments as above.

    A verdict whose row does not tell what was judged is one on the text that its record has when it first comes.

    Rows that name no annotator are those of `annotator`, where one is given.

    Returns:
        How many were new, how many were there already, and why each rejected row was rejected.

    Raises:
        InputError: the file cannot be read.
    """
    table, fingerprints, rejected = load_annotation_file(path, records, mapping)
    if annotator is not None:
        table["annotator"] = table["annotator"].replace(UNNAMED, annotator)
    judged = records[records["record_id"].isin(table["record_id"])]
    current = table["record_id"].map(content_hash_by_id(judged)).tolist()
    n_new = store.import_annotations(table, fingerprints, current=current)
    return n_new, len(table) - n_new, rejected


def export_annotations(
    store: AnnotationStore, path: Path, records: pd.DataFrame, *, format_: Format | None = None
) -> tuple[int, int]:
    """Write everyone's annotations to a file.

    Args:
        store: Where they are.
        path: The file; it must not exist.
        records: The records; the JSON formats carry their texts.
        format_: The form; by default CSV, or Label Studio's where the file ends in .json.

    Returns:
        How many were written, and how many left out as they were given on another text than is there now.

    Raises:
        InputError: the file is of no such form, exists, or cannot be written.
    """
    chosen = format_ or _FORMAT_OF.get(path.suffix.lower())
    if chosen is None:
        raise InputError(f"{path}: annotations are written as .csv or .json; name one of these, or give the --format")
    annotations, fingerprints = store.annotations_with_texts()
    text, n_written = render_export(chosen, records, annotations, fingerprints)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: the file exists; name another") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return n_written, len(annotations) - n_written


def load_records(assets: Path, unstored: pa.Table | None = None) -> pd.DataFrame:
    """The records that the pipeline has stored, else those given.

    Raises:
        InputError: there are neither.
    """
    path = assets / "records.parquet"
    if path.exists():
        return frame_from_arrow(pq.read_table(path))
    if unstored is None:
        raise InputError(f"{path}: no such file; run `caliber run` first, or name the folder with --output")
    return frame_from_arrow(unstored)
