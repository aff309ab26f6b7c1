"""Stage `records`: rows of text become records, each with its group and split, or rejections with a reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.columns import (
    RECORD_ALIASES,
    SCORE_FORMS,
    Faults,
    blank_to_null,
    is_blank,
    parse_scores,
    rater_columns,
    resolve_columns,
)
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import fingerprint_frame
from caliber_pipeline.core.schemas import RATING, RECORDS, conform_table, frame_from_arrow
from caliber_pipeline.core.splits import content_ids, default_groups, split_groups

FINGERPRINTED = ("record_id", "query", "output", "reference", "llm_score", "llm_reasoning", "group")


@dataclass(frozen=True)
class ParsedRows:
    """What became of a file's rows.

    Attributes:
        table: The accepted rows in their schema.
        is_rejected: Per row of the input whether it was rejected, bool.
        reasons: Why, for the rejected rows in their order.
    """

    table: pd.DataFrame
    is_rejected: pa.Array
    reasons: pa.Array


def parse_records(
    rows: pa.Table,
    lines: pa.Array,
    *,
    source: str,
    mapping: Mapping[str, str] | None = None,
    group_by: str | None = None,
) -> ParsedRows:
    """Parse rows of text into records.

    Args:
        rows: One string column per column of the file, blank as null.
        lines: The line on which each row starts.
        source: The file's name, for messages.
        mapping: Our column names to the file's, where the aliases do not fit.
        group_by: The column whose equal values must not be split between train, dev and test.

    Raises:
        InputError: a required column, or one that was named, is missing.
    """
    columns = resolve_columns(rows.column_names, RECORD_ALIASES, ("query", "output"), mapping or {}, source=source)
    if group_by is not None and group_by not in rows.column_names and group_by not in columns:
        raise InputError(f"{source}: no column '{group_by}' to group by; it has {', '.join(rows.column_names)}")
    texts = {ours: blank_to_null(rows.column(theirs)) for ours, theirs in columns.items()}
    faults = Faults(rows.num_rows)
    for name in ("query", "output"):
        faults.add(is_blank(texts[name]), f"{name} is blank")
    scores = {name: _parse_score(texts, name, columns.get(name, name), faults) for name in ("human_score", "llm_score")}
    raters = rater_columns(rows.column_names)
    ratings = _parse_ratings(rows, raters, faults)
    ids = _record_ids(texts, rows.num_rows)
    _reject_repeats(ids, lines, faults, is_made="record_id" not in texts)
    groups = _groups(rows, columns, texts, ids, group_by)
    used = {*columns.values(), *(c for pair in raters.values() for c in pair.values())}
    nulls = pa.nulls(rows.num_rows, pa.string())
    table = pa.table(
        {
            "record_id": ids,
            **{
                name: texts.get(name, nulls)
                for name in ("query", "output", "reference", "human_notes", "llm_reasoning")
            },
            **scores,
            "ratings": ratings,
            "metadata": _metadata(rows, [c for c in rows.column_names if c not in used]),
            "group": pa.array(groups, pa.string(), from_pandas=True),
            "split": pa.array(split_groups(groups), pa.string(), from_pandas=True),
            "line": lines,
        }
    )
    accepted = table.filter(pc.invert(faults.is_faulty))
    conformed = conform_table(accepted.select(RECORDS.names), RECORDS, "records")
    return ParsedRows(frame_from_arrow(conformed), faults.is_faulty, faults.reasons)


def fingerprint_records(records: pd.DataFrame) -> str:
    """Fingerprint of what judging and splitting read of the records; their order does not matter."""
    return fingerprint_frame(records, FINGERPRINTED)


def metadata_columns(records: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """record_id and the named metadata columns as text, null where a record has none.

    Raises:
        InputError: no record has a column of that name.
    """
    metadata = pa.array(records["metadata"], from_pandas=True)
    metadata = metadata.combine_chunks() if isinstance(metadata, pa.ChunkedArray) else metadata
    known = pc.unique(metadata.keys).to_pylist()
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"no record has the metadata column {unknown}; the columns are {sorted(known)[:20]}")
    values = {name: pc.map_lookup(metadata, pa.scalar(name), "first") for name in names}
    return frame_from_arrow(pa.table({"record_id": pa.array(records["record_id"], from_pandas=True), **values}))


def _parse_score(texts: Mapping[str, pa.ChunkedArray], name: str, theirs: str, faults: Faults) -> pa.ChunkedArray:
    if name not in texts:
        return pa.nulls(len(texts["output"]), pa.int8())
    scores, is_wrong = parse_scores(texts[name])
    faults.add_values(is_wrong, theirs, texts[name], SCORE_FORMS)
    return scores


def _parse_ratings(rows: pa.Table, raters: Mapping[str, Mapping[str, str]], faults: Faults) -> pa.Array:
    """One list of (annotator, score, notes) per row, with the scores that are there."""
    n_rows, names = rows.num_rows, list(raters)
    if not names:
        return pa.ListArray.from_arrays(pa.array(np.zeros(n_rows + 1), pa.int32()), pa.array([], RATING))
    scores, notes = [], []
    for columns in raters.values():
        text = rows.column(columns["score"])
        parsed, is_wrong = parse_scores(text)
        faults.add_values(is_wrong, columns["score"], text, SCORE_FORMS)
        scores.append(parsed.combine_chunks())
        note = rows.column(columns["notes"]) if "notes" in columns else pa.nulls(n_rows, pa.string())
        notes.append(note.combine_chunks() if isinstance(note, pa.ChunkedArray) else note)
    is_there = np.column_stack([pc.is_valid(s).to_numpy(zero_copy_only=False) for s in scores])
    row_at, rater_at = np.nonzero(is_there)
    flat_at = pa.array(rater_at * n_rows + row_at)
    values = pa.StructArray.from_arrays(
        [
            pa.array(names, pa.string()).take(pa.array(rater_at)),
            pa.concat_arrays(scores).take(flat_at),
            pa.concat_arrays(notes).take(flat_at),
        ],
        fields=list(RATING),
    )
    offsets = np.concatenate([[0], np.cumsum(is_there.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _record_ids(texts: Mapping[str, pa.ChunkedArray], n_rows: int) -> pa.Array:
    query, output = (pc.fill_null(texts[name], "").to_pandas() for name in ("query", "output"))
    made = pa.array(content_ids(query, output), pa.string(), from_pandas=True)
    given = texts.get("record_id", pa.nulls(n_rows, pa.string()))
    ids = pc.coalesce(pc.utf8_trim_whitespace(given), made)
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def _reject_repeats(ids: pa.Array, lines: pa.Array, faults: Faults, *, is_made: bool) -> None:
    """Reject every occurrence of an id after its first, among the rows that are sound so far."""
    frame = pd.DataFrame({"id": ids.to_pandas(), "line": lines.to_pandas()})
    sound = frame[~faults.is_faulty.to_numpy(zero_copy_only=False)]
    is_repeat = pd.Series(data=False, index=frame.index)
    is_repeat[sound.index] = sound.duplicated("id")
    if not is_repeat.any():
        return
    first_line = frame["id"].map(sound.drop_duplicates("id").set_index("id")["line"])
    what = "same query and output as" if is_made else "record_id '" + frame["id"] + "' repeats that of"
    reasons = what + (" line " + first_line.fillna(0).astype("int64").astype(str))
    faults.add(pa.array(is_repeat), pa.array(reasons, pa.string(), from_pandas=True))


def _groups(
    rows: pa.Table,
    columns: Mapping[str, str],
    texts: Mapping[str, pa.ChunkedArray],
    ids: pa.Array,
    group_by: str | None,
) -> pd.Series:
    if group_by is None:
        query, output = (pc.fill_null(texts[name], "").to_pandas() for name in ("query", "output"))
        return default_groups(query, output)
    named = blank_to_null(rows.column(columns.get(group_by, group_by)))
    own = pc.binary_join_element_wise("record ", ids, "")  # a record without a group is a group of its own
    groups: pd.Series[str] = pc.coalesce(named, own).to_pandas()
    return groups.astype("string[pyarrow]")


def _metadata(rows: pa.Table, names: list[str]) -> pa.Array:
    """A map per row from the names of the other columns to their texts."""
    n_rows = rows.num_rows
    offsets = pa.array(np.arange(n_rows + 1) * len(names), pa.int32())
    if not names:
        return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), pa.array([], pa.string()))
    keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), n_rows)))
    by_column = pa.concat_arrays([rows.column(name).combine_chunks() for name in names])
    row_major = (np.arange(len(names))[None, :] * n_rows + np.arange(n_rows)[:, None]).ravel()
    return pa.MapArray.from_arrays(offsets, keys, by_column.take(pa.array(row_major)))
