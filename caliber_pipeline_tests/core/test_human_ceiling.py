from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from caliber_pipeline.core.agreement import Figure, Floats
from caliber_pipeline.core.annotators import Ratings, pairwise_agreement
from caliber_pipeline.core.human_ceiling import ceiling_figures, people_figures
from caliber_pipeline_tests.core.rating_tables import ratings_of
from caliber_pipeline_tests.core.simulated_intervals import COVERED, MARGIN, N_SAMPLES

DATASETS = Path(__file__).parents[3] / "shared" / "datasets"
NAN = np.nan


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.metric: figure for figure in figures}


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared data sets are not beside the checkout")
def test_the_ceiling_on_the_shared_data_set() -> None:
    data = pd.read_csv(DATASETS / "openqa_eval_sample.csv")
    llm = data["llm_score"].to_numpy(dtype=np.float64)
    ratings = ratings_of(data[["rater1_score", "rater2_score"]])

    ceiling = by_name(people_figures(ratings, llm))["human_human_kappa"]

    # From the data sets' README: kappa 0.7323 on 300 records.
    assert ceiling.value == pytest.approx(0.7323, abs=5e-5)
    assert ceiling.n == 300
    assert ceiling.ci_low == pytest.approx(pairwise_agreement(ratings).iloc[0]["ci_low"], abs=0.01)
    # The third rater was asked where two differed, and must not lift the ceiling.
    three = ratings_of(data[["rater1_score", "rater2_score", "rater3_score"]])
    assert by_name(people_figures(three, llm))["human_human_kappa"].value == ceiling.value


