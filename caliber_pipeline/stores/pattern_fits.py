"""Fitted patterns, kept under the fingerprint of their notes, so that criteria versions share their themes."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from upath import UPath

from caliber_pipeline.core.fingerprints import digest, fingerprint_frame
from caliber_pipeline.stores.tables import TableStore

_NOTE_COLUMNS = ("record_id", "text", "polarity", "split")


class PatternFits:
    """A folder of fits, one Parquet file each."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        self._tables = TableStore(UPath(folder))

    def load_or_fit(self, notes: pd.DataFrame, method: str, fit: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The patterns of the notes: those of an earlier fit on the same notes by the same method, else a new fit."""
        key = digest(fingerprint_frame(notes, _NOTE_COLUMNS), method)
        path = self._tables.path("patterns", key)
        if path.exists():
            return self._tables.load_path(path)
        found = fit()
        self._tables.save(found, path, "patterns")
        return found
