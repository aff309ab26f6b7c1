"""Stage `annotator_agreement`: how far people agree with each other, and each with themselves."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from caliber_pipeline.core.annotators import (
    Ratings,
    annotator_biases,
    build_ratings,
    fit_dawid_skene,
    pairwise_agreement,
    retest_agreement,
)
from caliber_pipeline.core.arguments import accepts, table_with
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.human_ceiling import alpha_with_interval
from caliber_pipeline.core.intervals import few_groups
from caliber_pipeline.core.schemas import ANNOTATOR_AGREEMENT

EVERYBODY = "(all)"


@accepts(annotations=table_with("record_id", "annotator", "score"))
def describe_annotators(annotations: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Pairwise agreement, alpha, biases, skills and test-retest of the annotators; gold labels are nobody's.

    Where annotations have groups, every interval takes these for what is independent: kappa, alpha and pairwise
    agreement are drawn by groups, the others are means with the variance of group sums.

    Args:
        annotations: All annotations, with the group of each record, where records belong together.
        seed: Of the bootstrap.

    Returns:
        A frame of the `annotator_agreement` schema; without rows where nobody but the records file judged.
    """
    ratings = build_ratings(annotations)
    rows = [*_pairs(ratings, seed), *_single(ratings, annotations)] if ratings.annotators else []
    frame = pd.DataFrame(rows, columns=ANNOTATOR_AGREEMENT.names, dtype=object)
    return conform_frame(frame, "annotator_agreement")


def _pairs(ratings: Ratings, seed: int) -> Iterator[dict[str, Any]]:
    alpha = alpha_with_interval(ratings, seed=seed)
    yield _row(EVERYBODY, None, alpha.metric, alpha.value, alpha.ci_low, alpha.ci_high, alpha.n, alpha.reason)
    for pair in pairwise_agreement(ratings, seed=seed).to_dict("records"):
        kappa, low, high = (_optional(pair[name]) for name in ("cohen_kappa", "ci_low", "ci_high"))
        people, n = (pair["annotator"], pair["other"]), pair["n"]
        caution = few_groups(pair["n_groups"]) if pair["n_groups"] < n else None
        reason = caution if kappa is not None else "both give one and the same verdict throughout"
        yield _row(*people, "cohen_kappa", kappa, low, high, n, reason)
        agreement = (pair["agreement"], pair["agreement_ci_low"], pair["agreement_ci_high"])
        yield _row(*people, "agreement", *agreement, n, caution)


def _single(ratings: Ratings, annotations: pd.DataFrame) -> Iterator[dict[str, Any]]:
    skills = fit_dawid_skene(ratings)
    is_shared = bool((ratings.n_raters >= 2).any())
    for j, row in enumerate(annotator_biases(ratings).to_dict("records")):
        name, n = row["annotator"], int(row["n"])
        bias, low, high = (_optional(row[key]) for key in ("bias", "ci_low", "ci_high"))
        reason = None if bias is not None else "nobody else judged these records"
        accept_rate = (row["accept_rate"], row["accept_rate_ci_low"], row["accept_rate_ci_high"])
        yield _row(name, None, "accept_rate", *accept_rate, n, None)
        yield _row(name, None, "bias", bias, low, high, int(row["n_shared"]), reason)
        if is_shared:
            yield _row(name, None, "dawid_skene_recall", float(skills.recall[j]), None, None, n, None)
            yield _row(name, None, "dawid_skene_specificity", float(skills.specificity[j]), None, None, n, None)
    for row in retest_agreement(annotations).to_dict("records"):
        yield _row(row["annotator"], None, "retest", row["agreement"], row["ci_low"], row["ci_high"], row["n"], None)


def _optional(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _row(*values: object) -> dict[str, Any]:
    return dict(zip(ANNOTATOR_AGREEMENT.names, values, strict=True))
