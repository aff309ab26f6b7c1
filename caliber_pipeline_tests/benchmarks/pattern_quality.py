"""Themes against gold: ours and BERTopic with its defaults, on the same embeddings in the same run.

    python -m caliber_pipeline_tests.benchmarks.pattern_quality [--runs 5] [--chosen-on]

Adjusted Rand index and normalised mutual information against the themes that people gave; unclustered notes count as
one group. BERTopic is unseeded by default: its figures are means over the runs, ours over as many seeds. Both cluster
the same embeddings: of the notes as they are, with names masked, and masked and stretched along the kinds of fault,
which is what the pipeline does. The list of these kinds may hold a set's themes; the last embedding is stretched along
the others only, without the kind that is nearest to each gold theme. `--chosen-on` adds the sets that our parameters
were chosen on.
"""

import argparse
import csv
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.clustering import fit_clusters
from caliber_pipeline.core.consensus_clustering import Labels, unit
from caliber_pipeline.core.fault_kinds import KINDS, PHRASES, stretch_faults
from caliber_pipeline.core.notes import theme_texts
from caliber_pipeline.core.patterns import reduce_notes
from caliber_pipeline.core.stability import bootstrap_jaccard
from caliber_pipeline.encoders import CachedEncoder, Encoder, SentenceTransformerEncoder
from caliber_pipeline.encoders.notes import encode_notes
from caliber_pipeline.stores.embedding_cache import EmbeddingCache

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared" / "datasets"
NOTES = Path(__file__).parent / "notes"
N_BOOTSTRAP = 400

Method = Callable[[Sequence[str], NDArray[np.floating], int], Labels]


@dataclass(frozen=True)
class GoldSet:
    """Notes with their gold themes; an empty theme is not scored."""

    name: str
    notes: list[str]
    themes: list[str]


def load_gold_sets() -> list[GoldSet]:
    """The gold sets that are there, the one on which nothing was chosen first."""
    sets = []
    shared = SHARED / "booookscore_sample.csv"
    if shared.exists():
        rows = [row for row in _read(shared) if row["human_notes"]]
        themes = ["" if ";" in row["human_error_types"] else row["human_error_types"] for row in rows]
        sets.append(GoldSet("booookscore", [row["human_notes"] for row in rows], themes))
    gold = NOTES.parent / "sample_themes.csv"
    if gold.exists():
        themes_by_id = {row["record_id"]: row["theme"] for row in _read(gold)}
        first = [r for r in _read(ROOT / "data" / "input" / "annotations.csv") if r["annotator"] == "annotator_1"]
        rows = [r for r in first if r["notes"] and r["score"] == "0" and r["record_id"] in themes_by_id]
        sets.append(GoldSet("sample", [r["notes"] for r in rows], [themes_by_id[r["record_id"]] for r in rows]))
    return sets


def load_chosen_on() -> list[GoldSet]:
    """The gold sets that our parameters were chosen on."""
    sets = []
    for name in ("travel", "meetings", "code"):
        rows = _read(NOTES / f"{name}.csv")
        sets.append(GoldSet(name, [row["note"] for row in rows], [row["theme"] for row in rows]))
    return sets


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cluster_ours(notes: Sequence[str], vectors: NDArray[np.floating], seed: int) -> Labels:
    """Labels of the notes, as `discover_patterns` fits them on notes that are all in train."""
    ids = [f"{i:06}" for i in range(len(notes))]
    frame = pd.DataFrame({"record_id": ids, "text": list(notes), "split": "train"})
    distinct = reduce_notes(frame, vectors)
    labels: Labels = fit_clusters(distinct.rows, distinct.weights, seed=seed).labels[distinct.key]
    return labels


def cluster_bertopic(notes: Sequence[str], vectors: NDArray[np.floating], seed: int) -> Labels:
    """BERTopic with its defaults on the given embeddings; `seed` is not used, its default is none."""
    from bertopic import BERTopic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            topics, _ = BERTopic().fit_transform(list(notes), embeddings=vectors.astype(np.float32))
        except (ValueError, TypeError):  # too few notes for its defaults
            return np.full(len(notes), -1, dtype=np.int64)
    return np.array(topics, dtype=np.int64)


