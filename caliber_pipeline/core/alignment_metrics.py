"""The `alignment_metrics` stage: how well a version's verdicts agree with people's, and what that can prove."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.agreement import (
    CELLS,
    ConfusionMatrix,
    Figure,
    Floats,
    interpret_kappa,
    kappa_from_rates,
    parse_scores,
    point_metrics,
    to_optional,
)
from caliber_pipeline.core.arguments import ITEMS, accepts, table_with
from caliber_pipeline.core.conforming import conform_frame, one_array
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.intervals import (
    PROPORTIONS,
    STANDARD_PREVALENCE,
    CellSample,
    few_groups,
    metric_intervals,
    proportion_interval,
)
from caliber_pipeline.core.means import mean_interval
from caliber_pipeline.core.planning import (
    DECISIVE_HALF_WIDTH,
    labels_for_half_width,
    missing_labels,
    plausible_shares,
)
from caliber_pipeline.core.splits import ALL, CALIBRATION, SPLITS

_PARTS: Final = (*SPLITS, CALIBRATION)

MIN_SLICE_SIZE: Final = 30  # below it the interval of a share near one half is wider than 0.34
MAX_SLICES: Final = 100  # more values make no slices but an identifier
NO_VALUE: Final = "(none)"

# Outcome of a record: the index of its cell in CELLS, or one of these.
_UNJUDGED, _EXAMPLE, _N_OUTCOMES = 4, 5, 6
# By 2 * human_score + llm_score, with _UNJUDGED in the place of a missing llm_score.
_OUTCOME_BY_SCORES: Final = np.array([1, 2, 3, 0, 4, 4, 4], dtype=np.uint8)

SEALED: Final = "sealed: test is judged for the first version and for promoted ones alone"
_UNDEFINED: Final = {
    "precision": "the judge accepts none of the records",
    "recall": "people accept none of the records",
    "specificity": "people reject none of the records",
    "f1_score": "neither people nor the judge accept a record",
    "balanced_accuracy": "people give one verdict only",
    "mcc": "people or the judge give one verdict only",
    "cohen_kappa": "people and the judge give one and the same verdict throughout: chance agreement is 1",
    "standardised_kappa": "people give one verdict only",
}
_NOTHING: Final = "no record is both annotated and judged"


METRICS: Final = table_with("split", "metric", "value")


@dataclass(frozen=True)
class _Columns:
    outcomes: npt.NDArray[np.uint8]
    splits: npt.NDArray[np.int8]
    groups: npt.NDArray[np.int32] | None
    weights: Floats | None
    vote_shares: Floats | None

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Records by part and outcome, shape (4, 6)."""
        keys = self.splits.astype(np.uint8) * np.uint8(_N_OUTCOMES) + self.outcomes
        return np.bincount(keys, minlength=len(_PARTS) * _N_OUTCOMES).reshape(len(_PARTS), _N_OUTCOMES)

    @property
    def has_only_counts(self) -> bool:
        return self.groups is None and self.weights is None and self.vote_shares is None

    def in_split(self, split: str) -> "_Columns":
        """The rows of a split; all rows where the counts are all that is asked of them."""
        if split == ALL or self.has_only_counts:
            return self
        return self.where(self.splits == _PARTS.index(split))

    def where(self, chosen: npt.NDArray[np.bool_]) -> "_Columns":
        return _Columns(
            self.outcomes[chosen],
            self.splits[chosen],
            None if self.groups is None else self.groups[chosen],
            None if self.weights is None else self.weights[chosen],
            None if self.vote_shares is None else self.vote_shares[chosen],
        )


@accepts(scored=table_with("split", "human_score", "llm_score", "is_example"), slice_columns=ITEMS)
def compute_alignment_metrics(
    scored: pd.DataFrame, *, seed: int = 0, slice_columns: Sequence[str] = ()
) -> pd.DataFrame:
    """All figures of one version, on train, dev, test and all.

    Args:
        scored: One row per annotated record: split (calibration is counted, and in the figures of `all` alone),
            human_score (0 or 1), llm_score (null: no verdict), is_example (left out of all figures but counted) and,
            where there, group (records that belong together), weight (1 / inclusion probability; null counts as 1) and
            vote_share.
        seed: Of the bootstrap.
        slice_columns: Columns of `scored` by whose values the figures are given too.

    Returns:
        A frame of the `alignment_metrics` schema.

    Raises:
        InputError: a slice column is missing or has more than 100 values.
    """
    columns = _columns(scored)
    parts = [(None, None, columns), *_slices(scored, columns, slice_columns)]
    rows = []
    for column, value, part in parts:
        table = part.counts
        for split, counts in zip((*SPLITS, ALL), (*table[: len(SPLITS)], table.sum(axis=0)), strict=True):
            place = {"split": split, "slice_column": column, "slice_value": value}
            rows += [place | vars(figure) for figure in _figures(part.in_split(split), counts, seed, column)]
            n_set_aside = int(table[_PARTS.index(CALIBRATION)].sum()) if split in {"test", ALL} else 0
            rows.append(place | vars(Figure("n_calibration", n_set_aside, None, None, n_set_aside)))
    return conform_frame(pd.DataFrame(rows), "alignment_metrics")


