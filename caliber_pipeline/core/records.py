"""Stage `records`: rows of text become records, each with its group and split, or rejections with a reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from caliber_pipeline.core.column_names import RECORD_ALIASES, SCORE_FORMS
from caliber_pipeline.core.columns import (
    Faults,
    blank_to_null,
    parse_scores,
    rater_columns,
    require_text,
    resolve_columns,
)
from caliber_pipeline.core.conforming import conform_table, frame_from_arrow, one_array
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_strings
from caliber_pipeline.core.schemas import RATING, RECORDS
from caliber_pipeline.core.splits import (
    distinct_queries,
    has_few,
    hash_groups,
    hex_digits,
    make_ids,
    splits_of_hashes,
)

# what judging and splitting read of the records
FINGERPRINTED = ("record_id", "query", "output", "reference", "llm_score", "llm_reasoning", "group")

_MAX_CUTS = 0.005  # of the rows; with more, writing many small pieces costs what copying would

FindRepeats = Callable[[pa.Array, pa.Array, pa.Array], tuple[NDArray[np.bool_], NDArray[np.int64]]]
"""From ids, lines and whether each row is sound: which rows repeat the id of an earlier one, and the line of that."""


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


@dataclass(frozen=True)
class ParsedBatch:
    """What became of a batch of rows.

    Attributes:
        table: The accepted rows in their schema.
        group_hashes: A 64-bit hash of the group, per accepted row.
        is_rejected: Per row of the input whether it was rejected, bool.
        reasons: Why, for the rejected rows in their order.
    """

    table: pa.Table
    group_hashes: NDArray[np.uint64]
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
    """Parse rows of text into records, all at once.

    Args:
        rows: One string column per column of the file, blank as null; a binary column is one that is no text.
        lines: The line on which each row starts.
        source: The file's name, for messages.
        mapping: Our column names to the file's, where the aliases do not fit.
        group_by: The column whose equal values must not be split between train, dev and test.

    Raises:
        InputError: a required column, or one that was named, is missing or no text.
    """
    parser = RecordParser(rows.column_names, source=source, mapping=mapping, group_by=group_by)
    has_few_queries = has_few(parser.distinct_queries(rows))
    parsed = parser.parse(rows, lines, repeats_within, has_few_queries=has_few_queries)
    return ParsedRows(frame_from_arrow(parsed.table), parsed.is_rejected, parsed.reasons)


class RecordParser:
    """Parses a file's rows of text into records, batch by batch."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        source: str,
        mapping: Mapping[str, str] | None = None,
        group_by: str | None = None,
    ) -> None:
        """Find out which column holds what; the arguments are those of `parse_records`.

        Raises:
            InputError: a required column, or one that was named, is missing.
        """
        columns = resolve_columns(names, RECORD_ALIASES, ("query", "output"), mapping or {}, source=source)
        if group_by is not None and group_by not in names and group_by not in columns:
            raise InputError(f"{source}: no column '{group_by}' to group by; it has {', '.join(names)}")
        self._columns = columns
        self._raters = rater_columns(names)
        self._group_by = group_by
        raters = (column for pair in self._raters.values() for column in pair.values())
        used = dict.fromkeys([*columns.values(), *raters])
        self._metadata_names = [name for name in names if name not in used]
        self._source = source
        self._texts = [*used, *([group_by] if group_by in self._metadata_names else [])]

    def distinct_queries(self, rows: pa.Table, known: pa.Array | None = None) -> pa.Array:
        """The distinct queries of a batch and of those before, as many as the choice of the grouping needs."""
        require_text(rows, [self._columns["query"]], source=self._source)
        return distinct_queries(pc.fill_null(blank_to_null(rows.column(self._columns["query"])), ""), known)

    def parse(
        self, rows: pa.Table, lines: pa.Array, find_repeats: FindRepeats, *, has_few_queries: bool
    ) -> ParsedBatch:
        """Parse a batch.

        Args:
            rows: One string column per column of the file, blank as null.
            lines: The line on which each row starts.
            find_repeats: Tells which rows repeat the id of an earlier sound row.
            has_few_queries: Whether the whole file has too few distinct queries to group by.

        Raises:
            InputError: a column that is used is no text.
        """
        require_text(rows, self._texts, source=self._source)
        rows = rows.combine_chunks()
        columns = self._columns
        texts = {ours: blank_to_null(rows.column(theirs)) for ours, theirs in columns.items()}
        faults = Faults(rows.num_rows)
        for name in ("query", "output"):
            faults.add(pc.is_null(texts[name]), f"{name} is blank")
        scores = {n: _parse_score(texts, n, columns.get(n, n), faults) for n in ("human_score", "llm_score")}
        ratings = _parse_ratings(rows, self._raters, faults)
        ids = _record_ids(texts, rows.num_rows)
        _reject_repeats(ids, lines, faults, find_repeats, is_made="record_id" not in texts)
        groups, group_hashes = self._groups(rows, texts, ids, has_few_queries=has_few_queries)
        nulls = pa.nulls(rows.num_rows, pa.string())
        optional = ("query", "output", "reference", "human_notes", "llm_reasoning")
        table = pa.table(
            {
                "record_id": ids,
                **{name: texts.get(name, nulls) for name in optional},
                **scores,
                "ratings": ratings,
                "metadata": _metadata(rows, self._metadata_names),
                "group": groups,
                "split": splits_of_hashes(group_hashes),
                "line": lines,
            }
        ).select(RECORDS.names)
        is_rejected = faults.is_faulty
        if pc.any(is_rejected).as_py():
            is_sound = pc.invert(is_rejected).to_numpy(zero_copy_only=False)
            table, group_hashes = _choose(table, is_sound), group_hashes[is_sound]
        return ParsedBatch(conform_table(table, RECORDS, "records"), group_hashes, is_rejected, faults.reasons)

    def _groups(
        self, rows: pa.Table, texts: Mapping[str, pa.ChunkedArray], ids: pa.Array, *, has_few_queries: bool
    ) -> tuple[pa.Array, NDArray[np.uint64]]:
        """The group per row, and the hash of the group."""
        if self._group_by is None:
            query = _without_nulls(texts["query"])
            output = _without_nulls(texts["output"]) if has_few_queries else None
            groups = hex_digits(hash_groups(query, output))
        else:
            named = blank_to_null(rows.column(self._columns.get(self._group_by, self._group_by)))
            own = pc.binary_join_element_wise("record ", ids, "")  # a record without a group is a group of its own
            groups = pc.coalesce(named, own).combine_chunks()
        return groups, hash_strings(groups)


