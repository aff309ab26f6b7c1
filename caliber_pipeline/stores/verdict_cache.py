"""Verdicts that were paid for, kept under their fingerprints in one SQLite file."""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import pyarrow as pa

from caliber_pipeline.core import schemas
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.verdicts import VERDICTS
from caliber_pipeline.stores.sqlite_errors import is_broken

CACHED_STATUSES: Final = frozenset({"scored", "unparseable", "refused"})
"""What a model said is kept, whatever it said; a call that failed is tried again in the next run."""

_BUSY_TIMEOUT_S: Final = 60.0
_LAYOUT_VERSION: Final = 1
_MAX_VARIABLES: Final = 900  # SQLite's smallest compiled-in limit of variables in a statement is 999
_FIELDS: Final = [field for field in VERDICTS if field.name != "record_id"]
CACHED_VERDICTS: Final = pa.schema([schemas.JUDGE_SCORES.field("fingerprint"), *_FIELDS])
"""The layout of what the cache takes and gives: a verdict without its record."""

_COLUMNS: Final = ", ".join(field.name for field in _FIELDS)
_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS verdicts (
    fingerprint BLOB PRIMARY KEY, created_at REAL NOT NULL, {_COLUMNS}
) WITHOUT ROWID
"""
_INSERT: Final = (
    f"INSERT OR IGNORE INTO verdicts (fingerprint, created_at, {_COLUMNS}) "  # noqa: S608 names are our own
    f"VALUES (?, ?{', ?' * len(_FIELDS)})"
)


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds.

    Attributes:
        path: The database file.
        n_verdicts: Verdicts in it.
        n_bytes: Size on disk, the write-ahead log included.
        n_by_model: Verdicts by "provider/model".
        oldest: When the oldest verdict was stored; None where there is none.
        newest: When the newest verdict was stored; None where there is none.
    """

    path: Path
    n_verdicts: int
    n_bytes: int
    n_by_model: dict[str, int]
    oldest: datetime | None
    newest: datetime | None


class Verdicts(Protocol):
    """Where a run reads known verdicts, and keeps new ones."""

    def get_many(self, fingerprints: Sequence[str]) -> pa.Table:
        """Those that are there, as of `VerdictCache`."""
        ...

    def put_many(self, verdicts: pa.Table) -> None:
        """Keep them, as of `VerdictCache`."""
        ...


