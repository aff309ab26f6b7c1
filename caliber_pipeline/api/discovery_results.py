"""What goes into pattern discovery and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from caliber_pipeline.core.stability import is_unstable


class ClusteringMethod(StrEnum):
    """How notes are brought together.

    HDBSCAN needs no LLM; few notes are clustered by consensus instead, and the result says so. LLM lets a language
    model find and assign the themes. HYBRID clusters as HDBSCAN does and lets it name them. BERTOPIC is the package.
    """

    HDBSCAN = "hdbscan"
    LLM = "llm"
    HYBRID = "hybrid"
    BERTOPIC = "bertopic"


@dataclass(frozen=True)
class EvidenceItem:
    """A text that may hold something to learn from.

    Attributes:
        id: Unique among the evidence.
        text: What was said.
        metadata: More about it; what of it is used, a `MetadataConfig` says.
        source_ref: Where it comes from; items of one source count once for recurrence.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source_ref: str | None = None


@dataclass(frozen=True)
class DiscoveredPattern:
    """A theme in the notes.

    Attributes:
        category: Its name.
        description: What the notes have in common.
        count: How many records' notes belong to it.
        record_ids: Those records.
        examples: Representative notes, the most typical first.
        keywords: Words that set the notes apart.
        confidence: Mean similarity [0, 1] of the notes to their centre; None where the method has no centre.
        stability: Bootstrap Jaccard [0, 1]; None where not computed: never for LLM, where each sample would cost the
            whole discovery once more.
        polarity: 'reject' or 'accept': the verdict that the notes explain; None for evidence.
    """

    category: str
    description: str
    count: int
    record_ids: tuple[str, ...]
    examples: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    confidence: float | None = None
    stability: float | None = None
    polarity: str | None = None

    @property
    def is_unstable(self) -> bool:
        """Whether resampling the notes tends to lose the pattern: a stability under 0.6."""
        return is_unstable(self.stability)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {name: list(getattr(self, name)) for name in _LISTS} | {"is_unstable": self.is_unstable}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DiscoveredPattern:
        """What `to_dict` gave."""
        fields = {name: value for name, value in data.items() if name != "is_unstable"}
        return cls(**fields | {name: tuple(data[name]) for name in _LISTS})


_LISTS = ("record_ids", "examples", "keywords")


@dataclass(frozen=True)
class PatternDiscoveryResult:
    """Every id that went in, once: in a pattern or uncategorized.

    Attributes:
        patterns: The largest first, rejects before accepts.
        uncategorized: Ids that belong to no pattern.
        without_notes: Those of them that have no note to go by.
        method: What really ran: 'consensus', 'hdbscan', 'llm', 'bertopic', or 'hybrid:' and one of the first two.
        requested_method: What was asked for.
        total_analyzed: How many ids went in.
        model: The language model that was asked; None where none was.
        encoder: The encoder of the notes; None where none was needed.
        n_invented_ids: Ids in the model's replies that nobody asked about, dropped.
        n_asked_again: Ids that were missing in its replies and asked for once more.
        failures: What failed without ending the discovery, e.g. naming one cluster.
    """

    patterns: tuple[DiscoveredPattern, ...]
    uncategorized: tuple[str, ...]
    without_notes: tuple[str, ...] = ()
    method: str = "consensus"
    requested_method: ClusteringMethod = ClusteringMethod.HDBSCAN
    total_analyzed: int = 0
    model: str | None = None
    encoder: str | None = None
    n_invented_ids: int = 0
    n_asked_again: int = 0
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {
            "patterns": [pattern.to_dict() for pattern in self.patterns],
            "uncategorized": list(self.uncategorized),
            "without_notes": list(self.without_notes),
            "requested_method": self.requested_method.value,
            "failures": list(self.failures),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PatternDiscoveryResult:
        """What `to_dict` gave."""
        return cls(
            **dict(data)
            | {
                "patterns": tuple(DiscoveredPattern.from_dict(pattern) for pattern in data["patterns"]),
                "uncategorized": tuple(data["uncategorized"]),
                "without_notes": tuple(data["without_notes"]),
                "requested_method": ClusteringMethod(data["requested_method"]),
                "failures": tuple(data["failures"]),
            }
        )