def repeats_within(ids: pa.Array, lines: pa.Array, is_sound: pa.Array) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Find the repeats among these rows alone."""
    sound_at = np.flatnonzero(is_sound.to_numpy(zero_copy_only=False))
    codes = ids.filter(is_sound).dictionary_encode().indices.to_numpy()
    first_at = np.unique(codes, return_index=True)[1]  # codes count up in the order of first occurrence
    is_repeat = np.zeros(len(ids), dtype=np.bool_)
    first_lines = np.zeros(len(ids), dtype=np.int64)
    is_repeat[sound_at] = first_at[codes] != np.arange(len(codes)) if len(codes) else False
    first_lines[sound_at] = lines.to_numpy()[sound_at[first_at[codes]]] if len(codes) else 0
    return is_repeat, first_lines


def metadata_columns(records: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """record_id and the named metadata columns as text, null where a record has none.

    Raises:
        InputError: no record has a column of that name.
    """
    metadata = one_array(pa.array(records["metadata"], from_pandas=True))
    known = pc.unique(metadata.keys).to_pylist()
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"no record has the metadata column {unknown}; the columns are {sorted(known)[:20]}")
    values = {name: pc.map_lookup(metadata, pa.scalar(name), "first") for name in names}
    return frame_from_arrow(pa.table({"record_id": pa.array(records["record_id"], from_pandas=True), **values}))


def _choose(table: pa.Table, is_chosen: NDArray[np.bool_]) -> pa.Table:
    """The chosen rows; where nearly all are, as the slices between the others, as filtering copies every text."""
    others = np.flatnonzero(~is_chosen)
    if len(others) > _MAX_CUTS * len(is_chosen):
        return table.filter(pa.array(is_chosen))
    starts, ends = [0, *(others + 1)], [*others, len(is_chosen)]
    return pa.concat_tables([table[start:end] for start, end in zip(starts, ends, strict=True) if end > start])


def _without_nulls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with "" for null; as it is where it has none, as filling copies it."""
    return pc.fill_null(column, "") if column.null_count else column


