"""Drops learnings that say again what another one says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.learnings import LearningArtifact
from caliber_pipeline.core.notes import normalise_note
from caliber_pipeline.core.ties import TIE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caliber_pipeline.encoders.protocol import Encoder


class InMemoryDeduper:
    """Drops learnings whose title it has seen, in this call or an earlier one; case and spacing do not matter."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._seen: set[str] = set()

    def select_new(self, learnings: Sequence[LearningArtifact]) -> list[LearningArtifact]:
        """Those with a new title, in their order."""
        kept = []
        for learning in learnings:
            title = normalise_note(learning.title)
            if title not in self._seen:
                self._seen.add(title)
                kept.append(learning)
        return kept


class EmbeddingDeduper:
    """Drops learnings whose title and content mean what those of a kept one mean.

    Args:
        threshold: Cosine similarity from which two learnings are the same.
        encoder: Text to vectors; None takes the packaged one.
    """

    def __init__(self, threshold: float = 0.85, *, encoder: Encoder | None = None) -> None:
        """Has seen nothing yet."""
        if not 0 < threshold <= 1:
            raise InputError(f"threshold is {threshold}; give more than 0 and at most 1")
        self._threshold = threshold
        self._encoder = encoder
        self._kept: list[NDArray[np.float32]] = []

    def select_new(self, learnings: Sequence[LearningArtifact]) -> list[LearningArtifact]:
        """Those unlike all that were kept in this call or an earlier one, in their order."""
        if self._encoder is None:
            from caliber_pipeline.encoders.sentence_transformer import SentenceTransformerEncoder

            self._encoder = SentenceTransformerEncoder()
        vectors = self._encoder.encode([f"{learning.title}\n{learning.content}" for learning in learnings])
        kept = []
        for learning, vector in zip(learnings, vectors, strict=True):
            if all(float(vector @ other) < self._threshold - TIE for other in self._kept):
                self._kept.append(vector)
                kept.append(learning)
        return kept
