"""Text to vectors."""

from caliber_pipeline.encoders.cached import CachedEncoder
from caliber_pipeline.encoders.protocol import Encoder
from caliber_pipeline.encoders.sentence_transformer import PACKAGED_MODEL, SentenceTransformerEncoder

__all__ = ["PACKAGED_MODEL", "CachedEncoder", "Encoder", "SentenceTransformerEncoder"]
