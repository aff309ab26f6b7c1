"""Patterns: themes in people's notes, fitted on train, with the other notes assigned."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.clustering import MAX_SAMPLE, MAX_SMALL, UNCLUSTERED, Clusters, fit_clusters
from caliber_pipeline.core.conforming import conform_frame, empty_frame
from caliber_pipeline.core.consensus_clustering import Labels, Matrix, unit
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fault_kinds import select_kinds
from caliber_pipeline.core.fingerprints import fingerprint_frame
from caliber_pipeline.core.notes import normalise_note
from caliber_pipeline.core.stability import bootstrap_jaccard
from caliber_pipeline.core.themes import N_EXAMPLES, Theme, describe_themes

FIT_VERSION: Final = "7"  # changes whenever the same notes would give other patterns
POLARITIES: Final = ("reject", "accept")
N_RESAMPLES: Final = 20
N_LARGE_RESAMPLES: Final = 3  # with HDBSCAN, whose clusters are larger and whose fits take seconds


@dataclass(frozen=True)
class DistinctNotes:
    """The notes of one polarity, reduced to the distinct ones, in an order that their texts alone fix.

    Attributes:
        record_ids: Per record, sorted.
        key: Per record the index of its distinct note.
        is_train: Per record.
        texts: Per distinct note the text of its first record, of train where there is one.
        rows: Per distinct note its unit vector.
        weights: Per distinct note how many records of train it stands for.
    """

    record_ids: list[str]
    key: Labels
    is_train: NDArray[np.bool_]
    texts: list[str]
    rows: Matrix
    weights: Labels


def discover_patterns(
    notes: pd.DataFrame,
    vectors: NDArray[np.floating],
    phrases: NDArray[np.floating] | None = None,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Find the themes that notes have in common, rejects and accepts apart.

    Patterns are fitted on the notes of train alone, and their names, keywords and examples come from these; the
    other notes join the nearest pattern or stay unclustered. A polarity with fewer than two train notes has no
    patterns: notes of dev and test never stand in for them. The result does not depend on the order of the rows.

    Args:
        notes: One row per record: record_id, text, polarity ('reject' or 'accept'), split.
        vectors: Of the texts, shape (len(notes), dimensions), in the rows' order; `encoders.notes.encode_notes` makes
            both them and the phrases.
        phrases: Of `fault_kinds.PHRASES`; with them the names of reject patterns begin with the kind of fault, where
            the notes agree on one.
        seed: Draws the resamples of fit and stability, and the sample that a large fit uses.
        n_resamples: Bootstrap samples for the patterns' stability; 0 leaves it null.

    Returns:
        A frame of the `patterns` schema; every record id is in exactly one row.

    Raises:
        InputError: notes and vectors differ in length, ids repeat, or a polarity is unknown.
    """
    _check(notes, vectors)
    frames = []
    for polarity in POLARITIES:
        chosen = (notes["polarity"] == polarity).to_numpy(dtype=bool)
        if chosen.any():
            distinct = reduce_notes(notes[chosen], np.asarray(vectors), np.flatnonzero(chosen))
            rows = _discover(distinct, polarity, phrases if polarity == "reject" else None, seed, n_resamples)
            fingerprint = fingerprint_frame(notes[chosen], ["record_id", "text", "polarity", "split"])
            frames.append(pd.DataFrame(rows).assign(notes_fingerprint=fingerprint))
    if not frames:
        return empty_frame("patterns")
    return conform_frame(pd.concat(frames, ignore_index=True), "patterns")


def _check(notes: pd.DataFrame, vectors: NDArray[np.floating]) -> None:
    if len(notes) != len(vectors):
        raise InputError(f"{len(notes)} notes but {len(vectors)} vectors; give one vector per note")
    unknown = sorted(set(notes["polarity"]) - set(POLARITIES))
    if unknown:
        raise InputError(f"unknown polarities {unknown}; a note explains a 'reject' or an 'accept'")
    repeated = notes.loc[notes["record_id"].duplicated(), "record_id"].unique()
    if len(repeated):
        raise InputError(f"{len(repeated)} record ids repeat, e.g. {list(repeated[:3])}; give one note per record")


def reduce_notes(notes: pd.DataFrame, vectors: Matrix, positions: Labels | None = None) -> DistinctNotes:
    """Merge the identical notes of one polarity.

    Args:
        notes: record_id, text, split.
        vectors: Of the notes, or of more than them.
        positions: The notes' rows in `vectors`; None where they are all there, in order.
    """
    order = np.argsort(notes["record_id"].to_numpy(dtype=object), kind="stable")
    texts = notes["text"].to_numpy(dtype=object)[order]
    normalised = np.array([normalise_note(text) for text in texts], dtype=object)
    key, _ = pd.factorize(normalised, sort=True)
    is_train = (notes["split"] == "train").to_numpy(dtype=bool)[order]
    # a train record speaks for its equals: what is written otherwise on dev or test must not show in a pattern
    by_key = np.lexsort((~is_train, key))
    first = by_key[np.unique(key[by_key], return_index=True)[1]]
    return DistinctNotes(
        record_ids=notes["record_id"].to_numpy(dtype=object)[order].tolist(),
        key=key.astype(np.int64),
        is_train=is_train,
        texts=texts[first].tolist(),
        rows=unit(vectors[order[first] if positions is None else positions[order[first]]], in_place=True),
        weights=np.bincount(key[is_train], minlength=len(first)),
    )


