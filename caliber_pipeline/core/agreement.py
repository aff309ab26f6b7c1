"""Agreement between a judge and people, from the four cells alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.arguments import Kind, accepts, show
from caliber_pipeline.core.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = npt.NDArray[np.int8]

CELLS: Final = ("true_positives", "true_negatives", "false_positives", "false_negatives")

# Landis & Koch (1977), Biometrics 33:159-174, table on p. 165: upper ends of the bands, in their words.
_KAPPA_BANDS: Final = ((0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))

_KAPPA: Final = Kind(lambda value: isinstance(value, Real), "a number")


@accepts(value=_KAPPA.or_none)
def interpret_kappa(value: float | None) -> str:
    """The strength of agreement in the words of Landis & Koch (1977); "undefined" without a value."""
    if value is None or np.isnan(value):
        return "undefined"
    if value < 0:
        return "poor"
    return next((word for upper, word in _KAPPA_BANDS if value <= upper), "almost perfect")


def parse_scores(scores: npt.ArrayLike, what: str) -> Scores:
    """Verdicts as an array of 0 and 1.

    Args:
        scores: Shape (n,): 0 and 1, as numbers of any kind or as False and True.
        what: Whose they are, for the message.

    Raises:
        InputError: one is neither.
    """
    array = np.asarray(scores)
    if array.dtype == np.bool_:
        return array.astype(np.int8)
    try:
        is_score = array.view(np.uint8) <= 1 if array.dtype == np.int8 else (array == 0) | (array == 1)
        is_fine = array.ndim == 1 and bool(np.all(is_score))
    except (TypeError, ValueError):  # of pandas' NA nothing can be said
        is_fine = False
    if not is_fine:
        raise InputError(f"{what}: {show(scores)}; give a flat list or array of 0 and 1")
    return array.astype(np.int8)


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """Element-wise quotient, NaN where the denominator is not positive."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def kappa_from_rates(recall: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike) -> Floats:
    """Cohen's kappa that a judge of these rates has where people accept a share `prevalence`.

    Agreement po = πTPR + (1-π)TNR, judge's accept rate pj = πTPR + (1-π)(1-TNR), chance agreement
    pe = πpj + (1-π)(1-pj), kappa = (po - pe) / (1 - pe). NaN where chance agreement is 1 or a rate is NaN.
    """
    share = np.asarray(prevalence, dtype=np.float64)
    hits = share * np.asarray(recall, dtype=np.float64)
    correct_rejects = (1 - share) * np.asarray(specificity, dtype=np.float64)
    accept_rate = hits + (1 - share) - correct_rejects
    chance = share * accept_rate + (1 - share) * (1 - accept_rate)
    return ratio(hits + correct_rejects - chance, 1 - chance)


def point_metrics(cells: npt.ArrayLike) -> dict[str, Floats]:
    """Every figure that four cells define, vectorised.

    Formulas: Cohen (1960), Educ. Psychol. Meas. 20:37-46 for kappa; Gwet (2008), Br. J. Math. Stat. Psychol.
    61:29-48 for AC1, whose chance agreement is 2q(1-q) with q the mean of the two accept rates; Matthews (1975) for
    MCC.

    Args:
        cells: Shape (..., 4), in the order of `CELLS`; counts, weighted counts or shares.

    Returns:
        Arrays of shape (...), NaN where undefined. Kappa is undefined only where chance agreement is 1: a judge that
        always gives the same verdict has 0.
    """
    tp, tn, fp, fn = _columns(cells)
    n = tp + tn + fp + fn
    accuracy = ratio(tp + tn, n)
    prevalence, accept_rate = ratio(tp + fn, n), ratio(tp + fp, n)
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    mean_rate = (prevalence + accept_rate) / 2
    ac1_chance = 2 * mean_rate * (1 - mean_rate)
    margins = np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tp + fp) * np.sqrt(tn + fn)
    baseline = np.maximum(prevalence, 1 - prevalence)
    return {
        "accuracy": accuracy,
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1_score": ratio(2 * tp, 2 * tp + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "mcc": ratio(tp * tn - fp * fn, margins),
        "cohen_kappa": _kappa(tp, tn, fp, fn),
        "gwet_ac1": ratio(accuracy - ac1_chance, 1 - ac1_chance),
        "prevalence": prevalence,
        "accept_rate": accept_rate,
        "bias": accept_rate - prevalence,
        "majority_baseline": baseline,
        "lift": accuracy - baseline,
    }


def cohen_kappa(cells: npt.ArrayLike) -> Floats:
    """Cohen's kappa alone, as in `point_metrics`: shape (...) of cells of shape (..., 4)."""
    return _kappa(*_columns(cells))