def _scores(gold: Labels, labels: Labels) -> tuple[float, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return adjusted_rand_score(gold, labels), normalized_mutual_info_score(gold, labels)


def _stability(method: Method, notes: Sequence[str], vectors: NDArray[np.floating], labels: Labels) -> float:
    def refit(chosen: Labels, seed: int) -> Labels:
        return method([notes[i] for i in chosen.tolist()], vectors[chosen], seed)

    found = bootstrap_jaccard(labels, refit, n_resamples=5, rng=np.random.default_rng(0))
    return float(np.nanmean(found)) if len(found) else float("nan")


def _difference(gold: Labels, ours: list[Labels], theirs: list[Labels]) -> list[str]:
    """Mean difference per score with its 95 % interval: 1.96 standard deviations over bootstrap samples.

    Notes are drawn anew, and runs, as both could have been others. Percentiles would not do: copies of a note agree
    with themselves, which lifts both scores in every sample.
    """
    rng = np.random.default_rng(0)

    def mean(runs: list[Labels], chosen: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = np.array([_scores(gold[rows], runs[i][rows]) for i in chosen.tolist()], dtype=np.float64)
        average: NDArray[np.float64] = scores.mean(axis=0)
        return average

    n, n_runs = len(gold), len(ours)
    point = mean(ours, np.arange(n_runs), np.arange(n)) - mean(theirs, np.arange(n_runs), np.arange(n))
    draws = []
    for _ in range(N_BOOTSTRAP):
        rows = rng.integers(0, n, n)
        first, second = rng.integers(0, n_runs, (2, n_runs))
        draws.append(mean(ours, first, rows) - mean(theirs, second, rows))
    margin = 1.96 * np.std(draws, axis=0)
    return [f"{point[i]:+.2f} [{point[i] - margin[i]:+.2f}, {point[i] + margin[i]:+.2f}]" for i in range(2)]


def compare(gold_set: GoldSet, vectors: NDArray[np.floating], embedding: str, n_runs: int) -> list[list[str]]:
    """Table rows: ours, BERTopic, and the difference."""
    keep = np.array([bool(theme) for theme in gold_set.themes])
    gold = pd.factorize(np.array(gold_set.themes, dtype=object)[keep])[0].astype(np.int64)
    rows, found = [], {}
    for name, method in (("this project", cluster_ours), ("BERTopic", cluster_bertopic)):
        runs = [method(gold_set.notes, vectors, seed) for seed in range(n_runs)]
        scores = np.mean([_scores(gold, run[keep]) for run in runs], axis=0)
        left_out = np.mean([np.mean(run < 0) for run in runs])
        n_themes = np.mean([run.max() + 1 for run in runs])
        stability = _stability(method, gold_set.notes, vectors, runs[0])
        figures = [
            f"{n_themes:.0f}",
            f"{scores[0]:.2f}",
            f"{scores[1]:.2f}",
            f"{100 * left_out:.0f} %",
            f"{stability:.2f}",
        ]
        rows.append([f"{gold_set.name}, {keep.sum()} of {len(keep)}", embedding, name, *figures])
        found[name] = [run[keep] for run in runs]
    both = _difference(gold, found["this project"], found["BERTopic"])
    return [*rows, ["", "", "difference", "", *both, "", ""]]


def encode_in_ways(encoder: Encoder, gold_set: GoldSet) -> dict[str, NDArray[np.floating]]:
    """The pipeline's vectors, and those without one of its steps or without the kinds that may give themes away."""
    masked = unit(encoder.encode(theme_texts(gold_set.notes)))
    return {
        "masked, stretched": encode_notes(encoder, gold_set.notes)[0],
        "masked": masked,
        "as it is": unit(encoder.encode(gold_set.notes)),
        "stretched by other kinds": stretch_faults(masked, select_other_phrases(encoder, gold_set, masked)),
    }


def select_other_phrases(encoder: Encoder, gold_set: GoldSet, vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """The vectors of the fault kinds' phrases, without the kind that each gold theme's notes are nearest to."""
    phrases = encoder.encode(list(PHRASES))
    similarity = (vectors @ unit(phrases).T).reshape(len(vectors), len(KINDS), -1).max(axis=2)
    themes = np.array(gold_set.themes, dtype=object)
    nearest = {int(similarity[themes == theme].mean(axis=0).argmax()) for theme in set(gold_set.themes) if theme}
    is_other = ~np.isin(np.arange(len(KINDS)), list(nearest))
    return phrases[np.repeat(is_other, len(PHRASES) // len(KINDS))]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chosen-on", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "caliber-benchmark.sqlite")
    arguments = parser.parse_args()
    encoder = CachedEncoder(SentenceTransformerEncoder(), EmbeddingCache(arguments.cache))
    header = ["notes, scored", "embedding", "method", "themes", "ARI", "NMI", "unclustered", "stability"]
    sys.stdout.write(f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n")
    for gold_set in [*load_gold_sets(), *(load_chosen_on() if arguments.chosen_on else [])]:
        for embedding, vectors in encode_in_ways(encoder, gold_set).items():
            for line in compare(gold_set, vectors, embedding, arguments.runs):
                sys.stdout.write(f"| {' | '.join(line)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
