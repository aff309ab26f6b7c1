"""Groups and splits: what belongs together, and which part of the data may be used for what."""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.fingerprints import hash_texts

SPLITS: Final = ("train", "dev", "test")
_SPLIT_OF_BUCKET: Final = np.array(["train"] * 4 + ["dev"] * 4 + ["test"] * 2, dtype=object)  # 40/40/20
MIN_DISTINCT_QUERIES: Final = (
    20  # with fewer, most records share a query: grouping by it would leave no groups to split
)
MIN_GROUPS: Final = 20  # under it a split by groups is too coarse for a decision to rest on


def default_groups(query: pd.Series, output: pd.Series) -> pd.Series:
    """Group keys by normalised query, or by query and output where there are too few distinct queries.

    Normalised means lower case and single spaces, so that near-duplicates share a group. A key is 16 hex digits.
    """
    keys = _normalise(query)
    if keys.nunique() < MIN_DISTINCT_QUERIES:
        keys = keys + "\n" + _normalise(output)
    return pd.Series(_hex(hash_texts(keys)), index=query.index, dtype="string[pyarrow]")


def _normalise(texts: pd.Series) -> pd.Series:
    return texts.astype("string[pyarrow]").str.lower().str.replace(r"\s+", " ", regex=True).str.strip()


def _hex(hashes: NDArray[np.uint64]) -> NDArray[np.bytes_]:
    """16 hex digits per hash, vectorised."""
    digits = hashes.astype(">u8").view(np.uint8).reshape(-1, 8)
    table = np.array([f"{value:02x}" for value in range(256)], dtype="S2")
    return table[digits].view("S16").reshape(-1).astype(str)


def content_ids(query: pd.Series, output: pd.Series) -> pd.Series:
    """Stable record ids made from the content: 'r-' and 16 hex digits; equal content gives equal ids."""
    keys = query.astype("string[pyarrow]") + "\x1f" + output.astype("string[pyarrow]")
    return pd.Series(["r-"], dtype="string[pyarrow]").repeat(len(keys)).reset_index(drop=True) + pd.Series(
        _hex(hash_texts(keys)), dtype="string[pyarrow]"
    )


def split_groups(groups: pd.Series) -> pd.Series:
    """train, dev or test per group key (40/40/20) by a stable hash: adding records moves none."""
    buckets = hash_texts(groups) % np.uint64(10)
    return pd.Series(_SPLIT_OF_BUCKET[buckets], index=groups.index, dtype="string[pyarrow]")
