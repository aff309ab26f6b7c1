"""Writes a table of any size: one Parquet file while it is small, a folder of them when it is large."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from upath import UPath

from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.settings import LOCAL_PROTOCOLS

ATTRS_KEY: Final = (
    b"PANDAS_ATTRS"  # where pandas itself keeps `DataFrame.attrs`, so that a plain read_parquet shows them
)
MAX_SHARD_ROWS: Final = 1_000_000
MAX_SHARD_BYTES: Final = 1 << 30  # of Arrow memory; a third of it or less on disk
MAX_GROUP_ROWS: Final = 131_072
MAX_GROUP_BYTES: Final = 32 << 20  # larger ones are no faster to read, and the memory that they wait in takes time
N_PREVIEW_ROWS: Final = 5
# a dictionary of these is built in vain
_DISTINCT: Final = ("record_id", "query", "output", "group", "line", "raw", "fingerprint")
AnyPath = TypeVar("AnyPath", Path, UPath)


@dataclass(frozen=True)
class StagedTable:
    """A table that is written but not yet in its place.

    Attributes:
        folder: Where it lies until then.
        n_rows: How many rows it has.
        n_shards: How many files it is.
        attrs: What it was made from.
        preview: Its first rows.
    """

    folder: Path
    n_rows: int
    n_shards: int
    attrs: Mapping[str, str]
    preview: pd.DataFrame = field(repr=False)

    def place(self, path: UPath) -> None:
        """Move the table to where it is read, in place of the one before, and that whole or not at all.

        A folder cannot take another's place in one step: who reads between the two finds no table.
        """
        if is_local(path):
            self._rename(Path(path.path))
        else:
            self._upload(path)
        self.discard()

    def head(self, n_rows: int, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of the first rows, read from where it is staged."""
        files = [str(shard_path(self.folder, number)) for number in range(self.n_shards)]
        return frame_from_arrow(ds.dataset(files, format="parquet").head(n_rows, columns=list(columns)))

    def discard(self) -> None:
        """Remove what is staged."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _rename(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self.folder if self.n_shards > 1 else shard_path(self.folder, 0)
        if self.n_shards > 1 or path.is_dir():
            retired = temporary_path(path.parent, path.name)
            if path.exists():
                path.rename(retired)
            source.rename(path)
            _remove(retired)
        else:
            source.replace(path)
        remove_leftovers(path)

    def _upload(self, path: UPath) -> None:
        """Copy to an object store; the first file, which tells what the table was made from, comes last."""
        if path.fs.isdir(path.path):
            path.fs.rm(path.path, recursive=True)
        if self.n_shards == 1:
            path.fs.put_file(str(shard_path(self.folder, 0)), path.path)
            return
        if path.fs.exists(path.path):
            path.fs.rm(path.path)
        for number in reversed(range(self.n_shards)):
            file = shard_path(self.folder, number)
            path.fs.put_file(str(file), f"{path.path}/{file.name}")


class ShardWriter:
    """Writes rows into staged shards; a row group is written as soon as it is full."""

    def __init__(self, path: UPath, schema: pa.Schema, *, max_shard_rows: int = MAX_SHARD_ROWS) -> None:
        """Stage a table.

        Args:
            path: Where it will be placed: it is staged beside, or in the temporary folder where this is no local path.
            schema: Its schema.
            max_shard_rows: Rows per file.
        """
        self._schema = schema
        self._repeating = repeating_columns(schema)
        self._max_shard_rows = max_shard_rows
        parent = staging_folder(path.parent)
        self._folder = temporary_path(parent, path.name)
        self._folder.mkdir()
        self._pending: list[pa.Table] = []
        self._n_pending_rows = self._n_pending_bytes = 0
        self._first: pq.ParquetWriter | None = None
        self._current: pq.ParquetWriter | None = None
        self._n_shards = self._n_shard_rows = self._n_shard_bytes = 0
        self._preview = schema.empty_table()
        self.n_rows = 0

    def add(self, table: pa.Table) -> None:
        """Take rows in the table's schema."""
        if self._preview.num_rows < N_PREVIEW_ROWS:
            self._preview = pa.concat_tables([self._preview, table])[:N_PREVIEW_ROWS]
        self.n_rows += table.num_rows
        for start in range(0, table.num_rows, MAX_GROUP_ROWS):
            part = table.slice(start, MAX_GROUP_ROWS)
            self._pending.append(part)
            self._n_pending_rows += part.num_rows
            self._n_pending_bytes += part.nbytes
            if self._n_pending_rows >= MAX_GROUP_ROWS or self._n_pending_bytes >= MAX_GROUP_BYTES:
                self._write_group()

    def finish(self, attrs: Mapping[Any, Any]) -> StagedTable:
        """End the table.

        Args:
            attrs: What it was made from.
        """
        if self._n_pending_rows or self._first is None:
            self._write_group()
        if self._current is not None and self._current is not self._first:
            self._current.close()
        if self._first is not None:
            self._first.add_key_value_metadata({ATTRS_KEY: json.dumps(dict(attrs)).encode()})
            self._first.close()
        return StagedTable(self._folder, self.n_rows, self._n_shards, dict(attrs), frame_from_arrow(self._preview))

    def discard(self) -> None:
        """Remove what was written."""
        for writer in {self._first, self._current} - {None}:
            writer.close()  # type: ignore[union-attr]
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write_group(self) -> None:
        if self._current is None or self._n_shard_rows >= self._max_shard_rows or self._n_shard_bytes > MAX_SHARD_BYTES:
            self._open_shard()
        table = pa.concat_tables([self._schema.empty_table(), *self._pending])
        self._pending, self._n_pending_rows, self._n_pending_bytes = [], 0, 0
        self._current.write_table(table, row_group_size=MAX_GROUP_ROWS)  # type: ignore[union-attr]
        self._n_shard_rows += table.num_rows
        self._n_shard_bytes += table.nbytes

    def _open_shard(self) -> None:
        if self._current is not None and self._current is not self._first:
            self._current.close()
        path = shard_path(self._folder, self._n_shards)
        # a stored Arrow schema would hide from readers the metadata that are added at the end
        self._current = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=self._repeating, store_schema=False
        )
        # the first stays open: what the table was made from is known at its end, and stands in the first file
        self._first = self._first or self._current
        self._n_shards += 1
        self._n_shard_rows = self._n_shard_bytes = 0


