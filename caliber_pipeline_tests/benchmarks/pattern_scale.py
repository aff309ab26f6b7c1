"""Time, memory and agreement of clustering many notes, with embeddings computed before.

    python -m caliber_pipeline_tests.benchmarks.pattern_scale [--sizes 1000 10000 100000 1000000]

Encodes templated notes (`many_notes`), draws vectors on the lines between notes of one theme up to each size, and
fits each size in a process of its own. The agreement with a full fit is measured where a full fit is still cheap.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core import clustering
from caliber_pipeline.core.clustering import fit_clusters
from caliber_pipeline.core.consensus import unit
from caliber_pipeline.core.notes import theme_texts
from caliber_pipeline.core.patterns import discover_patterns
from caliber_pipeline.encoders import CachedEncoder, SentenceTransformerEncoder
from caliber_pipeline.stores.embedding_cache import EmbeddingCache
from caliber_pipeline_tests.benchmarks.many_notes import build_notes, interpolate

FULL_FIT = 10_000  # notes up to which a fit on all of them is compared with a fit on a sample


def measure(rows: NDArray[np.floating], themes: NDArray[np.int64], n: int) -> list[str]:
    """A table row: the patterns of `n` notes, from vectors to names, stability included."""
    from sklearn.metrics import adjusted_rand_score

    vectors, nearest = interpolate(rows, themes, n, np.random.default_rng(n))
    notes, _ = build_notes()
    columns = {
        "record_id": [f"r{i:07}" for i in range(n)],
        "text": [f"{notes[k]} {i}" for i, k in enumerate(nearest.tolist())],
        "polarity": ["reject"] * n,
        "split": ["train"] * n,
    }
    frame = pd.DataFrame(columns, dtype="string[pyarrow]")
    before_mb = _peak_mb()
    started = time.perf_counter()
    patterns = discover_patterns(frame, vectors)
    seconds = time.perf_counter() - started
    peak_mb = _peak_mb()
    labels = np.full(n, -1)
    found = patterns[~patterns["is_unclustered"].astype(bool)].reset_index(drop=True)
    for label, ids in enumerate(found["record_ids"]):
        labels[[int(i[1:]) for i in ids]] = label
    ari, left_out = adjusted_rand_score(themes[nearest], labels), np.mean(labels < 0)
    fitted = min(n, clustering.MAX_SAMPLE)
    cost = [f"{seconds:.1f}", f"{before_mb / 1024:.1f}", f"{peak_mb / 1024:.1f}"]
    quality = [f"{len(found)}", f"{ari:.2f}", f"{left_out:.0%}", f"{found['stability'].astype(float).mean():.2f}"]
    return [f"{n:,}", str(patterns["method"][0]), f"{fitted:,}", *cost, *quality]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare_with_full_fit(rows: NDArray[np.floating], themes: NDArray[np.int64], max_sample: int) -> str:
    """A sentence on how far a sample's fit agrees with a fit on all."""
    from sklearn.metrics import adjusted_rand_score

    vectors, _ = interpolate(rows, themes, FULL_FIT, np.random.default_rng(1))
    weights = np.ones(FULL_FIT, dtype=np.int64)
    clustering.MAX_SAMPLE = FULL_FIT  # type: ignore[misc]
    full = fit_clusters(vectors, weights).labels
    clustering.MAX_SAMPLE = max_sample  # type: ignore[misc]
    sampled = fit_clusters(vectors, weights).labels
    agreement = adjusted_rand_score(full, sampled)
    return f"Fit on {max_sample:,} of {FULL_FIT:,}: adjusted Rand index {agreement:.2f} with the fit on all.\n"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "caliber-benchmark.sqlite")
    arguments = parser.parse_args()
    notes, themes = build_notes()
    encoder = CachedEncoder(SentenceTransformerEncoder(), EmbeddingCache(arguments.cache))
    rows = unit(encoder.encode(theme_texts(notes)))
    header = ["notes", "method", "fitted on", "s", "GB before", "GB peak", "themes", "ARI", "unclustered", "stability"]
    sys.stdout.write(f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n")
    context = multiprocessing.get_context("spawn")
    for n in arguments.sizes:
        with context.Pool(1) as pool:
            line = pool.apply(measure, (rows, themes, n))
        sys.stdout.write(f"| {' | '.join(line)} |\n")
        sys.stdout.flush()
    with context.Pool(1) as pool:
        sys.stdout.write(pool.apply(compare_with_full_fit, (rows, themes, clustering.MAX_SAMPLE // 2)))


if __name__ == "__main__":
    main()