def _discover(
    notes: DistinctNotes, polarity: str, phrases: NDArray[np.floating] | None, seed: int, n_resamples: int
) -> list[dict[str, Any]]:
    in_train, others = np.flatnonzero(notes.weights), np.flatnonzero(notes.weights == 0)
    rows = notes.rows[in_train] if len(others) else notes.rows  # no second copy of a million vectors
    weights = notes.weights[in_train]
    clusters = fit_clusters(rows, weights, seed=seed)
    stability = measure_stability(rows, weights, clusters, seed=seed, n_resamples=n_resamples)
    strengths = clusters.strengths(rows)
    kinds = None if phrases is None else select_kinds(rows, clusters.labels, phrases)
    themes = describe_themes([notes.texts[i] for i in in_train], weights, clusters.labels, strengths, kinds)
    labels = np.empty(len(notes.texts), dtype=np.int64)
    labels[in_train], labels[others] = clusters.labels, clusters.assign(notes.rows[others])
    members = _members_by_label(labels[notes.key], len(themes))
    patterns = []
    for c, theme in enumerate(themes):
        own_texts = [notes.texts[i] for i in in_train[clusters.labels == c]]
        pattern_id = f"{polarity}-{_short_hash(own_texts)}"
        patterns.append(_row(notes, members[c], theme) | {"pattern_id": pattern_id, "stability": stability[c]})
    patterns.sort(key=lambda row: (-row["count"], row["pattern_id"]))
    rest = members[UNCLUSTERED]
    if len(rest):
        patterns.append(_unclustered_row(notes, rest) | {"pattern_id": f"unclustered-{polarity}"})
    return [row | {"polarity": polarity, "method": clusters.method} for row in patterns]


def measure_stability(
    rows: Matrix, weights: Labels, clusters: Clusters, *, seed: int, n_resamples: int
) -> list[float | None]:
    """The bootstrap Jaccard of each cluster, None where it was not computed."""
    rng = np.random.default_rng([seed, 1])
    sample = np.arange(len(rows))
    if len(rows) > MAX_SMALL:
        n_resamples = min(n_resamples, N_LARGE_RESAMPLES)
    if len(rows) > MAX_SAMPLE:
        sample = np.sort(rng.choice(len(rows), MAX_SAMPLE, replace=False))

    def refit(chosen: Labels, new_seed: int) -> Labels:
        return fit_clusters(rows[sample[chosen]], weights[sample[chosen]], seed=new_seed).labels

    found = bootstrap_jaccard(clusters.labels[sample], refit, n_resamples=n_resamples, rng=rng)
    found = np.pad(found, (0, len(clusters.centroids) - len(found)), constant_values=np.nan)
    return [None if np.isnan(value) else float(value) for value in found]


def _row(notes: DistinctNotes, members: Labels, theme: Theme) -> dict[str, Any]:
    return _members(notes, members) | {
        "name": theme.name,
        "description": theme.description,
        "is_unclustered": False,
        "examples": list(theme.examples),
        "keywords": list(theme.keywords),
        "confidence": theme.confidence,
    }


def _unclustered_row(notes: DistinctNotes, members: Labels) -> dict[str, Any]:
    texts = sorted({notes.texts[notes.key[i]] for i in members if notes.is_train[i]})
    return _members(notes, members) | {
        "name": "Unclustered",
        "description": "Notes that belong to no pattern",
        "is_unclustered": True,
        "examples": texts[:N_EXAMPLES],
        "keywords": [],
        "confidence": None,
        "stability": None,
    }


def _members(notes: DistinctNotes, members: Labels) -> dict[str, Any]:
    return {
        "count": len(members),
        "record_ids": [notes.record_ids[i] for i in members],
        "train_record_ids": [notes.record_ids[i] for i in members if notes.is_train[i]],
    }


def _members_by_label(labels: Labels, n_patterns: int) -> list[Labels]:
    """The positions of each label's notes; the last entry, which -1 indexes, holds the unclustered."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(n_patterns + 1))
    rest, *groups = np.split(order, bounds)
    return [*groups[:n_patterns], rest]


def _short_hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(sorted(map(normalise_note, texts))).encode()).hexdigest()[:8]
