"""The cache gives back what it was given, by encoder and text, and survives a crowd."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.stores import embedding_cache
from caliber_pipeline.stores.embedding_cache import EmbeddingCache


def test_vectors_come_back_by_encoder_and_text(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "new" / "embeddings.sqlite")
    assert cache.select_missing("a", ["x", "y"]) == ["x", "y"]
    cache.save("a", ["x", "y"], np.array([[1, 0], [0, 1]], dtype=np.float32))
    assert cache.select_missing("a", ["y", "z", "x"]) == ["z"]
    assert cache.select_missing("b", ["x"]) == ["x"]
    assert cache.load("a", ["y", "x", "y"]).tolist() == [[0, 1], [1, 0], [0, 1]]


def test_a_saved_vector_is_not_replaced(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e.sqlite")
    cache.save("a", ["x"], np.ones((1, 2), dtype=np.float32))
    cache.save("a", ["x"], np.zeros((1, 2), dtype=np.float32))
    assert cache.load("a", ["x"]).tolist() == [[1, 1]]


def test_more_texts_than_one_query_holds(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e.sqlite")
    texts = [f"text {i}" for i in range(1_234)]
    vectors = np.arange(2_468, dtype=np.float32).reshape(-1, 2)
    cache.save("a", texts, vectors)
    assert cache.select_missing("a", texts) == []
    assert np.array_equal(cache.load("a", texts[::-1]), vectors[::-1])


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e.sqlite")

    def save(i: int) -> None:
        cache.save("a", [f"{i}-{j}" for j in range(20)], np.full((20, 2), i, dtype=np.float32))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(16)))
    assert cache.load("a", [f"{i}-7" for i in range(16)])[:, 0].tolist() == list(range(16))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.sqlite").write_text("not a database, but long enough to be read as one" * 30)
    with pytest.raises(InputError, match=r"e\.sqlite cannot be used .* delete it"):
        EmbeddingCache(tmp_path / "e.sqlite").select_missing("a", ["x"])


def test_a_file_without_a_table_yet_is_an_empty_cache(tmp_path: Path) -> None:
    (tmp_path / "e.sqlite").touch()  # as another process leaves it for a moment, or for good where it dies
    cache = EmbeddingCache(tmp_path / "e.sqlite")
    assert cache.select_missing("a", ["x"]) == ["x"]
    cache.save("a", ["x"], np.ones((1, 2), dtype=np.float32))
    assert cache.load("a", ["x"]).tolist() == [[1, 1]]


def test_a_locked_file_is_not_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "_BUSY_TIMEOUT_S", 0)
    cache = EmbeddingCache(tmp_path / "e.sqlite")
    cache.save("a", ["x"], np.ones((1, 2), dtype=np.float32))
    with closing(sqlite3.connect(tmp_path / "e.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"e\.sqlite cannot be used \(database is locked\)") as raised:
            cache.load("a", ["x"])
    assert "delete" not in str(raised.value)


def test_a_path_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"e\.sqlite cannot be used"):
        EmbeddingCache(tmp_path / "file" / "e.sqlite").save("a", ["x"], np.ones((1, 2), dtype=np.float32))
