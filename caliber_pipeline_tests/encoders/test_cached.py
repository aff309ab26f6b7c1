"""No text is encoded twice, and what comes back is in the order asked for."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from caliber_pipeline.encoders.cached import CachedEncoder
from caliber_pipeline.stores.embedding_cache import EmbeddingCache


class LetterEncoder:
    """Counts vowels and other characters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        return "letters"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        counts = [(sum(c in "aeiou" for c in text), len(text)) for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), 2)


def test_each_text_is_encoded_once_over_calls_and_processes(tmp_path: Path) -> None:
    first, second = LetterEncoder(), LetterEncoder()
    CachedEncoder(first, EmbeddingCache(tmp_path / "e.sqlite")).encode(["stone", "sky", "stone"])
    vectors = CachedEncoder(second, EmbeddingCache(tmp_path / "e.sqlite")).encode(["sky", "oak", "stone"])
    assert sorted(first.asked) == ["sky", "stone"]
    assert second.asked == ["oak"]
    assert vectors.tolist() == [[0, 3], [2, 3], [2, 5]]


@given(st.lists(st.lists(st.text(max_size=5), max_size=8), max_size=4))
@settings(max_examples=25)
def test_the_cache_never_changes_the_answer(batches: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedEncoder(LetterEncoder(), EmbeddingCache(Path(folder) / "e.sqlite"))
        for texts in batches:
            assert np.array_equal(cached.encode(texts), LetterEncoder().encode(texts))


def test_the_name_is_the_encoders(tmp_path: Path) -> None:
    assert CachedEncoder(LetterEncoder(), EmbeddingCache(tmp_path / "e.sqlite")).name == "letters"
