"""Clusters by the `bertopic` package, an optional extra."""

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np

from caliber_pipeline.core.consensus_clustering import Labels, Matrix
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.stability import bootstrap_jaccard

N_RESAMPLES: Final = 5  # each takes seconds


def measure_bertopic_stability(
    texts: Sequence[str], rows: Matrix, labels: Labels, *, n_resamples: int, seed: int
) -> list[float | None]:
    """The bootstrap Jaccard of each topic, at most `N_RESAMPLES` samples; None where none could be clustered.

    A sample that is too small for BERTopic finds no topic again.
    """

    def refit(chosen: Labels, new_seed: int) -> Labels:
        try:
            return cluster_with_bertopic([texts[i] for i in chosen.tolist()], rows[chosen], seed=new_seed)
        except InputError:
            return np.full(len(chosen), -1, dtype=np.int64)

    rng = np.random.default_rng([seed, 1])
    found = bootstrap_jaccard(labels, refit, n_resamples=min(n_resamples, N_RESAMPLES), rng=rng)
    return [None if np.isnan(value) else float(value) for value in found]


def cluster_with_bertopic(texts: Sequence[str], rows: Matrix, *, seed: int) -> Labels:
    """BERTopic's topics with its default settings, UMAP seeded; -1 for its outliers.

    Raises:
        InputError: the package is not installed, or cannot cluster so few notes.
    """
    if importlib.util.find_spec("bertopic") is None:
        raise InputError(
            "the method BERTOPIC needs the package 'bertopic', which is not installed; "
            "run: pip install 'caliber-pipeline[bertopic]', or take ClusteringMethod.HDBSCAN"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bertopic import BERTopic
        from umap import UMAP

        reducer = UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=seed)
        try:
            topics, _ = BERTopic(umap_model=reducer).fit_transform(list(texts), embeddings=rows.astype(np.float32))
        except (ValueError, TypeError) as error:
            message = f"BERTopic cannot cluster {len(texts)} distinct notes ({error}); take ClusteringMethod.HDBSCAN"
            raise InputError(message) from error
    return np.array(topics, dtype=np.int64)
