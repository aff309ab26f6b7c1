"""Annotations from files of other tools into the store, and from the store into theirs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caliber_pipeline.core.annotation_formats import (
    JUDGED,
    Format,
    detect_format,
    parse_argilla,
    parse_label_studio,
    render_argilla,
    render_csv,
    render_label_studio,
)
from caliber_pipeline.core.annotations import OUTDATED, parse_annotations
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.core.schemas import frame_from_arrow
from caliber_pipeline.stores.annotation_store import AnnotationStore
from caliber_pipeline.stores.input_files import load_rows

Mask = NDArray[np.bool_]


def render_export(format_: Format, records: pd.DataFrame, annotations: pd.DataFrame) -> str:
    """The text of an export."""
    if format_ == "csv":
        return render_csv(annotations)
    render = render_label_studio if format_ == "label-studio" else render_argilla
    return json.dumps(render(records, annotations), ensure_ascii=False, indent=1)


def load_annotation_file(path: Path, records: pd.DataFrame) -> tuple[pd.DataFrame, list[str | None], list[str]]:
    """Read annotations from CSV, JSONL or Parquet, or from a JSON export of Label Studio or Argilla.

    A row that tells the query or the output that was judged is rejected where the record's is another one.

    Returns:
        The annotations, per annotation the fingerprint of the record where the file tells what was judged, and per
        rejected row its place in the file and why.

    Raises:
        InputError: the file cannot be read or is of no known form.
    """
    if path.suffix.lower() != ".json":
        raw = load_rows(path)
        broken = [f"line {line}: {reason}" for line, reason in _columns(raw.broken, "line", "reason")]
        table, lines, what = raw.table, raw.lines, "line"
    else:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read as JSON ({error})") from error
        is_tasks = detect_format(content, source=path.name) == "label-studio"
        table, lines = parse_label_studio(content) if is_tasks else parse_argilla(content)
        broken, what = [], "task" if is_tasks else "record"
    parsed = parse_annotations(table, lines, records["record_id"], source=path.name)
    places = lines.filter(parsed.is_rejected).to_pylist()
    rejected = [f"{what} {place}: {why}" for place, why in zip(places, parsed.reasons.to_pylist(), strict=True)]
    accepted = pc.invert(parsed.is_rejected)
    is_told, is_other = _compare_texts(table.filter(accepted), parsed.table["record_id"], records)
    rejected += [
        f"{what} {place}: record '{id_}' {OUTDATED}"
        for place, id_, is_wrong in zip(
            lines.filter(accepted).to_pylist(), parsed.table["record_id"], is_other, strict=True
        )
        if is_wrong
    ]
    sound, told = parsed.table[~is_other].reset_index(drop=True), is_told[~is_other]
    hashes = dict(zip(records["record_id"], content_hashes(records), strict=True)) if told.any() else {}
    fingerprints = [hashes[id_] if is_told_ else None for id_, is_told_ in zip(sound["record_id"], told, strict=True)]
    return sound, fingerprints, broken + rejected


def _compare_texts(rows: pa.Table, record_ids: pd.Series, records: pd.DataFrame) -> tuple[Mask, Mask]:
    """Per row whether it tells what was judged, and whether that is another text than the record's."""
    is_told, is_other = (np.zeros(rows.num_rows, dtype=np.bool_) for _ in range(2))
    by_id = records.drop_duplicates("record_id").set_index("record_id")
    for name in (name for name in JUDGED if name in rows.column_names):
        judged = rows.column(name).to_pandas().astype(object).to_numpy()
        there = by_id[name].reindex(record_ids).astype(object).to_numpy()
        has_text = np.array([isinstance(text, str) and bool(text.strip()) for text in judged], dtype=np.bool_)
        is_told |= has_text
        is_other |= has_text & np.array(
            [str(a).split() != str(b).split() for a, b in zip(judged, there, strict=True)], dtype=np.bool_
        )
    return is_told, is_other


def _columns(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def import_annotations(store: AnnotationStore, path: Path, records: pd.DataFrame) -> tuple[int, int, list[str]]:
    """Bring a file's annotations into the store; bringing them again changes nothing.

    Returns:
        How many were new, how many were there already, and why each rejected row was rejected.

    Raises:
        InputError: the file cannot be read.
    """
    table, fingerprints, rejected = load_annotation_file(path, records)
    n_new = store.import_annotations(table, fingerprints)
    return n_new, len(table) - n_new, rejected


def export_annotations(
    store: AnnotationStore, path: Path, records: pd.DataFrame, *, format_: Format | None = None
) -> int:
    """Write everyone's annotations to a file.

    Args:
        store: Where they are.
        path: The file; it must not exist.
        records: The records; the JSON formats carry their texts.
        format_: The form; by default CSV, or Label Studio's where the file ends in .json.

    Returns:
        How many were written.

    Raises:
        InputError: the file exists or cannot be written.
    """
    chosen: Format = format_ or ("label-studio" if path.suffix.lower() == ".json" else "csv")
    annotations = store.annotations()
    text = render_export(chosen, records, annotations)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: the file exists; name another") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return len(annotations)


def load_records(assets: Path, unstored: pa.Table | None = None) -> pd.DataFrame:
    """The records that the pipeline has stored, else those given.

    Raises:
        InputError: there are neither.
    """
    path = assets / "records.parquet"
    if path.exists():
        return frame_from_arrow(pq.read_table(path))
    if unstored is None:
        raise InputError(f"{path}: no such file; run `caliber run` first, or name the folder with --assets")
    return frame_from_arrow(unstored)
