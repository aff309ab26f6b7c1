"""Encodes on a Ray cluster: the same vectors, from as many machines as there are."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.encoders.protocol import length_first
from caliber_pipeline.encoders.sentence_transformer import Progress, SentenceTransformerEncoder
from caliber_pipeline.stores.ray_map import map_on_ray

WORTH_SENDING: Final = 5_000  # texts; fewer are encoded sooner than a cluster's workers have loaded the model
_BATCHES_PER_BLOCK: Final = 16  # what a lost worker loses


class RayEncoder:
    """An encoder whose texts are shared out among actors, each of which loads the model once.

    Texts are batched as the encoder itself would batch them, so that the vectors are the same.
    """

    def __init__(
        self,
        encoder: SentenceTransformerEncoder,
        n_workers: int,
        connect: Callable[[], AbstractContextManager[None]],
        *,
        on_progress: Progress | None = None,
    ) -> None:
        """Use a cluster for many texts, and `encoder` here for few.

        Args:
            encoder: What the actors have a copy of each.
            n_workers: Actors.
            connect: Connects to the cluster.
            on_progress: Called with (texts done, texts in all).
        """
        self._encoder = encoder
        self._n_workers = n_workers
        self._connect = connect
        self._on_progress = on_progress

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._encoder.name

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (len(texts), dimensions), in the order of the texts."""
        if len(texts) < WORTH_SENDING:
            return self._encoder.encode(texts)
        order = np.array(sorted(range(len(texts)), key=lambda i: length_first(texts[i])))
        size = self._encoder.batch_size * _BATCHES_PER_BLOCK
        blocks = (
            {"start": start, "texts": json.dumps([texts[i] for i in order[start : start + size]])}
            for start in range(0, len(order), size)
        )
        vectors = np.zeros((len(texts), 0), dtype=np.float32)
        n_done = 0
        with self._connect():
            for row in map_on_ray(blocks, _Worker, (self._encoder,), self._n_workers):
                found = np.frombuffer(row["vectors"], dtype=np.float32).reshape(row["n_texts"], -1)
                if not vectors.shape[1]:
                    vectors = np.empty((len(texts), found.shape[1]), dtype=np.float32)
                vectors[order[row["start"] : row["start"] + len(found)]] = found
                n_done += len(found)
                if self._on_progress is not None:
                    self._on_progress(n_done, len(texts))
        return vectors


class _Worker:
    def __init__(self, encoder: SentenceTransformerEncoder) -> None:
        self._encoder = encoder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        texts = json.loads(batch["texts"][0])
        vectors = self._encoder.encode(texts).astype(np.float32)
        return {"start": [int(batch["start"][0])], "n_texts": [len(texts)], "vectors": [vectors.tobytes()]}