def measure_agreement(
    human: npt.ArrayLike,
    llm: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """All figures of a judge against people with 95 % intervals, from the verdicts alone.

    Args:
        human: Shape (n,): people's verdicts, 0 and 1.
        llm: Shape (n,): the judge's on the same records; NaN where there is none.
        groups: Shape (n,): of the records, where some belong together: whole groups are drawn.
        weights: Shape (n,): 1 / inclusion probability, where labels were sampled actively.
        seed: Of the bootstrap.

    Returns:
        By metric: value, ci_low, ci_high, n and reason (null, or why the figure is undefined or not to be trusted).

    Raises:
        InputError: the arrays differ in length, or hold something else.
    """
    people, verdicts = parse_scores(human, "human scores"), np.asarray(llm)
    is_missing = np.asarray(pd.isna(verdicts), dtype=np.bool_)
    judge = parse_scores(np.where(is_missing, 0, verdicts) if is_missing.any() else verdicts, "judge scores")
    given = None if weights is None else np.asarray(weights, dtype=np.float64)
    keys = None if groups is None else pd.factorize(np.asarray(groups))[0].astype(np.int32)
    sizes = [array.size for array in (people, judge, keys, given) if array is not None]
    if len(set(sizes)) > 1:
        raise InputError(f"the arrays have {sizes} entries; give one of each per record")
    if given is not None and not (np.isfinite(given).all() and (given > 0).all()):
        raise InputError("a weight is not above 0; give 1 / inclusion probability for every record")
    outcomes = _OUTCOME_BY_SCORES[2 * people.view(np.uint8) + np.where(is_missing, _UNJUDGED, judge.view(np.uint8))]
    is_equal = given is None or bool((given == given[:1]).all())
    columns = _Columns(outcomes, np.zeros(people.size, np.int8), keys, None if is_equal else given, None)
    figures = pd.DataFrame(map(vars, _figures(columns, columns.counts.sum(axis=0), seed, None))).set_index("metric")
    return figures.drop(index=["repeat_stability", "n_examples"])


def cell_sample(scored: pd.DataFrame, split: str) -> CellSample:
    """The judged records of a split as independent units, as the intervals take them; arguments as above."""
    columns = _columns(scored)
    chosen = columns.where(columns.splits == SPLITS.index(split))
    return _cell_sample(chosen, np.bincount(chosen.outcomes, minlength=_N_OUTCOMES))


def metric_value(metrics: pd.DataFrame, split: str, metric: str) -> float | None:
    """One figure over a whole split, None where undefined.

    Raises:
        KeyError: the frame has no such figure.
    """
    value = metric_row(metrics, split, metric)["value"]
    return None if pd.isna(value) else float(value)


@accepts(metrics=METRICS)
def metric_row(metrics: pd.DataFrame, split: str, metric: str) -> pd.Series:
    """The row of one figure over a whole split.

    Raises:
        KeyError: the frame has no such figure.
    """
    rows = metrics[(metrics["split"] == split) & (metrics["metric"] == metric) & metrics["slice_column"].isna()]
    if len(rows) != 1:
        raise KeyError(f"{len(rows)} figures '{metric}' on '{split}'; the metrics are {sorted(set(metrics['metric']))}")
    return rows.iloc[0]


def confusion_matrix(metrics: pd.DataFrame, split: str) -> ConfusionMatrix:
    """The four cells of a split, as counted; what figures they give by weight is told by the other metrics."""
    tp, tn, fp, fn = (int(metric_value(metrics, split, cell) or 0) for cell in CELLS)
    return ConfusionMatrix(tp, tn, fp, fn)


@accepts(metrics=METRICS)
def label_verdict(metrics: pd.DataFrame, split: str) -> str:
    """What the labels of a split can say about the version, in a sentence."""
    missing = metric_row(metrics, split, "labels_missing")
    if missing["value"] > 0:
        return str(missing["reason"])
    kappa = metric_row(metrics, split, "cohen_kappa")
    low, high = (interpret_kappa(float(kappa[end])) for end in ("ci_low", "ci_high"))
    words = low if low == high else f"{low} to {high}"
    return (
        f"{words} agreement: kappa {kappa['value']:.2f} ({kappa['ci_low']:.2f} to {kappa['ci_high']:.2f}) "
        f"on {kappa['n']} labels"
    )


def _small_numbers(column: pd.Series, fill: int) -> npt.NDArray[np.uint8]:
    array = pc.fill_null(pc.cast(one_array(pa.array(column, from_pandas=True)), pa.uint8()), fill)
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.uint8)