def repeating_columns(schema: pa.Schema) -> list[str]:
    """Those of which a dictionary saves space, as Parquet names them: 'metadata.key_value.key'."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = (columns.column(number).path for number in range(len(columns)))
    return [path for path in paths if path not in _DISTINCT]


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard of a table lies."""
    return folder / f"part-{number:05d}.parquet"


def is_local(path: UPath) -> bool:
    """Whether the path is one of this machine's file systems."""
    return path.protocol in LOCAL_PROTOCOLS


def require_writable(folder: UPath) -> None:
    """Write an empty file into a folder of an object store, and remove it.

    Raises:
        InputError: that fails: no such bucket, no answer, no right to.
    """
    probe = temporary_path(folder, "probe")
    try:
        # making the folder first would make a bucket of a name that was mistyped
        probe.fs.pipe_file(probe.path, b"")
        probe.fs.rm_file(probe.path)
    except Exception as error:  # each store has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{folder}: cannot be written ({reason}); check its name, the endpoint and the keys"
        ) from error


def open_dataset(path: UPath) -> ds.Dataset:
    """The rows of a Parquet file, or of a folder of them.

    Raises:
        FileNotFoundError: there is none.
    """
    if is_local(path):
        return ds.dataset(path.path, format="parquet")
    if not path.fs.exists(path.path):
        raise FileNotFoundError(str(path))
    return ds.dataset(path.path, filesystem=path.fs, format="parquet")


def write_whole(path: UPath, write: Callable[[Path], object]) -> None:
    """Have a file written under a temporary name and put in its place, in one step.

    Args:
        path: Its place, in a folder that exists.
        write: Writes the file to the path that it is given.
    """
    staged = temporary_path(staging_folder(path.parent), path.name)
    try:
        write(staged)
        if is_local(path):
            staged.replace(path.path)
        else:
            path.fs.put_file(str(staged), path.path)
    finally:
        staged.unlink(missing_ok=True)


def staging_folder(folder: UPath) -> Path:
    """Where to write what goes to a folder in the end: there, or the temporary folder where it is no local one."""
    local = Path(folder.path) if is_local(folder) else Path(tempfile.gettempdir())
    local.mkdir(parents=True, exist_ok=True)
    return local


def remove_leftovers(path: Path) -> None:
    """Remove what processes that are no more had staged for this path, and the tables that theirs took the place of."""
    for left in path.parent.glob(f".{path.name}.*"):
        owner = left.name.removeprefix(f".{path.name}.").partition("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def temporary_path(folder: AnyPath, name: str) -> AnyPath:
    """A name for what will be moved to `name`; it tells which process is at work on it."""
    return folder / f".{name}.{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
