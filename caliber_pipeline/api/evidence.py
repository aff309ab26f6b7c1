"""From evidence to learnings: sanitize, cluster, distil, validate, count sources, dedupe, store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from caliber_pipeline.api.discovery import DiscoveryOptions, PatternDiscovery
from caliber_pipeline.api.discovery_results import (
    ClusteringMethod,
    DiscoveredPattern,
    EvidenceItem,
    PatternDiscoveryResult,
)
from caliber_pipeline.api.evidence_parts import (
    ArtifactSink,
    ArtifactWriter,
    Deduper,
    EvidenceClusterer,
    KeywordWriter,
    LLMWriter,
    RedactingSanitizer,
    Sanitizer,
)
from caliber_pipeline.api.running import run_sync
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.evidence_metadata import MetadataConfig, append_metadata
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.core.learnings import (
    Enrichment,
    LearningArtifact,
    ThemeEvidence,
    normalise_tags,
    validate_learning,
)
from caliber_pipeline.core.notes import normalise_note

if TYPE_CHECKING:
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.language_model import LanguageModel


@dataclass(frozen=True)
class EvidenceOptions:
    """What the pipeline does by default.

    Attributes:
        method: How evidence is clustered.
        recurrence_threshold: Items that a cluster needs, and different sources that a learning needs.
        max_concurrent: Learnings that are written at once.
        metadata: Which metadata accompany the texts.
        discovery: Seed, limits and prompts of clustering.
    """

    method: ClusteringMethod = ClusteringMethod.HDBSCAN
    recurrence_threshold: int = 2
    max_concurrent: int = 8
    metadata: MetadataConfig = field(default_factory=MetadataConfig)
    discovery: DiscoveryOptions = field(default_factory=DiscoveryOptions)


@dataclass(frozen=True)
class PipelineResult:
    """What came of the evidence.

    Attributes:
        clustering_result: The clusters, and what belongs to none.
        learnings: Those that were stored.
        filtered_count: Clusters too small, and learnings from too few sources or without a valid item.
        deduplicated_count: Learnings dropped as duplicates.
        validation_repairs: What was mended in single learnings, in words.
        sink_ids: The stored learnings' ids, in their order.
        failures: Clusters whose learning could not be had, and why.
    """

    clustering_result: PatternDiscoveryResult
    learnings: tuple[LearningArtifact, ...] = ()
    filtered_count: int = 0
    deduplicated_count: int = 0
    validation_repairs: tuple[str, ...] = ()
    sink_ids: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "clustering_result": self.clustering_result.to_dict(),
            "learnings": [learning.to_dict() for learning in self.learnings],
            "filtered_count": self.filtered_count,
            "deduplicated_count": self.deduplicated_count,
            "validation_repairs": list(self.validation_repairs),
            "sink_ids": list(self.sink_ids),
            "failures": list(self.failures),
        }


class _DiscoveryClusterer:
    def __init__(self, discovery: PatternDiscovery, method: ClusteringMethod) -> None:
        self._discovery = discovery
        self._method = method

    async def cluster(self, evidence: Sequence[EvidenceItem]) -> PatternDiscoveryResult:
        return await self._discovery.discover_from_evidence(evidence, self._method)


class EvidencePipeline:
    """Turns evidence into learnings.

    Args:
        model: The language model that writes, and that clusters where the method asks for it; None writes without.
        encoder: Text to vectors; None takes the packaged one.
        sanitizer: Runs first; None redacts e-mail addresses, phone numbers, card numbers and tokens.
        clusterer: None clusters by `options.method`.
        writer: None writes with the model, or from keywords where there is none.
        deduper: None keeps all.
        sink: None stores nothing.
        options: Method, thresholds, metadata.
        now: The clock that dates provenance.
    """

    def __init__(
        self,
        *,
        model: LanguageModel | None = None,
        encoder: Encoder | None = None,
        sanitizer: Sanitizer | None = None,
        clusterer: EvidenceClusterer | None = None,
        writer: ArtifactWriter | None = None,
        deduper: Deduper | None = None,
        sink: ArtifactSink | None = None,
        options: EvidenceOptions | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Loads nothing yet."""
        self._options = options or EvidenceOptions()
        if self._options.recurrence_threshold < 1:
            raise InputError(f"recurrence_threshold is {self._options.recurrence_threshold}; give 1 or more")
        discovery = PatternDiscovery(encoder=encoder, model=model, options=self._options.discovery)
        self._sanitizer = sanitizer or RedactingSanitizer()
        self._clusterer = clusterer or _DiscoveryClusterer(discovery, self._options.method)
        self._writer = writer or (LLMWriter(model) if model is not None else KeywordWriter())
        self._deduper = deduper
        self._sink = sink
        self._now = now

    def run_sync(
        self, evidence: Iterable[EvidenceItem], *, enrichment: Sequence[tuple[frozenset[str], Enrichment]] = ()
    ) -> PipelineResult:
        """`run` without await."""
        return run_sync(self.run(evidence, enrichment=enrichment))

    async def run(
        self, evidence: Iterable[EvidenceItem], *, enrichment: Sequence[tuple[frozenset[str], Enrichment]] = ()
    ) -> PipelineResult:
        """Go through all the steps.

        Args:
            evidence: Items with unique ids.
            enrichment: How the judge misses sets of item ids; a cluster takes that of the set most like it.

        Raises:
            InputError: ids repeat, or the method lacks its language model or package.
            JudgeError: the language model cannot be asked at all when clustering; when writing, the cluster fails.
        """
        items = [self._sanitizer.sanitize(item) for item in evidence]
        metadata = self._options.metadata
        clustered = await self._clusterer.cluster([self._with_metadata(item, metadata.in_clustering) for item in items])
        by_id = {item.id: item for item in items}
        patterns = [_known_only(pattern, by_id) for pattern in clustered.patterns]
        recurring = [p for p in patterns if p.count >= self._options.recurrence_threshold]
        slots = asyncio.Semaphore(self._options.max_concurrent)
        outcomes = await asyncio.gather(*(self._distil(p, by_id, enrichment, slots) for p in recurring))
        written = [
            (p, learning) for p, learning in zip(recurring, outcomes, strict=True) if not isinstance(learning, str)
        ]
        learnings, repairs, n_dropped = self._hold_to_evidence(written, by_id, clustered)
        kept = learnings if self._deduper is None else self._deduper.select_new(learnings)
        return PipelineResult(
            clustering_result=clustered,
            learnings=tuple(kept),
            filtered_count=len(clustered.patterns) - len(recurring) + n_dropped,
            deduplicated_count=len(learnings) - len(kept),
            validation_repairs=tuple(repairs),
            sink_ids=() if self._sink is None else tuple(self._sink.store(kept)),
            failures=tuple(outcome for outcome in outcomes if isinstance(outcome, str)),
        )

    def _with_metadata(self, item: EvidenceItem, is_wanted: bool) -> EvidenceItem:
        if not is_wanted:
            return item
        return replace(item, text=append_metadata(item.text, self._options.metadata.select(item.metadata)))

    async def _distil(
        self,
        pattern: DiscoveredPattern,
        by_id: dict[str, EvidenceItem],
        enrichment: Sequence[tuple[frozenset[str], Enrichment]],
        slots: asyncio.Semaphore,
    ) -> LearningArtifact | str:
        """The learning, or why there is none."""
        is_wanted = self._options.metadata.in_distillation
        rank = {normalise_note(example): i for i, example in enumerate(pattern.examples)}
        members = sorted(pattern.record_ids, key=lambda i: (rank.get(normalise_note(by_id[i].text), len(rank)), i))
        theme = ThemeEvidence(
            name=pattern.category,
            description=pattern.description,
            notes={i: self._with_metadata(by_id[i], is_wanted).text for i in members},
            keywords=pattern.keywords,
            stability=pattern.stability,
            confidence=pattern.confidence,
            enrichment=_most_alike(frozenset(pattern.record_ids), enrichment),
            polarity=pattern.polarity,
        )
        try:
            async with slots:
                return await self._writer.write(theme)
        except Exception as error:  # noqa: BLE001 - a writer may be anyone's code; its error costs one learning
            return f"'{pattern.category}' ({pattern.count} items): {error}"

    def _hold_to_evidence(
        self,
        written: Sequence[tuple[DiscoveredPattern, LearningArtifact]],
        by_id: dict[str, EvidenceItem],
        clustered: PatternDiscoveryResult,
    ) -> tuple[list[LearningArtifact], list[str], int]:
        """The learnings that are valid and recur, the repairs, and how many fell out."""
        created_at = self._now().isoformat()
        kept, repairs = [], []
        for pattern, draft in written:
            learning, own_repairs = validate_learning(draft, pattern.record_ids)
            repairs += own_repairs
            if learning is None:
                continue
            sources = sorted({by_id[i].source_ref or f"item:{i}" for i in learning.supporting_item_ids})
            if len(sources) < self._options.recurrence_threshold:
                continue
            texts = [by_id[i].text for i in sorted(learning.supporting_item_ids)]
            provenance = {
                "pattern": pattern.category,
                "clustering_method": clustered.method,
                "encoder": clustered.encoder,
                "writer": self._writer.name,
                "n_items": pattern.count,
                "sources": sources,
                "stability": pattern.stability,
                "evidence_fingerprint": digest(*texts),
                "created_at": created_at,
            }
            kept.append(replace(learning, tags=normalise_tags(learning.tags), provenance=provenance))
        return kept, repairs, len(written) - len(kept)


def _known_only(pattern: DiscoveredPattern, by_id: Container[str]) -> DiscoveredPattern:
    """The pattern without ids that a clusterer made up."""
    ids = tuple(i for i in pattern.record_ids if i in by_id)
    return replace(pattern, record_ids=ids, count=len(ids))


def _most_alike(ids: frozenset[str], enrichment: Sequence[tuple[frozenset[str], Enrichment]]) -> Enrichment | None:
    """The enrichment of the set with the largest Jaccard similarity, of at least a half."""
    alike = [(len(ids & other) / len(ids | other), found) for other, found in enrichment if ids | other]
    best = max(alike, key=lambda pair: pair[0], default=None)
    return best[1] if best is not None and best[0] >= _MIN_JACCARD else None


_MIN_JACCARD = 0.5  # below it the two are not the same theme
