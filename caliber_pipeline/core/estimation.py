"""The accept rate in production, from a judge's verdicts on all of it and people's labels on a part."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core import means
from caliber_pipeline.core.agreement import Floats, parse_scores
from caliber_pipeline.core.arguments import SHARE, accepts
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.intervals import CONFIDENCE, JEFFREYS, normal_quantile, proportion_interval

RANDOM_SAMPLE: Final = "random_sample"
LABEL_SHIFT: Final = "label_shift"
MIN_LABELS: Final = 20  # with fewer, no correction by the judge can be told from noise
MIN_OF_EACH: Final = 5  # with fewer accepts or rejects, TPR or TNR is anybody's guess
CONTRADICTED: Final = "the judge accepts more or less than its rates on the labels allow: the assumption does not hold"
MIN_YOUDEN: Final = 0.1  # TPR + TNR - 1 below which the correction divides by next to nothing


@dataclass(frozen=True)
class RateEstimate:
    """A production accept rate.

    Attributes:
        assumption: random_sample or label_shift: what the user vouches for.
        value: The estimated share that people would accept.
        ci_low: Lower end of the interval.
        ci_high: Upper end.
        standard_error: Of the value.
        judge_rate: The judge's own accept rate on the unlabelled records, uncorrected.
        n_labels: Labelled records used.
        n_unlabeled: Unlabelled records used.
        judge_weight: How far the judge's verdicts are used, 0 (labels alone) to 1; None for label_shift.
        n_equivalent: Labels alone that would give as short an interval.
        caution: Why not to trust it; None where nothing speaks against it.
    """

    assumption: str
    value: float
    ci_low: float
    ci_high: float
    standard_error: float
    judge_rate: float
    n_labels: int
    n_unlabeled: int
    judge_weight: float | None
    n_equivalent: float
    caution: str | None = None


@accepts(confidence=SHARE)
def estimate_from_random_sample(
    human: npt.ArrayLike,
    llm: npt.ArrayLike,
    llm_unlabeled: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    confidence: float = CONFIDENCE,
) -> RateEstimate:
    """Prediction-powered estimate; assumes that the labelled records are a random sample of production.

    PPI++: Angelopoulos, Duchi & Zrnic (2023), arXiv 2311.01453: the labels' mean, moved by the judge's mean on the
    unlabelled records less that on the labelled ones, with the weight that makes the variance least; a judge that
    knows nothing gets weight 0. The interval is that of a proportion at the size that has this variance, as the normal
    one undercovers for rates near 0 or 1; of groups and weights it is as much wider as a t interval with the degrees of
    freedom that few heavy groups leave (Satterthwaite, 1946, Biometrics Bull. 2:110-114).

    Args:
        human: Labels of the labelled records, 0 or 1.
        llm: The judge's verdicts on them.
        llm_unlabeled: The judge's verdicts on the others.
        groups: Groups of the labelled records, where records of a group are alike.
        weights: Of the labelled records, 1 / inclusion probability where they were sampled actively: Zrnic & Candès
            (2024), Active statistical inference, ICML.
        confidence: Of the interval.

    Raises:
        InputError: there are too few labels, or no unlabelled record, or the arrays do not fit together.
    """
    labels, judged, others, shares = _parse(human, llm, llm_unlabeled, groups, weights)
    n, n_others = labels.size, others.size
    both, amounts = np.append(judged, others), np.append(shares, np.ones(n_others))
    spread = means.weighted_variance(both, amounts) * both.size / (both.size - 1)
    weight = 0.0
    if spread > 0:
        n_effective = n / float((shares**2).mean())  # Kish's
        covariance = float(np.cov(labels, judged, aweights=shares, ddof=0)[0, 1])
        weight = float(np.clip(covariance / ((1 + n_effective / n_others) * spread), 0.0, 1.0))
    rectified = labels - weight * judged
    value = float(np.clip(np.average(rectified, weights=shares) + weight * others.mean(), 0.0, 1.0))
    of_others = weight**2 * float(others.var()) / n_others
    of_labels = means.weighted_variance(rectified, shares) / n
    design_effect = means.design_effect(rectified, groups, shares)
    smoothed = design_effect * _smoothed_variance(labels, judged, weight, shares) + of_others
    n_equivalent = _equivalent_size(value, smoothed, n)
    n_known = n_equivalent / means.t_widening(rectified, groups, shares, confidence) ** 2
    low, high = proportion_interval(value * n_known, n_known, confidence=confidence)
    return RateEstimate(
        assumption=RANDOM_SAMPLE,
        value=value,
        ci_low=float(low),
        ci_high=float(high),
        standard_error=float(np.sqrt(design_effect * of_labels + of_others)),
        judge_rate=float(others.mean()),
        n_labels=n,
        n_unlabeled=n_others,
        judge_weight=weight,
        n_equivalent=n_equivalent,
    )


@accepts(confidence=SHARE)
def estimate_under_label_shift(
    human: npt.ArrayLike,
    llm: npt.ArrayLike,
    llm_unlabeled: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    confidence: float = CONFIDENCE,
) -> RateEstimate:
    """Correct the judge's rate by its TPR and TNR; assumes that these are in production what they are on the labels.

    Rogan & Gladen (1978), Am. J. Epidemiol. 107:71-76: (q + TNR - 1) / (TPR + TNR - 1). The interval is Fieller's
    (1954, J. R. Stat. Soc. B 16:175-185) of this ratio, with the variance of all three inputs: all rates for which q is
    no surprise; from 0 to 1 where the labels do not show that the judge is better than chance. The inputs are adjusted
    as by Lang & Reiczigel (2014), Prev. Vet. Med. 113:13-22, whose own interval covers 90 % beside a weak judge and few
    rejects (simulated). Labels must come from dev and test, as the criteria were written with train in view.

    Raises:
        InputError: there are too few labels of a kind, no unlabelled record, the judge is hardly better than chance, or
            the arrays do not fit together.
    """
    labels, judged, others, shares = _parse(human, llm, llm_unlabeled, groups, weights)
    errors = (labels != judged).astype(np.float64)
    design_effect = means.design_effect(errors, groups, shares)
    accepts, rejects = shares * labels / design_effect, shares * (1 - labels) / design_effect
    n_accepts, n_rejects = float(accepts.sum()), float(rejects.sum())
    if min(labels.sum(), (1 - labels).sum()) < MIN_OF_EACH:
        raise InputError(
            f"{labels.sum():.0f} accepts and {(1 - labels).sum():.0f} rejects among the labels; "
            f"label at least {MIN_OF_EACH} of each, better 30"
        )
    hits, correct_rejects = float(accepts @ judged), float(rejects @ (1 - judged))
    youden = hits / n_accepts + correct_rejects / n_rejects - 1
    if youden < MIN_YOUDEN:
        raise InputError(
            f"TPR {hits / n_accepts:.2f} and TNR {correct_rejects / n_rejects:.2f}: the judge is hardly better than "
            "chance, and no rate can be read from it; use --random-sample, or a better judge"
        )
    z = normal_quantile(confidence)
    n = others.size
    judge_rate = float(others.mean())
    rate, recall, specificity = judge_rate, hits / n_accepts, correct_rejects / n_rejects
    value = float(np.clip((rate + specificity - 1) / youden, 0.0, 1.0))
    error = np.sqrt(_corrected_variance(rate, n, recall, n_accepts, specificity, n_rejects, value))
    # Adjusted inputs: Agresti & Coull's for the rate, one pseudo-record of each kind for TPR and TNR.
    rate, n_rate = (n * rate + z**2 / 2) / (n + z**2), n + z**2
    recall, n_recall = (hits + 1) / (n_accepts + 2), n_accepts + 2
    specificity, n_specificity = (correct_rejects + 1) / (n_rejects + 2), n_rejects + 2
    variances = tuple(
        share * (1 - share) / size for share, size in ((rate, n_rate), (recall, n_recall), (specificity, n_specificity))
    )
    reach = z * means.t_widening(errors, groups, shares, confidence)
    low, high = _fieller(rate, recall, specificity, variances, reach)
    return RateEstimate(
        assumption=LABEL_SHIFT,
        value=value,
        ci_low=float(np.clip(low, 0.0, value)),
        ci_high=float(np.clip(high, value, 1.0)),
        standard_error=float(error),
        judge_rate=judge_rate,
        n_labels=labels.size,
        n_unlabeled=n,
        judge_weight=None,
        n_equivalent=_equivalent_size(value, float(error**2), 1),
        caution=CONTRADICTED if low > 1 or high < 0 else None,
    )


def _parse(
    human: npt.ArrayLike,
    llm: npt.ArrayLike,
    llm_unlabeled: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    weights: npt.ArrayLike | None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Labels, verdicts on them and on the others, and weights of mean 1."""
    names = ("labels", "verdicts on labelled records", "verdicts on unlabelled records")
    labels, judged, others = (
        parse_scores(scores, name).astype(np.float64)
        for scores, name in zip((human, llm, llm_unlabeled), names, strict=True)
    )
    n = labels.size
    if n < MIN_LABELS:
        raise InputError(f"{n} labelled and judged records; label at least {MIN_LABELS}")
    if not others.size:
        raise InputError("no unlabelled record has a verdict; judge some first")
    given = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    sizes = {judged.size, given.size, n if groups is None else np.asarray(groups).size}
    if sizes != {n}:
        raise InputError(
            f"{n} labels, but {sorted(sizes - {n})} verdicts, groups or weights; give one of each per record"
        )
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise InputError("a weight is not above 0; give 1 / inclusion probability for every record")
    return labels, judged, others, means.normalised_weights(given)


