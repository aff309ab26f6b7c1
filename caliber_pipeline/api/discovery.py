"""Finds the themes in people's notes or other evidence, by the method asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from caliber_pipeline.api.discovery_results import (
    ClusteringMethod,
    DiscoveredPattern,
    EvidenceItem,
    PatternDiscoveryResult,
)
from caliber_pipeline.api.fields import Item, each_item, find_score, read_id, read_verdict
from caliber_pipeline.api.llm_themes import LLMOptions, find_themes, name_theme
from caliber_pipeline.api.running import run_sync
from caliber_pipeline.core.arguments import ITEMS, TEXT, accepts
from caliber_pipeline.core.errors import InputError, ReplyError
from caliber_pipeline.core.notes import theme_texts

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.core.consensus_clustering import Labels, Matrix
    from caliber_pipeline.core.patterns import DistinctNotes
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.language_model import LanguageModel

_EVIDENCE = "reject"  # the side that evidence, which has none, is clustered on


@dataclass(frozen=True)
class DiscoveryOptions:
    """How notes are clustered.

    Attributes:
        seed: Draws resamples and samples.
        n_resamples: Bootstrap samples for the stability, of BERTopic at most five; 0 leaves it None.
        min_count: Records that a pattern by a language model or BERTopic needs; smaller ones are uncategorized.
        llm: How a language model is asked.
    """

    seed: int = 0
    n_resamples: int = 20
    min_count: int = 2
    llm: LLMOptions = field(default_factory=LLMOptions)


@dataclass(frozen=True)
class _Noted:
    """One id with its note, and the side it is clustered on."""

    record_id: str
    note: str
    polarity: str


class PatternDiscovery:
    """Finds themes in notes.

    Args:
        encoder: Text to vectors; None takes the packaged one.
        model: The language model for LLM and HYBRID.
        options: Seed, limits, prompts.
    """

    def __init__(
        self,
        *,
        encoder: Encoder | None = None,
        model: LanguageModel | None = None,
        options: DiscoveryOptions | None = None,
    ) -> None:
        """Loads nothing yet."""
        self._encoder = encoder
        self._model = model
        self._options = options or DiscoveryOptions()

    @accepts(annotations=ITEMS)
    async def discover(
        self,
        annotations: Iterable[Item] | Mapping[str, Item] | pd.DataFrame,
        method: ClusteringMethod | str = ClusteringMethod.HDBSCAN,
    ) -> PatternDiscoveryResult:
        """The themes in the notes of annotations, rejects and accepts apart.

        Args:
            annotations: Items (dicts, objects or a frame's rows) with record_id, human_score and human_notes, or
                their usual aliases. Several annotators' notes on a record are taken together, from those who agree
                with the majority.
            method: How.

        Raises:
            InputError: the method lacks its language model or its package, or an annotation its id or score.
            JudgeError: the language model cannot be asked at all.
        """
        return await self._discover(_parse_annotations(annotations), method, has_polarity=True)

    @accepts(evidence=ITEMS)
    async def discover_from_evidence(
        self, evidence: Iterable[EvidenceItem], method: ClusteringMethod | str = ClusteringMethod.HDBSCAN
    ) -> PatternDiscoveryResult:
        """The themes in evidence, as one group.

        Raises:
            InputError: ids repeat, or the method lacks its language model or its package.
            JudgeError: the language model cannot be asked at all.
        """
        noted = [_Noted(item.id, item.text, _EVIDENCE) for item in evidence]
        repeated = len(noted) - len({item.record_id for item in noted})
        if repeated:
            raise InputError(f"{repeated} evidence ids repeat; give each item an id of its own")
        return await self._discover(noted, method, has_polarity=False)

    def discover_sync(
        self,
        annotations: Iterable[Item] | Mapping[str, Item] | pd.DataFrame,
        method: ClusteringMethod | str = ClusteringMethod.HDBSCAN,
    ) -> PatternDiscoveryResult:
        """`discover` without await."""
        return run_sync(self.discover(annotations, method))

    def discover_from_evidence_sync(
        self, evidence: Iterable[EvidenceItem], method: ClusteringMethod | str = ClusteringMethod.HDBSCAN
    ) -> PatternDiscoveryResult:
        """`discover_from_evidence` without await."""
        return run_sync(self.discover_from_evidence(evidence, method))

    async def _discover(
        self, noted: list[_Noted], method: ClusteringMethod | str, *, has_polarity: bool
    ) -> PatternDiscoveryResult:
        method = _parse_method(method)
        if method in {ClusteringMethod.LLM, ClusteringMethod.HYBRID}:
            self._need_model(method.name)
        usable = sorted((item for item in noted if item.note.strip()), key=lambda item: item.record_id)
        blank = tuple(sorted(item.record_id for item in noted if not item.note.strip()))
        if method is ClusteringMethod.LLM:
            result = await self._by_llm(usable)
        elif method is ClusteringMethod.BERTOPIC:
            result = await asyncio.to_thread(self._by_bertopic, usable)
        else:
            result = await asyncio.to_thread(self._by_vectors, usable, has_polarity=has_polarity)
        if method is ClusteringMethod.HYBRID:
            result = await self._name(result)
        patterns = result.patterns
        if not has_polarity:
            patterns = tuple(replace(pattern, polarity=None) for pattern in patterns)
        return replace(
            result,
            patterns=patterns,
            uncategorized=tuple(sorted((*result.uncategorized, *blank))),
            without_notes=blank,
            requested_method=method,
            total_analyzed=len(noted),
        )

    def _need_model(self, method: str) -> LanguageModel:
        if self._model is None:
            raise InputError(
                f"the method {method} needs a language model; pass model=…, or take ClusteringMethod.HDBSCAN"
            )
        return self._model

    def _need_encoder(self) -> Encoder:
        if self._encoder is None:
            from caliber_pipeline.encoders.sentence_transformer import SentenceTransformerEncoder

            self._encoder = SentenceTransformerEncoder()
        return self._encoder

    def _by_vectors(self, noted: list[_Noted], *, has_polarity: bool) -> PatternDiscoveryResult:
        if not noted:
            return PatternDiscoveryResult((), ())
        from caliber_pipeline.core.patterns import discover_patterns
        from caliber_pipeline.encoders.notes import encode_notes

        encoder, options = self._need_encoder(), self._options
        vectors, phrases = encode_notes(encoder, [item.note for item in noted])
        table = discover_patterns(
            _frame(noted),
            vectors,
            phrases if has_polarity else None,
            seed=options.seed,
            n_resamples=options.n_resamples,
        )
        patterns, uncategorized = patterns_from_table(table)
        method = "+".join(sorted(set(table["method"])))
        return PatternDiscoveryResult(patterns, uncategorized, method=method, encoder=encoder.name)

    def _by_bertopic(self, noted: list[_Noted]) -> PatternDiscoveryResult:
        from caliber_pipeline.api.bertopic_themes import cluster_with_bertopic, measure_bertopic_stability
        from caliber_pipeline.core.patterns import reduce_notes

        encoder = self._need_encoder()
        patterns: list[DiscoveredPattern] = []
        for polarity, own in _by_polarity(noted):
            distinct = reduce_notes(_frame(own), encoder.encode(theme_texts([item.note for item in own])))
            labels = cluster_with_bertopic(distinct.texts, distinct.rows, seed=self._options.seed)
            stability = measure_bertopic_stability(
                distinct.texts, distinct.rows, labels, n_resamples=self._options.n_resamples, seed=self._options.seed
            )
            themes = [
                replace(theme, stability=value)
                for theme, value in zip(_describe(distinct, labels.tolist(), polarity), stability, strict=True)
            ]
            patterns += (pattern for pattern in themes if pattern.count >= self._options.min_count)
        return _account(noted, patterns, PatternDiscoveryResult((), (), method="bertopic", encoder=encoder.name))

    async def _by_llm(self, noted: list[_Noted]) -> PatternDiscoveryResult:
        model = self._need_model(ClusteringMethod.LLM.name)
        result = PatternDiscoveryResult((), (), method="llm", model=model.name)
        patterns: list[DiscoveredPattern] = []
        for polarity, own in _by_polarity(noted):
            distinct = _reduce_without_vectors(own)
            keys = {f"n{i}": text for i, text in enumerate(distinct.texts)}
            found = await find_themes(model, keys, self._options.llm)
            labels = [found.theme_of.get(key, -1) for key in keys]
            kept = sorted(set(labels) - {-1})
            themes = _describe(distinct, [kept.index(label) if label >= 0 else -1 for label in labels], polarity)
            for pattern, index in zip(themes, kept, strict=True):
                theme = found.themes[index]
                if pattern.count >= self._options.min_count:
                    patterns.append(replace(pattern, category=theme.name, description=theme.description))
            result = replace(
                result,
                n_invented_ids=result.n_invented_ids + found.n_invented,
                n_asked_again=result.n_asked_again + found.n_asked_again,
                failures=(*result.failures, *found.failures),
            )
        return _account(noted, patterns, result)

    async def _name(self, result: PatternDiscoveryResult) -> PatternDiscoveryResult:
        model = self._need_model(ClusteringMethod.HYBRID.name)
        slots = asyncio.Semaphore(self._options.llm.max_concurrent)

        async def rename(pattern: DiscoveredPattern) -> tuple[DiscoveredPattern, str | None]:
            try:
                async with slots:
                    theme = await name_theme(model, pattern.examples, pattern.keywords, self._options.llm)
            except ReplyError as error:
                return pattern, f"naming '{pattern.category}': {error}"
            return replace(pattern, category=theme.name, description=theme.description), None

        named = await asyncio.gather(*map(rename, result.patterns))
        return replace(
            result,
            patterns=tuple(pattern for pattern, _ in named),
            method=f"hybrid:{result.method}",
            model=model.name,
            failures=tuple(failure for _, failure in named if failure),
        )


@accepts(method=TEXT)
def _parse_method(method: ClusteringMethod | str) -> ClusteringMethod:
    try:
        return ClusteringMethod(method.lower())
    except ValueError as error:
        names = ", ".join(known.name for known in ClusteringMethod)
        raise InputError(f"unknown clustering method {method!r}; take one of {names}") from error


def _parse_annotations(annotations: Iterable[Item] | Mapping[str, Item] | pd.DataFrame) -> list[_Noted]:
    items = annotations.values() if isinstance(annotations, Mapping) else each_item(annotations)
    by_id: dict[str, list[tuple[int, str]]] = {}
    for item in items:
        record_id = read_id(item)
        verdict = read_verdict(item)
        score, note = find_score(verdict["score"]), verdict["notes"]
        if score is None:
            raise InputError(f"the annotation of '{record_id}' has no human_score of 0 or 1")
        by_id.setdefault(record_id, []).append((score, note if isinstance(note, str) else ""))
    return [_merge(record_id, verdicts) for record_id, verdicts in by_id.items()]


def _merge(record_id: str, verdicts: list[tuple[int, str]]) -> _Noted:
    """One note per record, from those who hold the majority's verdict; a tie counts as a reject."""
    label = int(2 * sum(score for score, _ in verdicts) > len(verdicts))
    notes = sorted({" ".join(note.split()) for score, note in verdicts if score == label} - {""})
    return _Noted(record_id, " / ".join(notes), "accept" if label else "reject")


def _frame(noted: list[_Noted]) -> pd.DataFrame:
    import pandas as pd

    columns = {
        "record_id": [item.record_id for item in noted],
        "text": [item.note for item in noted],
        "polarity": [item.polarity for item in noted],
        "split": ["train"] * len(noted),
    }
    return pd.DataFrame(columns, dtype="string[pyarrow]")


def _by_polarity(noted: list[_Noted]) -> Iterable[tuple[str, list[_Noted]]]:
    for polarity in ("reject", "accept"):
        own = [item for item in noted if item.polarity == polarity]
        if own:
            yield polarity, own


def _reduce_without_vectors(noted: list[_Noted]) -> DistinctNotes:
    import numpy as np

    from caliber_pipeline.core.patterns import reduce_notes

    return reduce_notes(_frame(noted), np.zeros((len(noted), 1)))


def _describe(notes: DistinctNotes, labels: list[int], polarity: str) -> list[DiscoveredPattern]:
    """A pattern per label 0 … k-1 of the distinct notes, named by keywords."""
    import numpy as np

    from caliber_pipeline.core.themes import describe_themes

    found = np.array(labels, dtype=np.int64)
    strengths = _similarity_to_centre(notes.rows, found) if notes.rows.any() else None
    themes = describe_themes(notes.texts, notes.weights, found, strengths)
    label_of = found[notes.key]
    patterns = []
    for label, theme in enumerate(themes):
        ids = tuple(notes.record_ids[i] for i in np.flatnonzero(label_of == label))
        patterns.append(
            DiscoveredPattern(
                theme.name,
                theme.description,
                len(ids),
                ids,
                theme.examples,
                theme.keywords,
                theme.confidence,
                polarity=polarity,
            )
        )
    return patterns


def _similarity_to_centre(rows: Matrix, labels: Labels) -> Matrix:
    import numpy as np

    from caliber_pipeline.core.consensus_clustering import unit

    found = np.zeros(len(rows))
    for label in range(int(labels.max(initial=-1)) + 1):
        members = rows[labels == label]
        found[labels == label] = members @ unit(members.sum(axis=0, keepdims=True))[0]
    return found


def _account(
    noted: list[_Noted], patterns: list[DiscoveredPattern], result: PatternDiscoveryResult
) -> PatternDiscoveryResult:
    """The result with the patterns in order and every id that none of them holds as uncategorized."""
    held = {record_id for pattern in patterns for record_id in pattern.record_ids}
    ordered = sorted(patterns, key=lambda p: (p.polarity != "reject", -p.count, p.category))
    uncategorized = tuple(item.record_id for item in noted if item.record_id not in held)
    return replace(result, patterns=tuple(ordered), uncategorized=uncategorized)


def patterns_from_table(table: pd.DataFrame) -> tuple[tuple[DiscoveredPattern, ...], tuple[str, ...]]:
    """The patterns of a `patterns` table, and the ids of the notes that belong to none."""
    patterns, uncategorized = [], []
    for row in table.to_dict("records"):
        if row["is_unclustered"]:
            uncategorized += list(row["record_ids"])
            continue
        patterns.append(
            DiscoveredPattern(
                category=row["name"],
                description=row["description"],
                count=int(row["count"]),
                record_ids=tuple(row["record_ids"]),
                examples=tuple(row["examples"]),
                keywords=tuple(row["keywords"]),
                confidence=_number(row["confidence"]),
                stability=_number(row["stability"]),
                polarity=row["polarity"],
            )
        )
    return tuple(patterns), tuple(uncategorized)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float | int) and value == value else None
