"""Which metadata of a piece of evidence may be used, and where."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from caliber_pipeline.core.sanitizer import redact

_PII_TEXT: Final = """
account address apikey auth birth birthday card contact cookie credential customer cvv dob email firstname iban ip
lastname location mail mobile name passport password phone postcode secret ssn surname tel telephone token user
username zip
"""
PII_KEYS: Final = frozenset(_PII_TEXT.split())
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class MetadataConfig:
    """Which metadata accompany a text.

    Attributes:
        allowed_keys: Only these; None allows all that are not denied.
        denied_keys: Never these.
        denies_pii_keys: Never keys with a word such as name, email or phone in them, unless `allowed_keys` has them.
        max_keys: At most so many, in the order of the names.
        max_value_length: Characters of a value.
        in_clustering: Whether they are part of the text that is clustered.
        in_distillation: Whether they are part of the text that a learning is distilled from.
    """

    allowed_keys: frozenset[str] | None = None
    denied_keys: frozenset[str] = frozenset()
    denies_pii_keys: bool = True
    max_keys: int = 10
    max_value_length: int = 200
    in_clustering: bool = False
    in_distillation: bool = True

    def select(self, metadata: Mapping[str, Any]) -> dict[str, str]:
        """The metadata that may be used, as redacted text."""
        keys = sorted(key for key in metadata if self._allows(key) and metadata[key] is not None)
        return {key: redact(str(metadata[key]))[: self.max_value_length] for key in keys[: self.max_keys]}

    def _allows(self, key: str) -> bool:
        if key in self.denied_keys:
            return False
        if self.allowed_keys is not None:
            return key in self.allowed_keys
        return not (self.denies_pii_keys and is_pii_key(key))


def is_pii_key(key: str) -> bool:
    """Whether a word of the key (snake_case or camelCase), or its singular, names what identifies a person.

    Tokens are counted in such metadata more often than they are secrets; one token is a secret.
    """
    words = {word.lower() for word in _WORD.findall(key)}
    words |= {word.removesuffix("s") for word in words - {"tokens"}} | {re.sub(r"[\W_]", "", key.lower())}
    return not words.isdisjoint(PII_KEYS)


def append_metadata(text: str, metadata: Mapping[str, str]) -> str:
    """The text followed by its metadata, one line each."""
    return "\n".join([text, *(f"{key}: {value}" for key, value in metadata.items())])
