"""An encoder that remembers in memory, for who works on the same texts for a while."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.encoders.protocol import Encoder


class RememberingEncoder:
    """Encodes each distinct text once in its life."""

    def __init__(self, encoder: Encoder) -> None:
        """Wrap `encoder`."""
        self._encoder = encoder
        self._vectors: dict[str, NDArray[np.float32]] = {}

    @property
    def name(self) -> str:
        """The wrapped encoder's name."""
        return self._encoder.name

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (len(texts), dimensions), in the order of the texts."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing or not texts:
            self._vectors.update(zip(missing, encoded := self._encoder.encode(missing), strict=True))
            if not texts:
                return encoded
        return np.stack([self._vectors[text] for text in texts])
