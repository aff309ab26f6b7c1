"""Fingerprints: what a number was made from, in a form that two runs can compare."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from caliber_pipeline.core.criteria import Criteria


def digest(*parts: str | None) -> str:
    """sha256 over the parts, each with its length, so that no two lists of parts run together."""
    hasher = hashlib.sha256()
    for part in parts:
        data = b"\xff" if part is None else part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.hexdigest()


def hash_texts(texts: pd.Series) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A stable 64-bit hash per text (SipHash with pandas' fixed key), vectorised, equal on every machine."""
    values = texts.to_numpy(dtype=object, na_value="")
    return pd.util.hash_array(values, categorize=False)


def fingerprint_frame(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Fingerprint of the rows over `columns`; the order of rows does not matter, their number does."""
    row_hashes = np.zeros(len(frame), dtype=np.uint64)
    for column in columns:
        texts = frame[column].astype("string[pyarrow]").fillna("\0null")
        row_hashes = row_hashes * np.uint64(0x9E3779B97F4A7C15) + hash_texts(texts)
    row_hashes.sort()
    return hashlib.sha256(row_hashes.tobytes()).hexdigest()


def content_hashes(records: pd.DataFrame) -> list[str]:
    """One hash per record over what a judge reads of it: query, output, reference."""
    columns = (records[c].astype(object) for c in ("query", "output", "reference"))
    texts = (column.where(column.notna(), None) for column in columns)
    return [digest(*row) for row in zip(*texts, strict=True)]


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
    return [digest(task, content) for content in hashes]
