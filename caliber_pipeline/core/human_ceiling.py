"""How far people agree with each other, and the judge with them on the same records: the ceiling, with intervals."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.agreement import Figure, Floats, cohen_kappa
from caliber_pipeline.core.annotations import complete_annotations, latest_verdicts
from caliber_pipeline.core.annotators import (
    Ratings,
    alpha_from_sums,
    alpha_sums,
    build_ratings,
    code_groups,
    majority_labels,
    run_alt_test,
)
from caliber_pipeline.core.arguments import accepts, table_with
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.intervals import (
    N_DRAWS,
    PRIORS,
    CellSample,
    degrees_of_freedom,
    draw_sums,
    expanded_tail,
    few_groups,
    merge_rows,
    percentiles,
)
from caliber_pipeline.core.splits import ALL, SPLITS
from caliber_pipeline.core.weights import WEIGHT, inclusion_weights

KAPPAS: Final = (
    "human_human_kappa",
    "judge_annotator_kappa",
    "judge_consensus_kappa",
    "judge_consensus_kappa_with_ties",
)
PEOPLE_METRICS: Final = ("krippendorff_alpha", *KAPPAS)
ALT_TEST_METRICS: Final = ("alt_test_winning_rate", "alt_test_advantage")
_SINGLE: Final = "no record has verdicts of two annotators"

# A unit is a vector of sums: what alpha needs, then the four cells of each kappa. One record of each cell as two people
# would give it, for the prior: in all four kappas alike.
_N_ALPHA: Final = 3
_PRIOR_RECORDS: Final = np.hstack([alpha_sums([2, 0, 1, 1], [2, 2, 2, 2]), *[np.eye(4)] * len(KAPPAS)])


@accepts(
    annotations=table_with("record_id", "annotator", "score"),
    verdicts=table_with("record_id", "llm_score", "is_example", "split"),
)
def compute_people_metrics(annotations: pd.DataFrame, verdicts: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How far people agree, and the judge with single people and with their consensus, on records that two judged.

    Args:
        annotations: All annotations, gold among them or not, as `build_ratings` takes them; weighted by
            inclusion_probability, where they have one.
        verdicts: record_id, llm_score, is_example and split of the judged records, ties among them; group, where
            records belong together.
        seed: Of the bootstrap.

    Returns:
        A frame of the `alignment_metrics` schema, on train, dev, test and all.
    """
    judged = verdicts[~verdicts["is_example"].astype(bool)]
    given = complete_annotations(annotations)
    people = given[~given["is_gold"].astype(bool)]
    n_raters = people.drop_duplicates(["record_id", "annotator"])["record_id"].value_counts()
    shared = n_raters.index[n_raters >= 2]
    ratings = build_ratings(people[people["record_id"].isin(shared) & people["record_id"].isin(judged["record_id"])])
    known = judged.set_index("record_id").reindex(ratings.record_ids)
    if "group" in known:
        ratings = replace(ratings, groups=code_groups(known["group"]))
    llm = known["llm_score"].to_numpy(dtype=np.float64, na_value=np.nan)
    splits = known["split"].to_numpy(dtype=object)
    weights = _weights_of(given, ratings.record_ids)
    rows = []
    for split in (*SPLITS, ALL):
        chosen = np.ones(len(splits), dtype=np.bool_) if split == ALL else splits == split
        place = {"split": split, "slice_column": None, "slice_value": None}
        figures = people_figures(
            ratings.at(chosen),
            llm[chosen],
            weights=None if weights is None else weights[chosen],
            seed=seed,
        )
        rows += [place | vars(figure) for figure in figures]
    return conform_frame(pd.DataFrame(rows), "alignment_metrics")


