"""A map of the notes in two dimensions, on which patterns lie apart."""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.clustering import N_COMPONENTS
from caliber_pipeline.core.consensus_clustering import Matrix, principal_components, unit
from caliber_pipeline.core.ties import first_best

MAX_POINTS: Final = 2_000  # per polarity; more would cover each other


def map_notes(notes: pd.DataFrame, vectors: NDArray[np.floating], patterns: pd.DataFrame) -> pd.DataFrame:
    """Place each note so that the patterns' centres are spread as far as two dimensions let them.

    The axes are the first two principal axes of the centres, in the space in which the notes were clustered; where
    there are fewer than three patterns, those of the notes.

    Args:
        notes: record_id, text, polarity.
        vectors: Of the notes, in their order.
        patterns: A frame of the `patterns` schema on these notes.

    Returns:
        record_id, pattern_id, polarity, x, y; of more than 2,000 notes of a polarity every k-th by record id.
    """
    home = patterns[["pattern_id", "record_ids"]].explode("record_ids").rename(columns={"record_ids": "record_id"})
    placed = notes[["record_id", "polarity"]].merge(home, on="record_id")
    position = pd.Series(np.arange(len(notes)), index=notes["record_id"].to_numpy(dtype=object))
    clustered = set(patterns.loc[~patterns["is_unclustered"].astype(bool), "pattern_id"])
    parts = []
    for _, own in placed.sort_values("record_id").groupby("polarity", sort=True):
        shown = own.iloc[:: -(-len(own) // MAX_POINTS)]
        rows = unit(np.asarray(vectors)[position[shown["record_id"].to_numpy(dtype=object)]])
        points = _project(rows, shown["pattern_id"].where(shown["pattern_id"].isin(clustered)))
        parts.append(shown.assign(x=points[:, 0], y=points[:, 1]))
    columns = ["record_id", "pattern_id", "polarity", "x", "y"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _project(rows: Matrix, pattern_ids: pd.Series) -> Matrix:
    mean, axes = principal_components(rows, N_COMPONENTS)
    points = unit((rows - mean) @ axes)
    labels, _ = pd.factorize(pattern_ids, sort=True)
    n_patterns = int(labels.max(initial=-1)) + 1
    centres = np.array([points[labels == c].mean(axis=0) for c in range(n_patterns)])
    source = centres if n_patterns > 2 else points
    source_mean, source_axes = principal_components(source, 2)
    found = (points - source_mean) @ source_axes
    outermost = first_best(np.abs(found.T))
    found *= np.sign(found[outermost, np.arange(len(outermost))])  # else chance, or the processor, mirrors the map
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