def people(n: int, seed: int, accuracy: float = 0.85) -> tuple[Ratings, Floats]:
    """Two annotators and a judge who are right as often."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.6
    first, second, judge = (np.where(rng.random(n) < accuracy, truth, ~truth).astype(np.float64) for _ in range(3))
    return ratings_of(np.column_stack([first, second])), judge


def test_copies_of_records_in_groups_add_nothing_to_what_is_known_of_the_ceiling() -> None:
    ratings, judge = people(100, 0)
    copied = ratings_of(np.tile(ratings.scores, (5, 1)), np.tile(np.arange(100), 5))

    single = by_name(people_figures(ratings, judge))
    grouped = by_name(people_figures(copied, np.tile(judge, 5)))

    for name in ("krippendorff_alpha", "human_human_kappa", "judge_annotator_kappa", "judge_consensus_kappa"):
        one, many = single[name], grouped[name]
        assert many.value == pytest.approx(one.value, abs=5e-3)  # alpha has a small-sample term
        assert many.ci_high - many.ci_low == pytest.approx(one.ci_high - one.ci_low, rel=0.06)  # type: ignore[operator]
        assert (many.n, many.reason) == (one.n * 5, None)


def test_groups_of_one_record_change_nothing() -> None:
    ratings, judge = people(100, 0)

    own = ratings_of(ratings.scores, np.arange(100).astype(str))
    assert people_figures(own, judge) == people_figures(ratings, judge)


def test_few_groups_are_marked() -> None:
    ratings, judge = people(100, 0)

    figures = by_name(people_figures(ratings_of(ratings.scores, np.arange(100) // 10), judge))

    assert figures["human_human_kappa"].reason == "only 10 groups: the interval may be too narrow"


def test_weights_undo_active_sampling_of_the_ceiling() -> None:
    # People differ on half of the hard records and on none of the easy ones; of the easy ones one in four is labelled.
    hard, easy = [[1, 1], [0, 0], [1, 0], [0, 1]] * 10, [[1, 1], [0, 0]] * 10
    ratings = ratings_of(hard + easy)
    weights = np.repeat([1.0, 4.0], [40, 20])

    figures = by_name(people_figures(ratings, np.ones(60), weights=weights))

    # Of 120 records they differ on 20; each accepts half: kappa = 1 - (20 / 120) / 0.5
    assert figures["human_human_kappa"].value == pytest.approx(2 / 3)
    assert by_name(people_figures(ratings, np.ones(60)))["human_human_kappa"].value == pytest.approx(1 / 3)
    assert by_name(people_figures(ratings, np.ones(60), weights=np.full(60, 7.0)))[
        "human_human_kappa"
    ].value == pytest.approx(1 / 3)


def test_a_judge_as_good_as_a_person_meets_the_ceiling() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(4000) < 0.5
    noisy = [np.where(rng.random(4000) < 0.9, truth, ~truth).astype(float) for _ in range(4)]

    figures = by_name(people_figures(ratings_of(np.column_stack(noisy[:3])), noisy[3]))

    ceiling, judge = figures["human_human_kappa"].value, figures["judge_annotator_kappa"].value
    # Two raters that are right with 0.9 each agree with 0.82, and kappa is 2 * 0.82 - 1.
    assert ceiling == pytest.approx(0.64, abs=0.03)
    assert judge == pytest.approx(0.64, abs=0.03)
    assert (figures["judge_consensus_kappa"].value or 0) > 0.7


def test_dropping_ties_inflates_the_judge_against_a_consensus() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(4000) < 0.5
    noisy = [np.where(rng.random(4000) < 0.8, truth, ~truth).astype(float) for _ in range(3)]

    figures = by_name(people_figures(ratings_of(np.column_stack(noisy[:2])), noisy[2]))

    dropped, counted = figures["judge_consensus_kappa"], figures["judge_consensus_kappa_with_ties"]
    assert (dropped.value or 0) > (counted.value or 1) + 0.05
    assert dropped.n < counted.n == 4000


def test_without_two_annotators_there_is_no_ceiling() -> None:
    figures = people_figures(ratings_of([[1], [0]]), np.array([1.0, 0.0]))

    assert {figure.value for figure in figures} == {None}
    assert {figure.reason for figure in figures} == {"no record has verdicts of two annotators"}


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("prevalence", [0.5, 0.9])
def test_intervals_of_agreement_among_people_cover(n: int, prevalence: float) -> None:
    """Two annotators who are right in nine of ten, a third where they differ, a judge as good as one."""
    rng = np.random.default_rng(n)

    def sample(size: int) -> tuple[Floats, Floats]:
        truth = rng.random(size) < prevalence
        first, second, third, judge = (np.where(rng.random(size) < 0.9, truth, ~truth) for _ in range(4))
        scores = np.column_stack([first, second, third]).astype(np.float64)
        scores[first == second, 2] = NAN
        scores[rng.random(size) < 0.5, 2] = NAN  # so that ties are left
        return scores, judge.astype(np.float64)

    def figures(size: int) -> dict[str, Figure]:
        scores, judge = sample(size)
        return by_name(ceiling_figures(ratings_of(scores), judge, n_draws=1000))

    truths = {name: figure.value for name, figure in figures(1_000_000).items() if figure.ci_low is not None}
    covered = dict.fromkeys(truths, 0)
    known = dict.fromkeys(truths, 0)
    for _ in range(N_SAMPLES):
        for name, figure in figures(n).items():
            if name in truths and figure.ci_low is not None and figure.ci_high is not None:
                known[name] += 1
                covered[name] += figure.ci_low <= (truths[name] or 0.0) <= figure.ci_high

    assert set(truths) == {
        "krippendorff_alpha", "human_human_kappa", "judge_annotator_kappa", "judge_consensus_kappa",
        "judge_consensus_kappa_with_ties",
    }  # fmt: skip
    assert {name: hits / known[name] for name, hits in covered.items() if hits / known[name] < COVERED - MARGIN} == {}


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_intervals_of_the_ceiling_over_groups_and_weights_cover(n: int) -> None:
    """n groups of one to three, half of which share the people's verdicts; the disputed come more."""
    rng = np.random.default_rng(n)

    def figures(n_groups: int) -> dict[str, Figure]:
        groups = np.repeat(np.arange(n_groups), rng.integers(1, 4, n_groups))
        shared = (rng.random(n_groups) < 0.5)[groups]

        def draw(share: float) -> npt.NDArray[np.bool_]:
            return np.where(shared, rng.random(n_groups)[groups], rng.random(len(groups))) < share

        truth = draw(0.7)
        scores = np.column_stack([truth ^ draw(0.1), truth ^ draw(0.1)]).astype(np.float64)
        chance = np.where(scores[:, 0] != scores[:, 1], 0.9, 0.5)
        drawn = rng.random(len(groups)) < chance
        ratings, judge = ratings_of(scores[drawn], groups[drawn]), (truth ^ draw(0.15))[drawn].astype(np.float64)
        return by_name(ceiling_figures(ratings, judge, weights=1 / chance[drawn], n_draws=1000))

    names = ("krippendorff_alpha", "human_human_kappa", "judge_annotator_kappa", "judge_consensus_kappa_with_ties")
    truths = figures(300_000)
    samples = [figures(n) for _ in range(N_SAMPLES)]

    for name in names:
        covered = [figure[name].ci_low <= truths[name].value <= figure[name].ci_high for figure in samples]  # type: ignore[operator]
        assert np.mean(covered) >= COVERED - MARGIN, name