def _columns(cells: npt.ArrayLike) -> Floats:
    """Shape (4, ...), each cell's values side by side in memory."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(cells, dtype=np.float64), -1, 0))


def _kappa(tp: Floats, tn: Floats, fp: Floats, fn: Floats) -> Floats:
    return ratio(2 * (tp * tn - fp * fn), (tp + fn) * (tn + fn) + (tp + fp) * (tn + fp))


def cell_codes(human: Scores, llm: Scores) -> npt.NDArray[np.int64]:
    """The index in `CELLS` of each record."""
    conditions = [(human == 1) & (llm == 1), (human == 0) & (llm == 0), human == 0]
    return np.asarray(np.select(conditions, [0, 1, 2], default=3), dtype=np.int64)


def sum_cells(keys: npt.NDArray[np.int64], weights: Floats, n_keys: int = len(CELLS)) -> Floats:
    """Sums of the weights by key, added up in a fixed order, so that the order of records changes no bit of them."""
    order = np.lexsort((weights, keys))
    return np.bincount(keys[order], weights=weights[order], minlength=n_keys).astype(np.float64)


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of the four outcomes; positive means accept. Figures are None where undefined, never 0.

    Where labels were sampled actively, the figures are those of the weighted counts, while counts stay counts.

    Attributes:
        true_positives: Judge and people accept.
        true_negatives: Judge and people reject.
        false_positives: Judge accepts, people reject.
        false_negatives: Judge rejects, people accept.
        weighted: The four by inclusion weight, in the order of `CELLS`; None where all records weigh the same.
    """

    true_positives: int
    true_negatives: int
    false_positives: int
    false_negatives: int
    weighted: tuple[float, ...] | None = None

    @classmethod
    def from_scores(cls, human: npt.ArrayLike, llm: npt.ArrayLike, weights: Floats | None = None) -> Self:
        """Count the cells of two arrays of 0 and 1, one entry per record in the same order.

        Args:
            human: People's verdicts.
            llm: The judge's.
            weights: As `inclusion_weights` gives them; None where all weigh the same.

        Raises:
            InputError: the arrays differ in length, or hold something else.
        """
        people, judge = parse_scores(human, "human scores"), parse_scores(llm, "judge scores")
        if people.size != judge.size:
            raise InputError(f"{people.size} human scores and {judge.size} judge scores; give one of each per record")
        tp = int(np.count_nonzero(people & judge))
        n_people, n_judge = int(np.count_nonzero(people)), int(np.count_nonzero(judge))
        weighted = None if weights is None else tuple(sum_cells(cell_codes(people, judge), weights).tolist())
        return cls(tp, people.size - n_people - n_judge + tp, n_judge - tp, n_people - tp, weighted)

    @property
    def cells(self) -> tuple[int, int, int, int]:
        """The counts in the order of `CELLS`."""
        return self.true_positives, self.true_negatives, self.false_positives, self.false_negatives

    @property
    def n(self) -> int:
        """All counted records."""
        return sum(self.cells)

    @property
    def figures(self) -> Mapping[str, float | None]:
        """Every figure by name, None where undefined."""
        return {name: to_optional(float(value)) for name, value in point_metrics(self.weighted or self.cells).items()}

    @property
    def accuracy(self) -> float | None:
        """Share of records on which judge and people agree."""
        return self.figures["accuracy"]

    @property
    def precision(self) -> float | None:
        """Share of the judge's accepts that people accept."""
        return self.figures["precision"]

    @property
    def recall(self) -> float | None:
        """Share of people's accepts that the judge accepts."""
        return self.figures["recall"]

    @property
    def specificity(self) -> float | None:
        """Share of people's rejects that the judge rejects."""
        return self.figures["specificity"]

    @property
    def f1_score(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return self.figures["f1_score"]

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of recall and specificity."""
        return self.figures["balanced_accuracy"]

    @property
    def mcc(self) -> float | None:
        """Matthews correlation; None where either side gives one verdict only."""
        return self.figures["mcc"]

    @property
    def cohen_kappa(self) -> float | None:
        """Cohen's kappa; None only where chance agreement is 1, 0 for a constant judge."""
        return self.figures["cohen_kappa"]

    @property
    def gwet_ac1(self) -> float | None:
        """Gwet's AC1."""
        return self.figures["gwet_ac1"]

    @property
    def prevalence(self) -> float | None:
        """Share of records that people accept."""
        return self.figures["prevalence"]

    @property
    def accept_rate(self) -> float | None:
        """Share of records that the judge accepts."""
        return self.figures["accept_rate"]

    @property
    def bias(self) -> float | None:
        """The judge's accept rate less people's: above 0 the judge is too lenient."""
        return self.figures["bias"]

    @property
    def majority_baseline(self) -> float | None:
        """Accuracy of always giving people's more frequent verdict."""
        return self.figures["majority_baseline"]

    @property
    def lift(self) -> float | None:
        """Accuracy above the majority baseline."""
        return self.figures["lift"]


def to_optional(value: float) -> float | None:
    """The value, or None for NaN."""
    return None if np.isnan(value) else value


@dataclass(frozen=True)
class Figure:
    """One figure with its interval; value and ends are None where undefined, and the reason says why."""

    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    reason: str | None = None
