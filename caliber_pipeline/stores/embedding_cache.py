"""Embeddings on disk, by encoder name and text hash."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.stores.sqlite_errors import is_broken

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
_BUSY_TIMEOUT_S: Final = 60.0
_PAGE: Final = 500  # keys per query, under SQLite's limit of 999 variables in old builds


class EmbeddingCache:
    """Vectors kept in one SQLite file; several processes may read and write it at once.

    Args:
        path: The file; it and its folder are made when the first vectors are saved.
    """

    def __init__(self, path: Path) -> None:
        """Opens nothing: each call opens and closes the file."""
        self._path = path

    def select_missing(self, encoder: str, texts: Sequence[str]) -> list[str]:
        """Those of the texts that have no vector yet, in their order."""
        if not self._path.exists():
            return list(texts)
        keys = _keys(encoder, texts)
        with self._connect() as db:
            known = {key for page in _pages(keys) for (key,) in db.execute(_query("key", len(page)), page)}
        return [text for key, text in zip(keys, texts, strict=True) if key not in known]

    def load(self, encoder: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of shape (len(texts), dimensions).

        Raises:
            KeyError: a text has no vector.
        """
        keys = _keys(encoder, texts)
        vectors: NDArray[np.float32] | None = None
        with self._connect() as db:
            for start in range(0, len(keys), _PAGE):
                page = keys[start : start + _PAGE]
                found = dict(db.execute(_query("key, vector", len(page)), page))
                rows = np.frombuffer(b"".join(found[key] for key in page), dtype="<f4").reshape(len(page), -1)
                if vectors is None:
                    vectors = np.empty((len(keys), rows.shape[1]), dtype=np.float32)
                vectors[start : start + len(page)] = rows
        return np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors

    def save(self, encoder: str, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep one vector per text; a vector that is there already stays."""
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        with self._connect() as db, db:
            db.executemany(
                "INSERT OR IGNORE INTO embeddings VALUES (?, ?)",
                ((key, row.tobytes()) for key, row in zip(_keys(encoder, texts), rows, strict=True)),
            )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)) as db:
                db.execute(_SCHEMA)  # always: to connect makes the file, so that another process finds it without
                yield db
        except (OSError, sqlite3.DatabaseError) as error:
            advice = "delete it" if is_broken(error) else "mend that, and run again"
            raise InputError(f"the embedding cache {self._path} cannot be used ({error}); {advice}") from error


def _keys(encoder: str, texts: Sequence[str]) -> list[bytes]:
    prefix = hashlib.sha256(encoder.encode() + b"\0")
    keys = []
    for text in texts:
        hasher = prefix.copy()
        hasher.update(text.encode("utf-8", "surrogatepass"))
        keys.append(hasher.digest()[:16])
    return keys


def _pages(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[start : start + _PAGE] for start in range(0, len(keys), _PAGE))


def _query(columns: str, n_keys: int) -> str:
    marks = ",".join("?" * n_keys)
    return f"SELECT {columns} FROM embeddings WHERE key IN ({marks})"  # noqa: S608 - only '?' marks are put in
