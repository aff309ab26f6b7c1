"""What an encoder is, for everything that uses one."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


def length_first(text: str) -> tuple[int, str]:
    """A sorting key that brings texts of like length together, so that a batch pads little; equal for equal texts."""
    return len(text), text


class Encoder(Protocol):
    """Turns texts into vectors of unit length."""

    @property
    def name(self) -> str:
        """Identifies model and weights: equal names give equal vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dimensions), L2-normalised, in the order of the texts."""
        ...
