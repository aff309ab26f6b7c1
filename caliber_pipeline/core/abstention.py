"""Which records a judge may decide alone, with a guarantee, and which it leaves to people."""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.agreement import Floats, parse_scores
from caliber_pipeline.core.arguments import SHARE, accepts, has_attributes
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.splits import CALIBRATION
from caliber_pipeline.core.weights import thin_sampled

ALPHA: Final = 0.1  # disagreement that is put up with among the records that the judge decides
DELTA: Final = 0.1  # risk that the guarantee fails
FIRST_SHARE: Final = 0.2  # of the calibration records, the surest: a smaller start could fail by one unlucky record
_GRID: Final = np.round(np.arange(1.0, -0.0025, -0.005), 3)  # thresholds, fixed before any label is seen


@dataclass(frozen=True)
class Abstention:
    """From which confidence on the judge decides alone.

    Attributes:
        threshold: The judge decides records of at least this confidence; None where nothing can be guaranteed.
        share_decided: Share of the calibration records that it decides.
        n_calibration: Calibration records with a confidence.
        n_decided: Those of at least the threshold.
        n_errors: Disagreements with people among them.
        risk_bound: Upper bound of the disagreement among what it decides, at confidence 1 - delta, were the threshold
            chosen beforehand; what is guaranteed of a chosen one is alpha.
        reason: Why there is no threshold, and what is missing; None where there is one.
        alpha: Disagreement that is put up with among what it decides.
        delta: Risk that the guarantee fails.
    """

    threshold: float | None
    share_decided: float
    n_calibration: int
    n_decided: int
    n_errors: int
    risk_bound: float | None
    reason: str | None = None
    alpha: float = ALPHA
    delta: float = DELTA

    @property
    def in_words(self) -> str:
        """What the judge may decide alone, or why nothing."""
        if self.threshold is None:
            return f"nothing alone: {self.reason}"
        return (
            f"what it is sure of by {self.threshold:g} or more, {self.share_decided:.0%} of {self.n_calibration} "
            f"calibration records: {self.n_errors} errors in {self.n_decided}; {self.guarantee}"
        )

    @property
    def guarantee(self) -> str:
        """What is guaranteed of what the judge decides alone."""
        agreement, confidence = (100 * (1 - risk) for risk in (self.alpha, self.delta))
        return f"people agree with {agreement:g} % of it or more, at {confidence:g} % confidence"


def labels_needed(alpha: float = ALPHA, delta: float = DELTA) -> int:
    """Error-free labels with which a disagreement of at most alpha is shown at confidence 1 - delta: 22 at 0.1, 0.1."""
    return math.ceil(math.log(delta) / math.log(1 - alpha))


def select_calibration(scored: pd.DataFrame) -> pd.DataFrame:
    """The records to learn a threshold from: one per group of the calibration part, always the same.

    Nothing else uses that part. One record per group, as the bound is for independent records; of those that a plan
    chose by unequal probabilities, as many as make them a plain random sample.
    """
    usable = scored["llm_score"].notna() & ~scored["is_example"] & scored["confidence"].notna()
    chosen = thin_sampled(scored[usable.to_numpy(dtype=bool) & (scored["split"] == CALIBRATION).to_numpy(dtype=bool)])
    order = np.argsort(hash_texts(chosen["record_id"]), kind="stable")
    in_order: pd.DataFrame = chosen.iloc[order]
    return in_order.drop_duplicates("group").sort_values("record_id", ignore_index=True)


def find_threshold(
    confidence: npt.ArrayLike, is_agreeing: npt.ArrayLike, *, alpha: float = ALPHA, delta: float = DELTA
) -> Abstention:
    """The lowest confidence at which disagreement stays at most alpha, with confidence 1 - delta.

    Fixed-sequence testing: Jung, Brahman & Choi (2024), arXiv 2407.18370. Thresholds of a fixed grid are tested from
    the strictest down, each by the exact binomial probability of so few errors at a risk of alpha; the first that fails
    ends it, so that no correction for many tests is due. Where the sequence starts depends on the confidences alone.

    Args:
        confidence: Shape (n,): of independent calibration records that nothing else uses; NaN where there is none.
        is_agreeing: Shape (n,): judge and people agree.
        alpha: Disagreement that is put up with.
        delta: Risk that the guarantee fails.

    Raises:
        InputError: alpha or delta is not between 0 and 1, the arrays differ in length, or hold something else.
    """
    found = _find(confidence, is_agreeing, alpha, delta)
    return replace(found, alpha=alpha, delta=delta)