def _encode(column: pd.Series) -> tuple[npt.NDArray[np.int32], list[str | None]]:
    encoded = one_array(pa.array(column, from_pandas=True))
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode("encode")
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _codes(column: pd.Series, values: Sequence[str]) -> npt.NDArray[np.int8]:
    indices, names = _encode(column)
    unknown = sorted(str(name) for name in set(names) - set(values))
    if unknown:
        raise ValueError(f"unknown values {unknown[:5]} in column '{column.name}'; expected {list(values)}")
    places = np.array([values.index(str(name)) for name in names] or [0], dtype=np.int8)
    return np.asarray(places[indices] if len(indices) else np.empty(0), dtype=np.int8)


def _columns(scored: pd.DataFrame) -> _Columns:
    human = _small_numbers(scored["human_score"], 0)
    llm = _small_numbers(scored["llm_score"], _UNJUDGED)
    outcomes: npt.NDArray[np.uint8] = _OUTCOME_BY_SCORES[2 * human + llm]
    outcomes[np.asarray(scored["is_example"], dtype=np.bool_)] = _EXAMPLE
    groups = _encode(scored["group"])[0] if "group" in scored else None
    weights = _floats(scored, "weight", 1.0)
    return _Columns(
        outcomes,
        _codes(scored["split"], _PARTS),
        groups,
        None if weights is None or (weights == weights[:1]).all() else weights,
        _floats(scored, "vote_share", np.nan),
    )


def _floats(scored: pd.DataFrame, name: str, fill: float) -> Floats | None:
    if name not in scored or scored[name].isna().all():
        return None
    return np.asarray(scored[name].to_numpy(dtype=np.float64, na_value=fill), dtype=np.float64)


def _slices(
    scored: pd.DataFrame, columns: _Columns, slice_columns: Sequence[str]
) -> Iterator[tuple[str, str, _Columns]]:
    for name in slice_columns:
        if name not in scored:
            raise InputError(f"slice column '{name}' is missing; the columns are {sorted(map(str, scored.columns))}")
        texts = scored[name].astype("string[pyarrow]").fillna(NO_VALUE)
        indices, values = _encode(texts)
        if len(values) > MAX_SLICES:
            raise InputError(f"slice column '{name}' has {len(values)} values; name one with at most {MAX_SLICES}")
        for i, value in sorted(enumerate(map(str, values)), key=lambda pair: pair[1]):
            yield name, value, columns.where(indices == i)


def _cell_sample(columns: _Columns, counts: npt.NDArray[np.int64]) -> CellSample:
    if columns.groups is None and columns.weights is None:
        return CellSample.from_counts(counts[:4])
    judged = columns.where(columns.outcomes < _UNJUDGED)
    weights = judged.weights
    if weights is not None:  # 1 on average, so that sums of weights are numbers of records
        weights = weights / np.sort(weights).mean()
    cells = judged.outcomes.astype(np.int64)
    if judged.groups is not None:
        _, places, sizes = np.unique(judged.groups, return_inverse=True, return_counts=True)
        if sizes.max(initial=0) > 1:
            keys = 4 * places + cells
            # Sums of weights in a fixed order, so that the order of rows cannot change a bit of them.
            order = slice(None) if weights is None else np.lexsort((weights, keys))
            ordered = None if weights is None else weights[order]
            totals = np.bincount(keys[order], weights=ordered, minlength=4 * len(sizes))
            return CellSample.from_units(totals.reshape(-1, 4).astype(np.float64))
    if weights is None:
        return CellSample.from_counts(counts[:4])
    return CellSample.from_units(np.eye(4)[cells] * weights[:, None])