def _weights_of(annotations: pd.DataFrame, record_ids: npt.NDArray[np.object_]) -> Floats | None:
    """1 / the inclusion probability that the records' labels have; None where all weigh the same."""
    if "inclusion_probability" not in annotations:
        return None
    smallest = latest_verdicts(annotations).groupby("record_id")["inclusion_probability"].min()
    return inclusion_weights(pd.DataFrame({WEIGHT: 1 / smallest.reindex(record_ids)}))


def people_figures(ratings: Ratings, llm: Floats, *, weights: Floats | None = None, seed: int = 0) -> list[Figure]:
    """The figures of `ceiling_figures`, and of the alternative annotator test on the same records; see there."""
    counted = _is_counted(ratings, llm)
    return [
        *ceiling_figures(ratings, llm, weights=weights, seed=seed),
        *_alt_test(ratings.at(counted), llm[counted]),
    ]


def ceiling_figures(
    ratings: Ratings,
    llm: Floats,
    *,
    weights: Floats | None = None,
    seed: int = 0,
    n_draws: int = N_DRAWS,
) -> list[Figure]:
    """How far people agree, and the judge with single people, on the same records: those that two judged at least.

    `human_human_kappa` is the ceiling that `judge_annotator_kappa` is to be held against, both over the two annotators
    who judged a record first: every record counts once. The judge against the consensus of all may exceed the ceiling,
    as a consensus is less noisy than one person; leaving out ties (`judge_consensus_kappa`) makes it larger still than
    counting each tie half as accept and half as reject (`judge_consensus_kappa_with_ties`). Intervals are read from the
    draws of `draw_sums`, smoothed, as in `intervals.metric_intervals`.

    Args:
        ratings: The annotators' verdicts; whole groups are drawn, where records have them.
        llm: Shape (n,): the judge's verdicts on the same records, NaN where there is none.
        weights: Shape (n,): 1 / inclusion probability, where labels were sampled actively.
        seed: Of the bootstrap over records.
        n_draws: Of the bootstrap.
    """
    counted = _is_counted(ratings, llm)
    shared, judge, n = ratings.at(counted), llm[counted], int(counted.sum())
    if n == 0:
        return [Figure(name, None, None, None, 0, _SINGLE) for name in PEOPLE_METRICS]
    units, multiplicities = _units(shared, judge, None if weights is None else weights[counted])
    is_simple = multiplicities.sum() == n and weights is None
    values, ends = _intervals(units, multiplicities, is_simple, np.random.default_rng(seed), n_draws)
    caution = None if is_simple else few_groups(multiplicities.sum())
    n_untied = int((2 * shared.n_accepts != shared.n_raters).sum())
    figures = []
    for name in PEOPLE_METRICS:
        value, n_used = float(values[name]), n_untied if name == "judge_consensus_kappa" else n
        if np.isnan(value):
            figures.append(Figure(name, None, None, None, n_used, "one and the same verdict throughout"))
        else:
            low, high = ends[name]
            figures.append(Figure(name, value, min(low, value), max(high, value), n_used, caution))
    return figures


def alpha_with_interval(ratings: Ratings, *, seed: int = 0) -> Figure:
    """Krippendorff's alpha among all annotators, over all records that two judged at least; by groups, where given."""
    any_judge = np.zeros(len(ratings.record_ids))  # none is asked how far people agree
    return ceiling_figures(ratings, any_judge, seed=seed)[0]


def _is_counted(ratings: Ratings, llm: Floats) -> npt.NDArray[np.bool_]:
    return (ratings.n_raters >= 2) & ~np.isnan(llm)


def _alt_test(shared: Ratings, judge: Floats) -> list[Figure]:
    n = len(judge)
    if n == 0:
        return [Figure(name, None, None, None, 0, _SINGLE) for name in ALT_TEST_METRICS]
    test = run_alt_test(shared, judge)
    values = (test.winning_rate, test.advantage)
    return [Figure(name, v, None, None, n, test.reason) for name, v in zip(ALT_TEST_METRICS, values, strict=True)]