@accepts(alpha=SHARE, delta=SHARE)
def _find(confidence: npt.ArrayLike, is_agreeing: npt.ArrayLike, alpha: float, delta: float) -> Abstention:
    values, agrees = np.asarray(confidence, dtype=np.float64), parse_scores(is_agreeing, "agreement") == 1
    if values.shape != agrees.shape:
        raise InputError(f"{values.size} confidences and {agrees.size} agreements; give one of each per record")
    known = ~np.isnan(values)
    if ((values[known] < 0) | (values[known] > 1)).any():
        worst = values[known][np.abs(values[known] - 0.5).argmax()]
        raise InputError(f"a confidence is {worst:g}; give shares from 0 to 1")
    values, agrees = values[known], agrees[known]
    n, needed = values.size, labels_needed(alpha, delta)
    if not n:
        return _nothing(0, "the judge gives no confidences; ask it for one, or take several votes")
    if n < needed:
        return _nothing(
            n, f"{needed - n} more calibration labels are needed: {needed} without an error show it at best"
        )
    n_decided, n_errors = _count(values, agrees)
    in_sequence = n_decided >= max(needed, math.ceil(FIRST_SHARE * n))
    from scipy.stats import binom

    fails = np.asarray(binom.cdf(n_errors[in_sequence], n_decided[in_sequence], alpha) > delta)
    n_passed = int(np.argmax(fails)) if fails.any() else fails.size
    if n_passed == 0:
        first_n, first_errors = int(n_decided[in_sequence][0]), int(n_errors[in_sequence][0])
        return _nothing(
            n,
            f"among the {first_n} surest records judge and people differ on {first_errors}: agreement of "
            f"{1 - alpha:.0%} cannot be shown; allow more disagreement, label more, or improve the judge",
        )
    last = np.flatnonzero(in_sequence)[n_passed - 1]
    strictest = int(np.argmax(n_decided == n_decided[last]))  # of the thresholds that decide the same records
    return _found(strictest, n_decided, n_errors, n, delta)


def learn_abstention(scored: pd.DataFrame, *, alpha: float = ALPHA, delta: float = DELTA) -> Abstention:
    """From which confidence on a judge may decide alone, from its verdicts with labels as `join_labels` gives them.

    Raises:
        InputError: alpha or delta is not between 0 and 1.
    """
    part = select_calibration(scored)
    if part.empty and scored["confidence"].notna().any():
        nothing = _nothing(0, "no calibration record is judged: they are part of test, which only winning versions see")
        return replace(nothing, alpha=alpha, delta=delta)
    agrees = (part["llm_score"] == part["human_score"]).to_numpy(dtype=bool)
    confidence = part["confidence"].to_numpy(dtype=np.float64, na_value=np.nan)
    return find_threshold(confidence, agrees, alpha=alpha, delta=delta)


def list_abstained(scored: pd.DataFrame, abstention: Abstention) -> tuple[str, ...]:
    """The judged records that need a person more: the judge leaves them to people, and fewer than two have judged them.

    None where nothing is guaranteed: then the judge decides nothing, and a list of everything would help nobody.
    """
    if abstention.threshold is None:
        return ()
    is_open = scored["llm_score"].notna() & ~scored["is_example"] & (scored["n_annotators"] < 2)
    unsure = select_abstained(scored["confidence"].to_numpy(dtype=np.float64, na_value=np.nan), abstention)
    return tuple(map(str, scored.loc[is_open.to_numpy(dtype=bool) & unsure, "record_id"]))


@accepts(abstention=has_attributes("threshold", wanted="what find_threshold returns"))
def select_abstained(confidence: npt.ArrayLike, abstention: Abstention) -> npt.NDArray[np.bool_]:
    """Which verdicts go to people: those below the threshold or without a confidence; all where there is none."""
    values = np.asarray(confidence, dtype=np.float64)
    if abstention.threshold is None:
        return np.ones(values.shape, dtype=np.bool_)
    return ~(values >= abstention.threshold)


def _count(values: Floats, agrees: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Records of at least each threshold of the grid, and disagreements among them."""
    order = np.argsort(-values, kind="stable")
    n_decided = np.searchsorted(-values[order], -_GRID, side="right").astype(np.int64)
    errors = np.append(0, np.cumsum(~agrees[order])).astype(np.int64)
    return n_decided, errors[n_decided]


def _nothing(n: int, reason: str) -> Abstention:
    return Abstention(None, 0.0, n, 0, 0, None, reason)


def _found(
    place: int, n_decided: npt.NDArray[np.int64], n_errors: npt.NDArray[np.int64], n: int, delta: float
) -> Abstention:
    from scipy.special import betaincinv

    decided, errors = int(n_decided[place]), int(n_errors[place])
    # the one-sided bound of Clopper & Pearson (1934), Biometrika 26:404-413
    bound = 1.0 if errors == decided else float(betaincinv(errors + 1, decided - errors, 1 - delta))
    return Abstention(float(_GRID[place]), decided / n, n, decided, errors, bound)
