"""Groups and splits: what belongs together, and which part of the data may be used for what."""

import binascii
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from caliber_pipeline.core.conforming import one_array
from caliber_pipeline.core.fingerprints import hash_strings, hash_texts
from caliber_pipeline.core.text_bytes import is_ascii, rows_of_bytes, text_bytes

SPLITS: Final = ("train", "dev", "test")
ALL: Final = "all"  # the records of every split, in figures
CALIBRATION: Final = "calibration"  # the part of test that abstention is learned on, and no figure on test counts
DEV_SHARE: Final = 0.4  # of all groups
_SPLIT_OF_BUCKET: Final = np.array([0] * 4 + [1] * 4 + [2] * 2)  # train, dev, test: 40/40/20
MIN_DISTINCT_QUERIES: Final = (
    20  # with fewer, most records share a query: grouping by it would leave no groups to split
)
MIN_GROUPS: Final = 20  # under it a split by groups is too coarse for a decision to rest on


def default_groups(query: pd.Series, output: pd.Series) -> pd.Series:
    """Group keys by normalised query, or by query and output where there are too few distinct queries.

    Normalised means lower case and single spaces, so that near-duplicates share a group. A key is 16 hex digits.
    """
    queries, outputs = (pa.array(texts, pa.string(), from_pandas=True) for texts in (query, output))
    hashes = hash_groups(queries, outputs if has_few(distinct_queries(queries)) else None)
    return pd.Series(hex_digits(hashes), index=query.index, dtype="string[pyarrow]")


def distinct_queries(query: pa.ChunkedArray | pa.Array, known: pa.Array | None = None) -> pa.Array:
    """The distinct normalised queries, with those known before: as many as it takes to see that they are not few."""
    both = pc.unique(normalise(query))
    if known is not None:
        both = pc.unique(pa.concat_arrays([known, both]))
    return both[:MIN_DISTINCT_QUERIES]


def has_few(distinct: pa.Array) -> bool:
    """Whether these distinct queries are too few to group by."""
    return len(distinct) < MIN_DISTINCT_QUERIES


def hash_groups(query: pa.ChunkedArray | pa.Array, output: pa.ChunkedArray | pa.Array | None) -> NDArray[np.uint64]:
    """The hash whose hex digits are the default group, per row; with the output where there are few queries."""
    keys = normalise(query)
    if output is not None:
        keys = pc.binary_join_element_wise(keys, normalise(output), "\n")
    return hash_strings(keys)


def normalise(texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Lower case, single spaces, none at the ends."""
    flat = one_array(texts)
    lower = pc.ascii_lower(flat) if is_ascii(flat) else pc.utf8_lower(flat)  # a tenth of the time
    may_change = _may_have_runs(lower)
    if may_change.any():
        mask = pa.array(may_change)
        single = pc.replace_substring_regex(lower.filter(mask), r"\s+", " ")
        lower = pc.replace_with_mask(lower, mask, single)
    return pc.utf8_trim_whitespace(lower)


def _may_have_runs(texts: pa.Array) -> NDArray[np.bool_]:
    """Whether a text has white space other than single spaces; seldom true of one without, which is then unharmed."""
    offsets, bytes_ = text_bytes(texts)
    is_found = (bytes_ >= ord("\t")) & (bytes_ <= ord("\r"))
    is_found[1:] |= (bytes_[1:] == ord(" ")) & (bytes_[:-1] == ord(" "))
    has_runs = np.zeros(len(texts), dtype=np.bool_)
    has_runs[rows_of_bytes(offsets, is_found)] = True
    return has_runs


def hex_digits(hashes: NDArray[np.uint64]) -> pa.Array:
    """16 hex digits per hash, as texts."""
    digits = binascii.hexlify(hashes.astype(">u8").tobytes())
    offsets = pa.array(np.arange(len(hashes) + 1) * 16, pa.int32())
    return pa.StringArray.from_buffers(len(hashes), offsets.buffers()[1], pa.py_buffer(digits))


def content_ids(query: pd.Series, output: pd.Series) -> pd.Series:
    """Stable record ids made from the content: 'r-' and 16 hex digits; equal content gives equal ids."""
    texts = (pa.array(column, pa.string(), from_pandas=True) for column in (query, output))
    return pd.Series(make_ids(*texts), dtype="string[pyarrow]")


def make_ids(query: pa.ChunkedArray | pa.Array, output: pa.ChunkedArray | pa.Array) -> pa.Array:
    """As `content_ids`, for Arrow columns without nulls."""
    digits = hex_digits(hash_strings(pc.binary_join_element_wise(query, output, "\x1f")))
    return pc.binary_join_element_wise("r-", digits, "")


def splits_of_hashes(hashes: NDArray[np.uint64]) -> pa.Array:
    """train, dev or test (40/40/20) from the hashes of the group keys, which are stable: adding records moves none."""
    return pa.array(SPLITS, pa.string()).take(pa.array(_SPLIT_OF_BUCKET[hashes % np.uint64(10)]))


def set_aside_calibration(split: pd.Series, group: pd.Series) -> pd.Series:
    """The splits with `calibration` for half of the groups of test, by a stable hash of the group."""
    is_chosen = hash_texts("abstention\x1f" + group.astype("string[pyarrow]")) % np.uint64(2) == 0
    return split.astype("string[pyarrow]").mask((split == "test").to_numpy(dtype=bool) & is_chosen, CALIBRATION)
