"""Notes as the vectors that themes are found by."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.fault_kinds import PHRASES, stretch_faults
from caliber_pipeline.core.notes import theme_texts
from caliber_pipeline.encoders.protocol import Encoder


def encode_notes(encoder: Encoder, notes: Sequence[str]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Vectors of the notes, in their order, and of `PHRASES`: names masked, stretched along the kinds of fault."""
    phrases = encoder.encode(list(PHRASES))
    return stretch_faults(encoder.encode(theme_texts(notes)), phrases), stretch_faults(phrases, phrases)