def _smoothed_variance(labels: Floats, judged: Floats, weight: float, shares: Floats) -> float:
    """Variance of the mean of label less weighted verdict, with half a record more of each of the four kinds.

    Without them a judge that happens to err nowhere on few labels would be taken for one that never errs.
    """
    values = np.append(labels - weight * judged, [1 - weight, 0.0, -weight, 1.0])
    amounts = np.append(shares, np.full(4, JEFFREYS))
    return means.weighted_variance(values, amounts) / float(amounts.sum())


def _fieller(
    rate: float, recall: float, specificity: float, variances: tuple[float, ...], reach: float
) -> tuple[float, float]:
    """The shares x at which rate - (x recall + (1 - x) (1 - specificity)) is within reach of its standard errors."""
    of_rate, of_recall, of_specificity = variances
    slope, excess = recall + specificity - 1, rate + specificity - 1
    square = slope**2 - reach**2 * (of_recall + of_specificity)
    if slope <= 0 or square <= 0:
        return 0.0, 1.0
    centre = slope * excess - reach**2 * of_specificity
    rest = excess**2 - reach**2 * (of_rate + of_specificity)
    half = np.sqrt(centre**2 - square * rest)
    return (centre - half) / square, (centre + half) / square


def _corrected_variance(
    rate: float, n: float, recall: float, n_recall: float, specificity: float, n_specificity: float, value: float
) -> float:
    """Delta-method variance of the Rogan-Gladen estimate."""
    total = (
        rate * (1 - rate) / n
        + value**2 * recall * (1 - recall) / n_recall
        + (1 - value) ** 2 * specificity * (1 - specificity) / n_specificity
    )
    return total / (recall + specificity - 1) ** 2


def _equivalent_size(value: float, variance: float, floor: int) -> float:
    """Records of which a share `value` has this variance; at least `floor` where the rate or its variance is 0."""
    spread = value * (1 - value)
    return spread / variance if spread > 0 and variance > 0 else float(floor)
