"""Records in shards that do not depend on their order, and what became of each: a file per shard, whole or not there.

FOLDER/records/part-00003.arrows   the records of shard 3, put there by a hash of their ids; an Arrow IPC stream
FOLDER/output/part-00003.parquet   what became of them; the folder is the result when all are there
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from caliber_pipeline.core.conforming import arrow_from_frame, frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_strings
from caliber_pipeline.stores.shards import (
    is_local,
    open_dataset,
    remove_leftovers,
    repeating_columns,
    shard_path,
    staging_folder,
    temporary_path,
    write_whole,
)

ROWS_PER_SHARD: Final = 16_384  # what is lost at most when a shard is interrupted, where nothing else keeps it
BYTES_PER_SHARD: Final = 64 << 20  # of texts: a shard is judged in memory, as it is, sorted, and with its prompts
MAX_SHARDS: Final = 512  # files that are open at once while records are put into shards; systems allow 1,024
_PLAN: Final = "plan.json"
_COMPLETE: Final = "complete"
_STREAM: Final = ".arrows"  # as Arrow recommends for its IPC streams
_FLUSH_BYTES: Final = 64 << 20
_Writers = dict[int, pa.ipc.RecordBatchStreamWriter]
# a shard gets many small pieces, which cost Parquet as much as large ones
_WRITE_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ_OPTIONS: Final = pa.ipc.IpcReadOptions(use_threads=False)  # threads would cost more than the pieces


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

    def after(self, n_rows: int) -> "ShardProgress":
        """One more shard is done, of so many rows."""
        return ShardProgress(self.n_shards, self.n_done + 1, self.n_rows + n_rows)


class ShardedWork:
    """The shards of one piece of work, in a folder of its own or below an object store's prefix."""

    def __init__(self, folder: UPath, key: str, *, n_shards: int) -> None:
        """Open the folder, as new or as an earlier run left it.

        Args:
            folder: Where the shards lie.
            key: What the result depends on: the records' and the criteria's fingerprints, the judge.
            n_shards: How many a new folder gets, as by `count_shards`; one that is there keeps its own.

        Raises:
            InputError: the folder holds the shards of other work.
        """
        self.folder = folder
        self._records = folder / "records"
        self.output = folder / "output"
        for part in (self._records, self.output):
            part.mkdir(parents=True, exist_ok=True)
        plan = folder / _PLAN
        if not plan.exists():
            text = json.dumps({"key": key, "n_shards": n_shards})
            write_whole(plan, lambda path: path.write_text(text, encoding="utf-8"))
        planned = json.loads(plan.read_text(encoding="utf-8"))
        if planned["key"] != key:
            raise InputError(f"{folder}: holds the shards of other records or criteria; name another folder")
        self.n_shards = int(planned["n_shards"])

    def partition(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Put records into their shards, unless an earlier run has; memory does not grow with their number.

        Args:
            batches: The records; a column `record_id` decides on the shard.
        """
        complete = self._records / _COMPLETE
        if complete.exists():
            return
        staged = Path(self._records.path)
        if not is_local(self._records):
            staged = temporary_path(staging_folder(self._records), self.folder.name)
            staged.mkdir()
        try:
            _distribute_all(batches, staged, self.n_shards)
            if not is_local(self._records):
                for path in staged.iterdir():
                    self._records.fs.put_file(str(path), f"{self._records.path}/{path.name}")
        finally:
            if not is_local(self._records):
                shutil.rmtree(staged, ignore_errors=True)
        write_whole(complete, lambda path: path.touch())

    def shards(self) -> list[int]:
        """The shards that have records."""
        return _numbers(self._records, _STREAM)

    def shards_done(self) -> list[int]:
        """The shards that have a result."""
        return _numbers(self.output, ".parquet")

    def load_records(self, shard: int) -> pd.DataFrame:
        """The records of a shard, in the order of their ids."""
        with _stream_path(self._records, shard).open("rb") as file:
            table = pa.ipc.open_stream(file, options=_READ_OPTIONS).read_all()
        return frame_from_arrow(table.sort_by("record_id"))

    def load_output(self, shard: int, columns: list[str] | None = None) -> pd.DataFrame:
        """What became of a shard's records.

        Raises:
            FileNotFoundError: nothing yet.
        """
        _forget_listing(self.output)
        return frame_from_arrow(open_dataset(_part(self.output, shard)).to_table(columns=columns))

    def save_output(self, shard: int, result: pd.DataFrame, schema_name: str) -> None:
        """Store what became of a shard's records, in place of what may be there.

        Raises:
            SchemaError: the result breaks the schema declared under `schema_name`.
        """
        table = arrow_from_frame(result, schema_name)
        path = _part(self.output, shard)
        if is_local(path):
            remove_leftovers(Path(path.path))
        repeating = repeating_columns(table.schema)
        write_whole(path, lambda staged: pq.write_table(table, staged, compression="zstd", use_dictionary=repeating))


def count_shards(n_rows: int, n_bytes: int = 0) -> int:
    """A power of two, so that a few more records do not change it.

    Args:
        n_rows: Records; shards are of about ROWS_PER_SHARD.
        n_bytes: Of their texts; shards are of about BYTES_PER_SHARD where that makes more of them.
    """
    n_shards = 1
    while n_shards < MAX_SHARDS and (n_shards * ROWS_PER_SHARD < n_rows or n_shards * BYTES_PER_SHARD < n_bytes):
        n_shards *= 2
    return n_shards


def _part(folder: UPath, shard: int) -> UPath:
    return folder / shard_path(Path(), shard).name


def _stream_path(folder: UPath, shard: int) -> UPath:
    return _part(folder, shard).with_suffix(_STREAM)


def _numbers(folder: UPath, suffix: str) -> list[int]:
    _forget_listing(folder)
    return sorted(int(path.stem.removeprefix("part-")) for path in folder.glob(f"part-*{suffix}"))


def _forget_listing(folder: UPath) -> None:
    if not is_local(folder):
        folder.fs.invalidate_cache(folder.path)  # other machines write there too


def _distribute_all(batches: Iterable[pa.RecordBatch], folder: Path, n_shards: int) -> None:
    writers: _Writers = {}
    pending: list[pa.RecordBatch] = []
    n_bytes = 0
    try:
        for batch in batches:
            if pending and n_bytes + batch.nbytes > _FLUSH_BYTES:
                _distribute(pa.Table.from_batches(pending), folder, n_shards, writers)
                pending, n_bytes = [], 0
            pending.append(batch)
            n_bytes += batch.nbytes
        if pending:
            _distribute(pa.Table.from_batches(pending), folder, n_shards, writers)
    finally:
        for writer in writers.values():
            writer.close()


def _distribute(table: pa.Table, folder: Path, n_shards: int, writers: _Writers) -> None:
    shards = hash_strings(table.column("record_id")) % np.uint64(n_shards)
    ordered = table.take(pa.array(np.argsort(shards, kind="stable")))
    ends = np.cumsum(np.bincount(shards.astype(np.int64), minlength=n_shards))
    for shard, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if end > start:
            if shard not in writers:
                path = shard_path(folder, shard).with_suffix(_STREAM)
                writers[shard] = pa.ipc.new_stream(str(path), table.schema, options=_WRITE_OPTIONS)
            writers[shard].write_table(ordered.slice(start, end - start))