def _units(shared: Ratings, judge: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """The distinct units, and how many of each there are."""
    codes = shared.groups
    if codes is None and weights is None:
        verdicts = np.column_stack([_first_two(shared), judge]).astype(np.int64) @ [4, 2, 1]
        most = int(shared.n_raters.max()) + 1
        kinds = (shared.n_accepts * most + shared.n_raters) * 8 + verdicts
        _, places, counts = np.unique(kinds, return_index=True, return_counts=True)
        return _vectors(shared.at(places), judge[places]), counts.astype(np.float64)
    rows = _vectors(shared, judge)
    if weights is not None:
        rows *= (weights / np.sort(weights).mean())[:, None]
    if codes is not None:
        sums = np.zeros((int(codes.max()) + 1, rows.shape[1]))
        np.add.at(sums, codes, rows)
        rows = sums
    distinct, counts = merge_rows(rows)
    return distinct, counts.astype(np.float64)


def _first_two(shared: Ratings) -> Floats:
    return shared.first_two[~np.isnan(shared.first_two)].reshape(-1, 2)


def _vectors(shared: Ratings, judge: Floats) -> Floats:
    """Shape (n, 3 + 16): what each record adds to the sums."""
    is_tied = 2 * shared.n_accepts == shared.n_raters
    pairs, half = _first_two(shared), np.where(is_tied, 0.5, majority_labels(shared))
    return np.hstack(
        [
            alpha_sums(shared.n_accepts, shared.n_raters),
            _judge_cells(pairs[:, 0], pairs[:, 1]),
            _judge_cells(pairs.mean(axis=1), judge),
            _judge_cells(half, judge) * ~is_tied[:, None],
            _judge_cells(half, judge),
        ]
    )


def _judge_cells(human: Floats, judge: Floats) -> Floats:
    """Shape (n, 4): cells of each record, where `human` is the share of people who accept."""
    columns = [human * judge, (1 - human) * (1 - judge), (1 - human) * judge, human * (1 - judge)]
    return np.stack(columns, axis=-1)


def _figures(sums: Floats) -> dict[str, Floats]:
    cells = sums[..., _N_ALPHA:].reshape(*sums.shape[:-1], len(KAPPAS), 4)
    kappas = np.moveaxis(cohen_kappa(cells), -1, 0)
    return {"krippendorff_alpha": alpha_from_sums(sums[..., :_N_ALPHA]), **dict(zip(KAPPAS, kappas, strict=True))}


def _intervals(
    units: Floats, multiplicities: Floats, is_simple: bool, rng: np.random.Generator, n_draws: int
) -> tuple[dict[str, Floats], dict[str, tuple[float, float]]]:
    """Every figure and its interval; both may be NaN."""
    blocks = [units[:, start : start + 4] for start in range(_N_ALPHA, units.shape[1], 4)]
    samples = [CellSample(block, multiplicities, is_simple=is_simple) for block in blocks]
    samples = [samples[0] if sample.cells.sum() == 0 else sample for sample in samples]  # ties throughout
    effects = np.array([sample.design_effect for sample in samples])
    prior = _PRIOR_RECORDS * np.concatenate([np.repeat(effects[0], _N_ALPHA), np.repeat(effects, 4)])
    sums = draw_sums(units, multiplicities, rng=rng, n_draws=n_draws)
    draws = _figures(sums + rng.gamma(PRIORS[:, None], size=(2, n_draws, 4)) @ prior)
    smoothed = multiplicities @ units + PRIORS[0] @ prior
    freedoms = {} if is_simple else degrees_of_freedom(units, multiplicities, smoothed, _figures)
    ends = {}
    for name, sample in zip(PEOPLE_METRICS, (samples[0], *samples), strict=True):
        n_units = min(sample.n_effective_units, freedoms.get(name, np.inf) + 1)
        ends[name] = percentiles(draws[name], expanded_tail(n_units))
    return _figures(multiplicities @ units), ends
