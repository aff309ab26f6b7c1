"""Time, memory and agreement of clustering many notes, with embeddings computed before.

    python -m caliber_pipeline_tests.benchmarks.pattern_scale [--sizes 10000 100000 1000000]

Encodes templated notes (`many_notes`), draws vectors on the lines between notes of one theme up to each size, and
fits each size in a process of its own. The growth exponent is log(time ratio) / log(size ratio) to the row before: 1
is linear. The agreement with a full fit is measured where a full fit is still cheap.
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
from caliber_pipeline.core.patterns import discover_patterns
from caliber_pipeline.encoders import CachedEncoder, SentenceTransformerEncoder
from caliber_pipeline.encoders.notes import encode_notes
from caliber_pipeline.stores.embedding_cache import EmbeddingCache
from caliber_pipeline_tests.benchmarks.many_notes import build_notes, interpolate

FULL_FIT = 20_000  # notes of which a fit on all is compared with a fit on a sample


def measure(
    rows: NDArray[np.floating], phrases: NDArray[np.floating], themes: NDArray[np.int64], n: int
) -> tuple[float, list[str], list[str]]:
    """Seconds for the patterns of `n` notes, from vectors to names, stability included; what was run; its quality."""
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
    patterns = discover_patterns(frame, vectors, phrases)
    seconds = time.perf_counter() - started
    peak_mb = _peak_mb()
    labels = np.full(n, -1)
    found = patterns[~patterns["is_unclustered"].astype(bool)].reset_index(drop=True)
    for label, ids in enumerate(found["record_ids"]):
        labels[[int(i[1:]) for i in ids]] = label
    ari, left_out = adjusted_rand_score(themes[nearest], labels), np.mean(labels < 0)
    fitted = min(n, clustering.MAX_SAMPLE)
    ran = [f"{n:,}", str(patterns["method"][0]), f"{fitted:,}", f"{peak_mb / 1024:.1f}, {before_mb / 1024:.1f}"]
    quality = [
        f"{len(found)}",
        f"{ari:.2f}",
        f"{100 * left_out:.0f} %",
        f"{found['stability'].astype(float).mean():.2f}",
    ]
    return seconds, ran, quality


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare_with_full_fit(rows: NDArray[np.floating], themes: NDArray[np.int64]) -> str:
    """A sentence on how far a sample's fit agrees with a fit on all, and two samples' fits with each other."""
    from sklearn.metrics import adjusted_rand_score

    vectors, _ = interpolate(rows, themes, FULL_FIT, np.random.default_rng(1))
    weights = np.ones(FULL_FIT, dtype=np.int64)
    size = clustering.MAX_SAMPLE
    sampled = [fit_clusters(vectors, weights, seed=seed).labels for seed in range(3)]
    clustering.MAX_SAMPLE = FULL_FIT  # type: ignore[misc]
    full = fit_clusters(vectors, weights).labels
    with_full = np.mean([adjusted_rand_score(full, labels) for labels in sampled])
    with_other = np.mean([adjusted_rand_score(sampled[i], sampled[i - 1]) for i in range(3)])
    return (
        f"\nFits on {size:,} of {FULL_FIT:,} notes agree with the fit on all by an adjusted Rand index of "
        f"{with_full:.2f}, and with each other by {with_other:.2f} (three seeds).\n"
    )


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "caliber-benchmark.sqlite")
    arguments = parser.parse_args()
    notes, themes = build_notes()
    encoder = CachedEncoder(SentenceTransformerEncoder(), EmbeddingCache(arguments.cache))
    rows, phrases = encode_notes(encoder, notes)
    header = ["notes", "method", "fitted on", "GB, before", "s", "growth", "themes", "ARI", "unclustered", "stability"]
    sys.stdout.write(f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n")
    context = multiprocessing.get_context("spawn")
    before: tuple[int, float] | None = None
    for n in arguments.sizes:
        with context.Pool(1) as pool:
            seconds, ran, quality = pool.apply(measure, (rows, phrases, themes, n))
        growth = "" if before is None else f"{np.log(seconds / before[1]) / np.log(n / before[0]):.2f}"
        sys.stdout.write(f"| {' | '.join([*ran, f'{seconds:.1f}', growth, *quality])} |\n")
        sys.stdout.flush()
        before = (n, seconds)
    with context.Pool(1) as pool:
        sys.stdout.write(pool.apply(compare_with_full_fit, (rows, themes)))


if __name__ == "__main__":
    main()