def _parse_score(texts: Mapping[str, pa.ChunkedArray], name: str, theirs: str, faults: Faults) -> pa.ChunkedArray:
    if name not in texts:
        return pa.nulls(len(texts["output"]), pa.int8())
    scores, is_wrong = parse_scores(texts[name])
    faults.add_values(is_wrong, theirs, texts[name], SCORE_FORMS)
    return scores


def _parse_ratings(rows: pa.Table, raters: Mapping[str, Mapping[str, str]], faults: Faults) -> pa.Array:
    """One list of (annotator, score, notes) per row, of those who gave a score or wrote a note."""
    n_rows, names = rows.num_rows, list(raters)
    if not names:
        return pa.ListArray.from_arrays(pa.array(np.zeros(n_rows + 1), pa.int32()), pa.array([], RATING))
    scores, notes = [], []
    for columns in raters.values():
        text = rows.column(columns["score"])
        parsed, is_wrong = parse_scores(text)
        faults.add_values(is_wrong, columns["score"], text, SCORE_FORMS)
        scores.append(parsed.combine_chunks())
        note = blank_to_null(rows.column(columns["notes"])) if "notes" in columns else pa.nulls(n_rows, pa.string())
        notes.append(one_array(note))
    given = [pc.or_(pc.is_valid(score), pc.is_valid(note)) for score, note in zip(scores, notes, strict=True)]
    is_there = np.column_stack([each.to_numpy(zero_copy_only=False) for each in given])
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
    given = pc.utf8_trim_whitespace(texts.get("record_id", pa.nulls(n_rows, pa.string())))
    if given.null_count:
        query, output = (pc.fill_null(texts[name], "").combine_chunks() for name in ("query", "output"))
        given = pc.coalesce(given, make_ids(query, output))
    return one_array(given)


def _reject_repeats(
    ids: pa.Array, lines: pa.Array, faults: Faults, find_repeats: FindRepeats, *, is_made: bool
) -> None:
    """Reject every occurrence of an id after its first, among the rows that are sound so far."""
    repeats, first_lines = find_repeats(ids, lines, pc.invert(faults.is_faulty))
    if not repeats.any():
        return
    what: pa.Array | str = "same query and output as line "
    if not is_made:
        what = pc.binary_join_element_wise("record_id '", ids, "' repeats that of line ", "")
    faults.add(pa.array(repeats), pc.binary_join_element_wise(what, pa.array(first_lines).cast(pa.string()), ""))


def _metadata(rows: pa.Table, names: list[str]) -> pa.Array:
    """A map per row from the names of the other columns to their texts; a column that is no text is left out."""
    names = [name for name in names if not pa.types.is_binary(rows.schema.field(name).type)]
    n_rows = rows.num_rows
    offsets = pa.array(np.arange(n_rows + 1) * len(names), pa.int32())
    if not names:
        return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), pa.array([], pa.string()))
    keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), n_rows)))
    by_column = pa.concat_arrays([rows.column(name).combine_chunks() for name in names])
    row_major = (np.arange(len(names))[None, :] * n_rows + np.arange(n_rows)[:, None]).ravel()
    return pa.MapArray.from_arrays(offsets, keys, by_column.take(pa.array(row_major)))
