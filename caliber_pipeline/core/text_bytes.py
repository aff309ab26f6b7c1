"""The bytes of a column of texts, looked at all at once where a look at each text would take ten times as long."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_bytes(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The bytes of all texts one after the other, without a copy.

    Returns:
        Where in the bytes each text begins, and where the last one ends; and the bytes.
    """
    _, offset_buffer, data = texts.buffers()
    if data is None or not len(texts):
        return np.zeros(len(texts) + 1, dtype=np.int32), np.zeros(0, dtype=np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32, len(texts) + 1, texts.offset * 4)
    return offsets - offsets[0], np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]


def rows_of_bytes(offsets: NDArray[np.int32], is_found: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The text in which each found byte stands, in their order."""
    rows: NDArray[np.intp] = np.searchsorted(offsets, np.flatnonzero(is_found), side="right") - 1
    return rows


def is_ascii(texts: pa.Array) -> bool:
    """Whether no text has any other character."""
    _, bytes_ = text_bytes(texts)
    return not len(bytes_) or int(bytes_.max()) < 128