class VerdictCache:
    """A persistent map from fingerprint to verdict.

    Several threads and several processes on one machine may use one file at a time: SQLite in WAL mode lets readers
    run beside one writer, and a writer waits for another. A committed batch survives the death of the process. The
    file must not lie on a network file system, where WAL does not work.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the database.

        Args:
            path: The database file; its folder is made where missing.
            clock: Seconds since the epoch, for the verdicts' dates.

        Raises:
            InputError: the file cannot be opened, is no verdict cache, or was made by a later version of this package.
        """
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._unusable(error) from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _unusable(self, error: OSError | sqlite3.DatabaseError) -> InputError:
        """What to say; to remove the file is advised only where no verdict can be read from it."""
        if is_broken(error):
            return InputError(f"{self._path}: no verdict cache ({error}); name another file or remove it")
        return InputError(f"{self._path}: cannot be used as verdict cache ({error}); mend that, or name another file")

    def _prepare(self) -> None:
        try:
            _retry_while_busy(lambda: self._connection.execute("PRAGMA journal_mode = WAL"))
            self._connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version not in {0, _LAYOUT_VERSION}:
                raise InputError(
                    f"{self._path}: a verdict cache of layout {version}, but this package reads "
                    f"{_LAYOUT_VERSION}; update the package or name another file"
                )
            if version == 0:
                _retry_while_busy(lambda: self._connection.execute(_CREATE))
                _retry_while_busy(lambda: self._connection.execute(f"PRAGMA user_version = {_LAYOUT_VERSION}"))
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        """Return the open cache."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the cache."""
        self.close()

    def close(self) -> None:
        """Close the database; the cache cannot be used any more."""
        with self._lock:
            self._connection.close()

    def get_many(self, fingerprints: Sequence[str]) -> pa.Table:
        """The verdicts that are there, one row per known fingerprint, in any order, in the layout CACHED_VERDICTS."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(fingerprints), _MAX_VARIABLES):
            keys = [bytes.fromhex(fingerprint) for fingerprint in fingerprints[start : start + _MAX_VARIABLES]]
            marks = ", ".join("?" * len(keys))
            query = f"SELECT fingerprint, {_COLUMNS} FROM verdicts WHERE fingerprint IN ({marks})"  # noqa: S608
            with self._lock:
                found += self._connection.execute(query, keys).fetchall()
        keys_found, *columns = zip(*found, strict=True) if found else [()] * len(CACHED_VERDICTS)
        arrays = [pa.array([key.hex() for key in keys_found], pa.string())]
        arrays += [pa.array(column, field.type) for column, field in zip(columns, _FIELDS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=CACHED_VERDICTS)

    def put_many(self, verdicts: pa.Table) -> None:
        """Store verdicts of the layout CACHED_VERDICTS in one transaction.

        Rows whose status is not in CACHED_STATUSES are left out; of two verdicts under one fingerprint the first
        stays, so that a repeated run reads what the first one read.
        """
        now = self._clock()
        columns = [verdicts.column(field.name).to_pylist() for field in _FIELDS]
        fingerprints = verdicts.column("fingerprint").to_pylist()
        statuses = verdicts.column("status").to_pylist()
        rows = [
            (bytes.fromhex(fingerprint), now, *row)
            for fingerprint, status, row in zip(fingerprints, statuses, zip(*columns, strict=True), strict=True)
            if status in CACHED_STATUSES
        ]
        if rows:
            with self._lock:
                self._write(lambda: self._connection.executemany(_INSERT, rows))

    def is_empty(self) -> bool:
        """Whether it holds nothing."""
        with self._lock:
            return self._connection.execute("SELECT 1 FROM verdicts LIMIT 1").fetchone() is None

    def stats(self) -> CacheStats:
        """Number, size and age of what is stored."""
        with self._lock:
            count, oldest, newest = self._connection.execute(
                "SELECT count(*), min(created_at), max(created_at) FROM verdicts"
            ).fetchone()
            by_model = self._connection.execute(
                "SELECT provider || '/' || model, count(*) FROM verdicts GROUP BY 1 ORDER BY 2 DESC, 1"
            ).fetchall()
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        n_bytes = sum(file.stat().st_size for file in files if file.exists())
        return CacheStats(self._path, count, n_bytes, dict(by_model), _moment(oldest), _moment(newest))

    def prune(self, *, before: datetime | None = None, statuses: Sequence[str] = ()) -> int:
        """Remove verdicts and give their space back to the disk.

        Args:
            before: Only those stored earlier; None for any age.
            statuses: Only those of these statuses, as to have refused records judged again; empty for any status.

        Returns:
            How many were removed.
        """
        limit = float("inf") if before is None else before.timestamp()
        condition, values = "created_at < ?", [limit, *statuses]
        if statuses:
            condition += f" AND status IN ({', '.join('?' * len(statuses))})"
        removed = 0

        def delete() -> None:
            nonlocal removed
            removed = self._connection.execute(f"DELETE FROM verdicts WHERE {condition}", values).rowcount  # noqa: S608

        with self._lock:
            self._write(delete)
            if removed:
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return removed

    def _write(self, change: Callable[[], object]) -> None:
        """Run the change in one transaction that takes the write lock at its start, so that it waits for others."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            change()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _retry_while_busy(action: Callable[[], sqlite3.Cursor]) -> None:
    """Run the action again while another process holds the file: some pragmas do not wait by themselves."""
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            with closing(action()) as cursor:
                cursor.fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
