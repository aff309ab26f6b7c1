"""Clusters by the `bertopic` package, an optional extra."""

import importlib.util
import warnings
from collections.abc import Sequence

import numpy as np

from caliber_pipeline.core.consensus import Labels, Matrix
from caliber_pipeline.core.errors import InputError


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
