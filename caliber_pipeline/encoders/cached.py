"""An encoder that remembers: no text is encoded twice by the same model."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.encoders.protocol import Encoder, length_first
from caliber_pipeline.stores.embedding_cache import EmbeddingCache

CHUNK: Final = 4096  # texts between two writes to the cache: what a run that dies loses at most


class CachedEncoder:
    """Encodes what the cache lacks, each distinct text once, and keeps it before going on."""

    def __init__(self, encoder: Encoder, cache: EmbeddingCache, *, chunk: int = CHUNK) -> None:
        """Wrap `encoder`; the cache's entries are keyed by its name, and written after every `chunk` texts."""
        self._encoder = encoder
        self._cache = cache
        self._chunk = chunk

    @property
    def name(self) -> str:
        """The wrapped encoder's name."""
        return self._encoder.name

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (len(texts), dimensions), in the order of the texts."""
        if not texts:
            return self._encoder.encode([])
        unique = sorted(set(texts), key=length_first)
        missing = self._cache.select_missing(self.name, unique)
        for start in range(0, len(missing), self._chunk):
            chunk = missing[start : start + self._chunk]
            self._cache.save(self.name, chunk, self._encoder.encode(chunk))
        vectors = self._cache.load(self.name, unique)
        position = {text: i for i, text in enumerate(unique)}
        return vectors[[position[text] for text in texts]]
