"""Work on records in shards that do not depend on their order: each is done once, whole or not at all, and then kept.

FOLDER/input/part-00003.parquet    the records of shard 3, put there by a hash of their ids
FOLDER/output/part-00003.parquet   what became of them; the folder is the result when all are there
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_strings
from caliber_pipeline.core.schemas import arrow_from_frame, frame_from_arrow
from caliber_pipeline.stores.shards import remove_leftovers, shard_path, temporary_path

ROWS_PER_SHARD: Final = 16_384  # what is lost at most when a shard is interrupted, where nothing else keeps it
MAX_SHARDS: Final = 512  # files that are open at once while records are put into shards; systems allow 1,024
_PLAN: Final = "plan.json"
_FLUSH_BYTES: Final = 64 << 20

Work = Callable[[pd.DataFrame], pd.DataFrame]
"""From the records of a shard to the rows of its result."""


@dataclass(frozen=True)
class ShardProgress:
    """How far the work is.

    Attributes:
        n_shards: Shards in all.
        n_done: Shards that are done, those of earlier runs included.
        n_rows: Rows of the shards that are done.
    """

    n_shards: int
    n_done: int
    n_rows: int


class ShardedWork:
    """The shards of one piece of work, in a folder of its own."""

    def __init__(self, folder: Path, key: str, *, n_shards: int) -> None:
        """Open the folder, as new or as an earlier run left it.

        Args:
            folder: Where the shards lie.
            key: What the result depends on: the records' and the criteria's fingerprints, the judge.
            n_shards: How many there are; `count_shards` gives a fitting number.

        Raises:
            InputError: the folder holds the shards of other work.
        """
        self.folder = folder
        self.n_shards = n_shards
        self._plan = {"key": key, "n_shards": n_shards}
        folder.mkdir(parents=True, exist_ok=True)
        try:
            plan = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            _write_text(folder / _PLAN, json.dumps(self._plan))
        else:
            if plan != self._plan:
                raise InputError(f"{folder}: holds the shards of other records or criteria; name another folder")
        for part in (self._input, self.output):
            part.mkdir(exist_ok=True)

    @property
    def output(self) -> Path:
        """The folder of the results: a Parquet data set, complete when every shard is done."""
        return self.folder / "output"

    @property
    def _input(self) -> Path:
        return self.folder / "input"

    def partition(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Put records into their shards, unless an earlier run has; memory does not grow with their number.

        Args:
            batches: The records; a column `record_id` decides on the shard.
        """
        is_complete = self._input / "complete"
        if is_complete.exists():
            return
        writers: dict[int, pq.ParquetWriter] = {}
        pending: list[pa.RecordBatch] = []
        try:
            for batch in batches:
                pending.append(batch)
                if sum(waiting.nbytes for waiting in pending) >= _FLUSH_BYTES:
                    self._distribute(pa.Table.from_batches(pending), writers)
                    pending.clear()
            if pending:
                self._distribute(pa.Table.from_batches(pending), writers)
        finally:
            for writer in writers.values():
                writer.close()
        _write_text(is_complete, "")

    def _distribute(self, table: pa.Table, writers: dict[int, pq.ParquetWriter]) -> None:
        shards = hash_strings(table.column("record_id")) % np.uint64(self.n_shards)
        order = np.argsort(shards, kind="stable")
        ordered = table.take(pa.array(order))
        ends = np.cumsum(np.bincount(shards.astype(np.int64), minlength=self.n_shards))
        for shard, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                if shard not in writers:
                    path = shard_path(self._input, shard)
                    writers[shard] = pq.ParquetWriter(path, table.schema, compression="zstd")
                writers[shard].write_table(ordered.slice(start, end - start))

    def open_shards(self) -> list[int]:
        """The shards that have records and no result yet."""
        numbers = (int(path.stem.removeprefix("part-")) for path in self._input.glob("part-*.parquet"))
        return sorted(number for number in numbers if not shard_path(self.output, number).exists())

    def progress(self) -> ShardProgress:
        """How far the work is, by what lies in the folder."""
        done = list(self.output.glob("part-*.parquet"))
        n_rows = sum(pq.read_metadata(path).num_rows for path in done)
        return ShardProgress(len(list(self._input.glob("part-*.parquet"))), len(done), n_rows)

    def load_input(self, shard: int) -> pd.DataFrame:
        """The records of a shard, in the order of their ids."""
        table = pq.read_table(shard_path(self._input, shard))
        return frame_from_arrow(table.sort_by("record_id"))

    def do_shard(self, shard: int, work: Work, schema_name: str) -> int:
        """Do the work of a shard and store what comes of it; returns its number of rows.

        Raises:
            SchemaError: the result breaks the schema declared under `schema_name`.
        """
        result = work(self.load_input(shard))
        table = arrow_from_frame(result, schema_name)
        path = shard_path(self.output, shard)
        remove_leftovers(path)
        temporary = temporary_path(self.output, path.name)
        try:
            pq.write_table(table, temporary, compression="zstd")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return len(result)

    def run(self, work: Work, schema_name: str, on_progress: Callable[[ShardProgress], None] | None = None) -> None:
        """Do all shards that are not done, one after the other."""
        progress = self.progress()
        for shard in self.open_shards():
            n_rows = self.do_shard(shard, work, schema_name)
            progress = ShardProgress(progress.n_shards, progress.n_done + 1, progress.n_rows + n_rows)
            if on_progress is not None:
                on_progress(progress)


def count_shards(n_rows: int) -> int:
    """A power of two, so that a few more records do not change it, of shards of about ROWS_PER_SHARD rows."""
    n_shards = 1
    while n_shards * ROWS_PER_SHARD < n_rows and n_shards < MAX_SHARDS:
        n_shards *= 2
    return n_shards


def _write_text(path: Path, text: str) -> None:
    temporary = temporary_path(path.parent, path.name)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105 as pathlib's, without its return value
