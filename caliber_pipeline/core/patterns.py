"""Patterns: themes in people's notes, fitted on train, with the other notes assigned."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.clustering import UNCLUSTERED, Clusters, Labels, fit_clusters, unit
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import fingerprint_frame
from caliber_pipeline.core.keywords import select_keywords
from caliber_pipeline.core.schemas import conform_frame, empty_frame

POLARITIES: Final = ("reject", "accept")
N_EXAMPLES: Final = 5
_NAME_WORDS: Final = 3


@dataclass(frozen=True)
class _Notes:
    """The notes of one polarity, reduced to the distinct ones.

    Attributes:
        record_ids: Per note, sorted.
        key: Per note the index of its distinct note.
        texts: Per distinct note the text of its first record.
        rows: Per distinct note its unit vector.
        is_train: Per note.
        weights: Per distinct note how many records of train it stands for.
    """

    record_ids: list[str]
    key: Labels
    texts: list[str]
    rows: NDArray[np.float64]
    is_train: NDArray[np.bool_]
    weights: Labels


def discover_patterns(notes: pd.DataFrame, vectors: NDArray[np.floating], *, seed: int = 0) -> pd.DataFrame:
    """Find the themes that notes have in common, rejects and accepts apart.

    Patterns are fitted on the notes of train alone, and their names, keywords and examples come from these; the
    other notes join the nearest pattern or stay unclustered. A polarity with fewer than two distinct train notes
    has no patterns. The result depends on neither the order of the rows nor, but for notes beyond the sample that
    a large fit uses, the seed.

    Args:
        notes: One row per record: record_id, text, polarity ('reject' or 'accept'), split.
        vectors: Shape (len(notes), dimensions), in the rows' order.
        seed: Draws the sample that a large fit uses.

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
            frames.append(_discover(notes[chosen], np.asarray(vectors)[chosen], polarity, seed))
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


def normalise_note(text: str) -> str:
    """What makes two notes identical: their words, whatever the case, spacing and closing punctuation."""
    return " ".join(text.casefold().split()).strip(" .!?;,\"'")


def _reduce(notes: pd.DataFrame, vectors: NDArray[np.floating]) -> _Notes:
    order = np.argsort(notes["record_id"].to_numpy(dtype=object), kind="stable")
    texts = notes["text"].to_numpy(dtype=object)[order]
    normalised = np.array([normalise_note(text) for text in texts], dtype=object)
    key, _ = pd.factorize(normalised, sort=True)
    _, first = np.unique(key, return_index=True)
    is_train = (notes["split"] == "train").to_numpy(dtype=bool)[order]
    return _Notes(
        record_ids=notes["record_id"].to_numpy(dtype=object)[order].tolist(),
        key=key.astype(np.int64),
        texts=texts[first].tolist(),
        rows=unit(vectors[order[first]]),
        is_train=is_train,
        weights=np.bincount(key[is_train], minlength=len(first)),
    )


def _discover(notes: pd.DataFrame, vectors: NDArray[np.floating], polarity: str, seed: int) -> pd.DataFrame:
    fingerprint = fingerprint_frame(notes, ["record_id", "text", "polarity", "split"])
    reduced = _reduce(notes, vectors)
    in_train = np.unique(reduced.key[reduced.is_train])
    clusters = fit_clusters(reduced.rows[in_train], reduced.weights[in_train], seed=seed)
    labels = clusters.assign(reduced.rows)
    labels[in_train] = clusters.labels
    frame = _describe(reduced, in_train, clusters, labels, polarity)
    return frame.assign(method=clusters.method, notes_fingerprint=fingerprint)


def _describe(notes: _Notes, in_train: Labels, clusters: Clusters, labels: Labels, polarity: str) -> pd.DataFrame:
    n_patterns = len(clusters.centroids)
    fitted = [in_train[clusters.labels == c] for c in range(n_patterns)]
    keywords = select_keywords(
        [[notes.texts[i] for i in members for _ in range(notes.weights[i])] for members in fitted]
    )
    members_by_label = _members_by_label(labels[notes.key], n_patterns)
    rows = []
    for c, members in enumerate(fitted):
        similarity = notes.rows[members] @ clusters.centroids[c]
        examples = [notes.texts[i] for i in members[np.argsort(-similarity, kind="stable")][:N_EXAMPLES]]
        rows.append(
            _row(notes, members_by_label[c], polarity)
            | {
                "pattern_id": f"{polarity}-{_short_hash([notes.texts[i] for i in members])}",
                "name": name_pattern(keywords[c], examples),
                "description": describe_pattern(keywords[c], examples),
                "examples": examples,
                "keywords": keywords[c],
                "confidence": float(similarity.mean()),
            }
        )
    rows.sort(key=lambda row: (-len(row["record_ids"]), row["pattern_id"]))
    rest = members_by_label[UNCLUSTERED]
    if len(rest):
        rows.append(_unclustered_row(notes, rest, polarity))
    return pd.DataFrame(rows)


def _row(notes: _Notes, members: Labels, polarity: str) -> dict[str, Any]:
    return {
        "polarity": polarity,
        "is_unclustered": False,
        "count": len(members),
        "record_ids": [notes.record_ids[i] for i in members],
        "train_record_ids": [notes.record_ids[i] for i in members if notes.is_train[i]],
        "stability": None,
    }


def _unclustered_row(notes: _Notes, members: Labels, polarity: str) -> dict[str, Any]:
    texts = sorted({notes.texts[notes.key[i]] for i in members if notes.is_train[i]})
    return _row(notes, members, polarity) | {
        "pattern_id": f"unclustered-{polarity}",
        "name": "Unclustered",
        "description": "Notes that belong to no pattern",
        "is_unclustered": True,
        "examples": texts[:N_EXAMPLES],
        "keywords": [],
        "confidence": None,
    }


def _members_by_label(labels: Labels, n_patterns: int) -> list[Labels]:
    """The positions of each label's notes; the last entry, which -1 indexes, holds the unclustered."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(n_patterns + 1))
    rest, *groups = np.split(order, bounds)
    return [*groups[:n_patterns], rest]


def _short_hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(sorted(map(normalise_note, texts))).encode()).hexdigest()[:8]


def name_pattern(keywords: Sequence[str], examples: Sequence[str]) -> str:
    """A short name: the first keywords, or the most typical note where there are none."""
    words = ", ".join(keywords[:_NAME_WORDS]) or _shorten(examples[0], 60)
    return words[:1].upper() + words[1:]


def describe_pattern(keywords: Sequence[str], examples: Sequence[str]) -> str:
    """What the notes have in common: keywords and the most typical note."""
    about = f"Notes about {', '.join(keywords)}; for example: " if keywords else "For example: "
    return f"{about}“{_shorten(examples[0], 200)}”"


def _shorten(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rsplit(" ", 1)[0] + "…"
