"""Whether a verdict was given on the text that its record has now, as far as a file of annotations tells."""

from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.core.records import ParsedRows

Mask = NDArray[np.bool_]

JUDGED: Final = ("query", "output")  # what was on the annotator's screen, where the file tells
OUTDATED: Final = "had another text when it was judged; judge it again"
RECORD_FINGERPRINT: Final = "record_fingerprint"  # the content hash of what was judged


def reject_outdated(parsed: ParsedRows, rows: pa.Table, records: pd.DataFrame) -> tuple[ParsedRows, Mask]:
    """Reject the annotations on another text than the record's.

    Args:
        parsed: What became of the rows so far.
        rows: The rows as they were read.
        records: record_id, query, output and reference.

    Returns:
        What becomes of them, and per accepted annotation whether its row told what was judged.
    """
    accepted = parsed.table
    is_told, is_other = _compare_texts(rows.filter(pc.invert(parsed.is_rejected)), accepted["record_id"], records)
    if not is_other.any():
        return parsed, is_told
    reasons = np.full(rows.num_rows, None, dtype=object)
    was_rejected = parsed.is_rejected.to_numpy(zero_copy_only=False).astype(np.bool_)
    reasons[was_rejected] = parsed.reasons.to_pylist()
    outdated = np.flatnonzero(~was_rejected)[is_other]
    reasons[outdated] = [f"record '{record_id}' {OUTDATED}" for record_id in accepted["record_id"][is_other]]
    is_rejected = was_rejected.copy()
    is_rejected[outdated] = True
    sound = accepted[~is_other].reset_index(drop=True)
    return ParsedRows(sound, pa.array(is_rejected), pa.array(reasons[is_rejected], pa.string())), is_told[~is_other]


def _compare_texts(rows: pa.Table, record_ids: pd.Series, records: pd.DataFrame) -> tuple[Mask, Mask]:
    """Per row whether it tells what was judged, and whether that is another text than the record's."""
    is_told, is_other = (np.zeros(rows.num_rows, dtype=np.bool_) for _ in range(2))
    by_id = records.drop_duplicates("record_id").set_index("record_id")
    for name in (name for name in JUDGED if name in rows.column_names):
        judged, has_text = _texts(rows, name)
        there = by_id[name].reindex(record_ids).astype(object).to_numpy()
        is_told |= has_text
        is_other |= has_text & np.array(
            [str(a).split() != str(b).split() for a, b in zip(judged, there, strict=True)], dtype=np.bool_
        )
    if RECORD_FINGERPRINT in rows.column_names:
        judged, has_text = _texts(rows, RECORD_FINGERPRINT)
        if has_text.any():
            hashes = pd.Series(content_hashes(by_id), index=by_id.index)
            is_told |= has_text
            is_other |= has_text & (judged != hashes.reindex(record_ids).to_numpy(dtype=object))
    return is_told, is_other


def _texts(rows: pa.Table, name: str) -> tuple[NDArray[np.object_], Mask]:
    texts = rows.column(name).to_pandas().astype(object).to_numpy()
    return texts, np.array([isinstance(text, str) and bool(text.strip()) for text in texts], dtype=np.bool_)