def _figures(columns: _Columns, counts: npt.NDArray[np.int64], seed: int, slice_column: str | None) -> Iterator[Figure]:
    n_judged, n_failed, n_examples = int(counts[:4].sum()), int(counts[_UNJUDGED]), int(counts[_EXAMPLE])
    caution = None
    if slice_column is not None and n_judged < MIN_SLICE_SIZE:
        caution = f"a small slice of {n_judged} records: it describes, and decides nothing"
    if n_judged:
        yield from _agreement(_cell_sample(columns, counts), counts, seed, caution)
    else:
        for name in (*point_metrics(np.zeros(4)), "standardised_kappa"):
            yield Figure(name, None, None, None, 0, _NOTHING)
        needed = labels_for_half_width(np.full(4, 0.25), DECISIVE_HALF_WIDTH)
        yield Figure("labels_missing", needed, None, None, 0, _missing_in_words(needed))
    yield _repeat_stability(columns)
    yield _coverage(columns, n_judged, n_judged + n_failed)
    for name, count in zip(CELLS, counts[:4].tolist(), strict=True):
        yield Figure(name, count, None, None, n_judged)
    yield Figure("n_failed", n_failed, None, None, n_judged + n_failed)
    yield Figure("n_examples", n_examples, None, None, n_judged + n_failed + n_examples)


def _agreement(sample: CellSample, counts: npt.NDArray[np.int64], seed: int, caution: str | None) -> Iterator[Figure]:
    n = int(counts[:4].sum())
    if not sample.is_simple:
        caution = caution or few_groups(sample.n_units)
    values = point_metrics(sample.cells)
    values["standardised_kappa"] = kappa_from_rates(values["recall"], values["specificity"], STANDARD_PREVALENCE)
    intervals = metric_intervals(sample, seed=seed)
    for name, array in values.items():
        value, (low, high) = to_optional(float(array)), intervals[name]
        n_used = int(counts[list(PROPORTIONS[name][1])].sum()) if name in PROPORTIONS else n
        if value is None:
            yield Figure(name, None, None, None, n_used, _UNDEFINED[name])
        else:
            yield Figure(name, value, to_optional(low), to_optional(high), n_used, caution)
    low, high = intervals["cohen_kappa"]
    if np.isnan(low):
        shares = plausible_shares(counts[:4])
        needed = labels_for_half_width(shares, DECISIVE_HALF_WIDTH, design_effect=sample.planned_effect)
        missing = max(1, needed - n)
    else:
        missing = missing_labels((high - low) / 2, n)
    yield Figure("labels_missing", missing, None, None, n, _missing_in_words(missing) if missing else None)


def _missing_in_words(missing: int) -> str:
    return (
        f"not enough labels to say: about {missing} more are needed for an interval of kappa of ±{DECISIVE_HALF_WIDTH}"
    )


def _repeat_stability(columns: _Columns) -> Figure:
    nothing = Figure("repeat_stability", None, None, None, 0, "no verdict was voted upon")
    if columns.vote_shares is None:
        return nothing
    voted = columns.where((columns.outcomes < _UNJUDGED) & ~np.isnan(columns.vote_shares))
    if voted.vote_shares is None or not voted.vote_shares.size:
        return nothing
    weights = np.ones(voted.vote_shares.size) if voted.weights is None else voted.weights
    order = np.lexsort((weights, voted.vote_shares))
    value = float(np.average(voted.vote_shares[order], weights=weights[order]))
    low, high = mean_interval(voted.vote_shares, voted.groups, voted.weights)
    return Figure("repeat_stability", value, low, high, voted.vote_shares.size)


def _coverage(columns: _Columns, n_judged: int, n_annotated: int) -> Figure:
    """The share of judged records; over groups the mean of their shares, each as heavy as it has records."""
    if not n_annotated:
        return Figure("coverage", None, None, None, 0, "no record is annotated")
    low, high = map(float, proportion_interval(n_judged, n_annotated))
    if columns.groups is not None:
        keys, outcomes = columns.groups + 1, columns.outcomes  # -1 is a group, too
        sizes = np.bincount(keys[outcomes <= _UNJUDGED])
        if sizes.max() > 1:
            judged = np.bincount(keys[outcomes < _UNJUDGED], minlength=sizes.size)
            is_there = sizes > 0
            low, high = mean_interval(judged[is_there] / sizes[is_there], weights=sizes[is_there].astype(np.float64))
    return Figure("coverage", n_judged / n_annotated, low, high, n_annotated)


def seal_test(metrics: pd.DataFrame) -> pd.DataFrame:
    """The metrics of a version that was not judged on test: those on test null, with the reason."""
    sealed = metrics.copy()
    is_test = (sealed["split"] == "test").to_numpy(dtype=bool)
    sealed.loc[is_test, ["value", "ci_low", "ci_high"]] = None
    sealed.loc[is_test, "reason"] = SEALED
    return sealed


def is_test_sealed(metrics: pd.DataFrame) -> bool:
    """Whether a version was not judged on test."""
    return metric_value(metrics, "test", "n_failed") is None
