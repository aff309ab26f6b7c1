"""Fingerprints: what a number was made from, in a form that two runs can compare."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from caliber_pipeline.core.criteria import Criteria

_MIX: Final = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SLICE: Final = 2048  # texts whose copies fit into a processor's cache
_SLICE_BYTES: Final = 1 << 20  # of records that are put together to be hashed
_HASH_KEY: Final = "0123456789123456"  # pandas' own
_NULL_HASH: Final = np.uint64(0xA5A5_5A5A_C3C3_3C3C)
_NULL_PART: Final = b"\xff"  # in no text: it is not UTF-8


def digest(*parts: str | None) -> str:
    """sha256 over the parts, each with its length, so that no two lists of parts run together."""
    hasher = hashlib.sha256()
    for part in parts:
        data = _NULL_PART if part is None else part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.hexdigest()


def hash_texts(texts: pd.Series) -> NDArray[np.uint64]:
    """A stable 64-bit hash per text (SipHash with pandas' fixed key), vectorised, equal on every machine."""
    values = texts.to_numpy(dtype=object, na_value="")
    return pd.util.hash_array(values, categorize=False)


def hash_strings(texts: pa.ChunkedArray | pa.Array, key: str = _HASH_KEY) -> NDArray[np.uint64]:
    """As `hash_texts`, for an Arrow column without nulls; another key of 16 bytes gives independent hashes."""
    bytes_ = texts.cast(pa.binary())  # not texts, which would be decoded only to be encoded again
    parts = [
        pd.util.hash_array(part.to_numpy(zero_copy_only=False), categorize=False, hash_key=key)
        for part in (bytes_[start : start + _SLICE] for start in range(0, len(bytes_), _SLICE))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def _mix(values: NDArray[np.uint64]) -> None:
    """Spread each value over all 64 bits, in place, as the generator SplitMix64 does with its state."""
    values ^= values >> np.uint64(30)
    values *= _MIX[1]
    values ^= values >> np.uint64(27)
    values *= _MIX[2]
    values ^= values >> np.uint64(31)


class RowsFingerprint:
    """Fingerprint of rows that come in batches; neither their order nor the batches matter, their number does."""

    def __init__(self, columns: Sequence[str]) -> None:
        """Fingerprint the rows over `columns`."""
        self._columns = tuple(columns)
        self._n_rows = 0
        self._sums = [0, 0]

    def add(self, table: pa.Table, known: Mapping[str, NDArray[np.uint64]] = MappingProxyType({})) -> None:
        """Take a batch; `known` are the hashes of columns without nulls, where they have been made already."""
        row_hashes = np.zeros(table.num_rows, dtype=np.uint64)
        for name in self._columns:
            row_hashes *= _MIX[0]
            row_hashes += known[name] if name in known else _hash_column(table.column(name).combine_chunks())
        self._n_rows += table.num_rows
        for place, factor in enumerate(_MIX[1:]):
            mixed = row_hashes * factor
            _mix(mixed)
            self._sums[place] = (self._sums[place] + int(mixed.sum(dtype=np.uint64))) % 2**64

    def hexdigest(self) -> str:
        """The fingerprint of all rows so far."""
        return digest(str(self._n_rows), *(str(total) for total in self._sums))


def fingerprint_frame(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Fingerprint of the rows over `columns`; the order of rows does not matter, their number does."""
    fingerprint = RowsFingerprint(columns)
    fingerprint.add(pa.table({name: pa.array(frame[name], from_pandas=True) for name in columns}))
    return fingerprint.hexdigest()


def _hash_column(column: pa.Array) -> NDArray[np.uint64]:
    """A hash per value by its text; null has one of its own."""
    if not pa.types.is_string(column.type) and not pa.types.is_null(column.type):
        distinct = column.dictionary_encode()
        hashes = np.append(_hash_column(distinct.dictionary.cast(pa.string())), _NULL_HASH)
        at: NDArray[np.int64] = pc.fill_null(distinct.indices.cast(pa.int64()), len(hashes) - 1).to_numpy()
        return hashes[at]
    if column.null_count == len(column):
        return np.full(len(column), _NULL_HASH)
    hashes = hash_strings(column)
    if column.null_count:
        hashes[column.is_null().to_numpy(zero_copy_only=False)] = _NULL_HASH
    return hashes


def content_hashes(records: pd.DataFrame) -> list[str]:
    """One hash per record over what a judge reads of it: query, output, reference."""
    names = ("query", "output", "reference")
    return _digest_rows([pa.array(records[name], pa.string(), from_pandas=True) for name in names])


def content_hash_by_id(records: pd.DataFrame) -> dict[str, str]:
    """The content hash of each record, by its record_id."""
    return dict(zip(records["record_id"], content_hashes(records), strict=True))


def _digest_rows(columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[str]:
    """The `digest` of each row's texts, put together by columns."""
    parts = [pc.fill_null(column.cast(pa.large_binary()), _NULL_PART) for column in columns]
    lengths = [pc.binary_length(part).to_numpy() for part in parts]
    digests: list[str] = []
    for rows in _slices(sum(lengths)):
        framed = [
            column
            for part, length in zip(parts, lengths, strict=True)
            for column in (_big_endian(length[rows]), part[rows])
        ]
        joined = pc.binary_join_element_wise(*framed, pa.scalar(b"", pa.large_binary()))
        digests += [hashlib.sha256(data).hexdigest() for data in joined.to_numpy(zero_copy_only=False)]
    return digests


def _slices(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Rows one after the other, of about _SLICE_BYTES together."""
    starts = np.flatnonzero(np.diff(np.cumsum(sizes) // _SLICE_BYTES, prepend=-1))
    return map(slice, starts, [*starts[1:], len(sizes)])


def _big_endian(numbers: NDArray[np.int64]) -> pa.Array:
    """Each number as eight bytes."""
    data = pa.py_buffer(numbers.astype(">u8").tobytes())
    return pa.Array.from_buffers(pa.binary(8), len(numbers), [None, data]).cast(pa.large_binary())


def verdict_fingerprints(
    hashes: Iterable[str], criteria: Criteria, identity: Mapping[str, str | int | float | None]
) -> list[str]:
    """One sha256 per record over all that its verdict depends on.

    Args:
        hashes: The records' content hashes.
        criteria: Only what the judge is told counts: text, system prompt, clauses, examples.
        identity: The judge's side: provider, model, sampling, template version.
    """
    told = criteria.model_dump(mode="json", include={"criteria", "system_prompt", "clauses", "examples"})
    task = digest(json.dumps(told, sort_keys=True), json.dumps(dict(identity), sort_keys=True))
    contents = pa.array(hashes, pa.string())
    return _digest_rows([pa.repeat(task, len(contents)), contents])
