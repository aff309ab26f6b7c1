"""The `alignment_metrics` stage: how well a version's verdicts agree with people's, and what that can prove."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.agreement import CELLS, ConfusionMatrix, Floats, point_metrics, to_optional
from caliber_pipeline.core.intervals import bootstrap_intervals, wilson_interval
from caliber_pipeline.core.schemas import conform_frame

SPLITS: Final = ("train", "dev", "test")
ALL: Final = "all"

# Outcome of a record: the index of its cell in CELLS, or one of these.
_UNJUDGED, _EXAMPLE, _N_OUTCOMES = 4, 5, 6
# By 2 * human_score + llm_score, with _UNJUDGED in the place of a missing llm_score.
_OUTCOME_BY_SCORES: Final = np.array([1, 2, 3, 0, 4, 4, 4], dtype=np.uint8)

# Cells of the numerator and of the denominator, by index in CELLS.
_PROPORTIONS: Final = {
    "accuracy": ((0, 1), (0, 1, 2, 3)),
    "precision": ((0,), (0, 2)),
    "recall": ((0,), (0, 3)),
    "specificity": ((1,), (1, 2)),
    "prevalence": ((0, 3), (0, 1, 2, 3)),
    "accept_rate": ((0, 2), (0, 1, 2, 3)),
}
_UNDEFINED: Final = {
    "precision": "the judge accepts none of the records",
    "recall": "people accept none of the records",
    "specificity": "people reject none of the records",
    "f1_score": "neither people nor the judge accept a record",
    "balanced_accuracy": "people give one verdict only",
    "mcc": "people or the judge give one verdict only",
    "cohen_kappa": "people and the judge give one and the same verdict throughout: chance agreement is 1",
}


@dataclass(frozen=True)
class _Sample:
    """What the figures of one split need.

    Attributes:
        counts: Records by outcome, shape (6,).
        vectors: Distinct cell vectors, shape (k, 4): of single records (the unit vectors) or of whole groups, weighted.
        multiplicities: How often each occurs.
        is_simple: Records are independent and weigh the same, so that counts are all there is to know.
    """

    counts: npt.NDArray[np.int64]
    vectors: Floats
    multiplicities: Floats
    is_simple: bool

    @property
    def cells(self) -> Floats:
        return self.multiplicities @ self.vectors


@dataclass(frozen=True)
class Figure:
    """One figure with its interval; value and ends are None where undefined, and the reason says why."""

    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    reason: str | None = None


def compute_alignment_metrics(
    scored: pd.DataFrame, *, seed: int = 0, slice_columns: Sequence[str] = ()
) -> pd.DataFrame:
    """All figures of one version, on train, dev, test and all.

    Args:
        scored: One row per annotated record: split, human_score (0 or 1), llm_score (null: no verdict), is_example
            (left out of all figures but counted) and, where there, group (records that belong together) and weight
            (1 / inclusion probability).
        seed: Of the bootstrap.
        slice_columns: Columns of `scored` by whose values the figures are given too.

    Returns:
        A frame of the `alignment_metrics` schema.
    """
    outcomes = _outcomes(scored)
    splits = _codes(scored["split"], SPLITS)
    rows = []
    for split in (*SPLITS, ALL):
        chosen = None if split == ALL else splits == SPLITS.index(split)
        sample = _sample(outcomes, chosen)
        rows += [
            {"split": split, "slice_column": None, "slice_value": None, **vars(figure)}
            for figure in _figures(sample, seed)
        ]
    return conform_frame(pd.DataFrame(rows), "alignment_metrics")


def metric_value(metrics: pd.DataFrame, split: str, metric: str) -> float | None:
    """One figure over a whole split, None where undefined.

    Raises:
        KeyError: the frame has no such figure.
    """
    rows = metrics[(metrics["split"] == split) & (metrics["metric"] == metric) & metrics["slice_column"].isna()]
    if len(rows) != 1:
        raise KeyError(f"{len(rows)} figures '{metric}' on '{split}'; the metrics are {sorted(set(metrics['metric']))}")
    value = rows["value"].iloc[0]
    return None if pd.isna(value) else float(value)


def confusion_matrix(metrics: pd.DataFrame, split: str) -> ConfusionMatrix:
    """The four cells of a split, as counted."""
    return ConfusionMatrix(*(int(metric_value(metrics, split, cell) or 0) for cell in CELLS))


def _array(column: pd.Series) -> pa.Array:
    array = pa.array(column, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _small_numbers(column: pd.Series, fill: int) -> npt.NDArray[np.uint8]:
    array = pc.fill_null(pc.cast(_array(column), pa.uint8()), fill)
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.uint8)


def _codes(column: pd.Series, values: Sequence[str]) -> npt.NDArray[np.int8]:
    encoded = _array(column)
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    unknown = sorted(set(names) - set(values))
    if unknown:
        raise ValueError(f"unknown values {unknown[:5]} in column '{column.name}'; expected {list(values)}")
    places = np.array([values.index(name) for name in names], dtype=np.int8)
    return places[encoded.indices.to_numpy(zero_copy_only=False)] if len(names) else np.empty(0, np.int8)


def _outcomes(scored: pd.DataFrame) -> npt.NDArray[np.uint8]:
    human = _small_numbers(scored["human_score"], 0)
    llm = _small_numbers(scored["llm_score"], _UNJUDGED)
    outcomes: npt.NDArray[np.uint8] = _OUTCOME_BY_SCORES[2 * human + llm]
    outcomes[np.asarray(scored["is_example"], dtype=np.bool_)] = _EXAMPLE
    return outcomes


def _sample(outcomes: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_] | None) -> _Sample:
    counts = np.bincount(outcomes if chosen is None else outcomes[chosen], minlength=_N_OUTCOMES)
    return _Sample(counts, np.eye(4), counts[:4].astype(np.float64), is_simple=True)


def _figures(sample: _Sample, seed: int) -> Iterator[Figure]:
    counts, cells = sample.counts, sample.cells
    n_judged, n_failed, n_examples = int(counts[:4].sum()), int(counts[_UNJUDGED]), int(counts[_EXAMPLE])
    occupied = sample.multiplicities > 0
    intervals = (
        bootstrap_intervals(sample.vectors[occupied], sample.multiplicities[occupied], seed=seed) if n_judged else {}
    )
    for name, array in point_metrics(cells).items():
        value, n, (low, high) = to_optional(float(array)), n_judged, intervals.get(name, (np.nan, np.nan))
        if name in _PROPORTIONS:
            hits, total = _PROPORTIONS[name]
            n = int(counts[list(total)].sum())
            if sample.is_simple:
                low, high = map(float, wilson_interval(cells[list(hits)].sum(), cells[list(total)].sum()))
        if value is None:
            reason = _UNDEFINED.get(name) if n_judged else "no record is both annotated and judged"
            yield Figure(name, None, None, None, n, reason)
        else:
            yield Figure(name, value, to_optional(low), to_optional(high), n)
    yield _coverage(n_judged, n_judged + n_failed)
    for name, count in zip(CELLS, counts[:4].tolist(), strict=True):
        yield Figure(name, count, None, None, n_judged)
    yield Figure("n_failed", n_failed, None, None, n_judged + n_failed)
    yield Figure("n_examples", n_examples, None, None, n_judged + n_failed + n_examples)


def _coverage(n_judged: int, n_annotated: int) -> Figure:
    if not n_annotated:
        return Figure("coverage", None, None, None, 0, "no record is annotated")
    low, high = wilson_interval(n_judged, n_annotated)
    return Figure("coverage", n_judged / n_annotated, float(low), float(high), n_annotated)


def seal_test(metrics: pd.DataFrame) -> pd.DataFrame:
    """The metrics with those on test withheld, for a version that has not earned a look at them."""
    sealed = metrics.copy()
    is_test = (sealed["split"] == "test").to_numpy(dtype=bool)
    sealed.loc[is_test, ["value", "ci_low", "ci_high"]] = None
    sealed.loc[is_test, "reason"] = "sealed: test is reported for versions that people wrote or that were promoted"
    return sealed
