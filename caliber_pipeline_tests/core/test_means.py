import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.intervals import proportion_interval
from caliber_pipeline.core.means import design_effect, mean_interval, p_below
from caliber_pipeline_tests.core.simulated_intervals import COVERED, N_SAMPLES


def of_proportion(hits: float, n: float) -> tuple[float, float]:
    low, high = proportion_interval(hits, n)
    return float(low), float(high)


def test_the_mean_of_zeros_and_ones_has_the_interval_of_a_proportion() -> None:
    assert mean_interval(np.repeat([0.0, 1.0], [20, 30])) == pytest.approx(of_proportion(30, 50))


def test_equal_values_do_not_make_a_mean_certain() -> None:
    # fifty halves and one more value of variance 1/4: 0.25 / 50 each, as of a proportion among 50 times 50
    assert mean_interval(np.full(50, 0.5)) == pytest.approx(of_proportion(1250, 2500))
    low, high = mean_interval(np.ones(50))

    assert low < 0.96
    assert high == 1


def test_copies_in_groups_count_once() -> None:
    values, groups = np.repeat([0.0, 1.0], [20, 30]), np.arange(50)
    low, high = mean_interval(np.tile(values, 4), np.tile(groups, 4))
    single = of_proportion(30, 50)

    # four copies each: the design effect is 4 * 50 / 49, and a t of 49 degrees of freedom is 2.5 % above the normal
    assert high - low == pytest.approx(single[1] - single[0], rel=0.04)
    assert design_effect(np.ones(200), np.tile(groups, 4), np.ones(200)) == 4
    assert mean_interval(np.ones(200), np.tile(groups, 4))[0] < 0.96


def test_the_test_of_a_mean_is_students_and_copies_in_groups_add_nothing_to_it() -> None:
    values, groups = np.repeat([-1.0, 0.0, 1.0], [8, 30, 2]), np.arange(40)
    expected = scipy.stats.ttest_1samp(values, 0.1, alternative="less").pvalue

    single, copied = p_below(values, 0.1), p_below(np.tile(values, 6), 0.1, np.tile(groups, 6))

    assert single == pytest.approx(expected, rel=1e-9)
    assert single <= copied < 3 * single  # the same t with fewer degrees of freedom: the values are far from normal
    assert p_below(np.tile(values, 6), 0.1) < single / 100
    assert (p_below(np.zeros(5), 0.1), p_below(np.zeros(5), -0.1)) == (0, 1)


def test_weights_of_one_change_nothing_and_the_order_of_records_no_bit() -> None:
    rng = np.random.default_rng(0)
    values, groups, weights = rng.choice([0.6, 0.8, 1.0], 100), rng.integers(0, 30, 100), rng.choice([1.0, 3.7], 100)
    order = rng.permutation(100)

    assert mean_interval(values, weights=np.ones(100)) == mean_interval(values)
    assert mean_interval(values, groups, weights) == mean_interval(values[order], groups[order], weights[order])


@pytest.mark.slow
@pytest.mark.parametrize("n_votes", [3, 5])
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_intervals_of_mean_vote_shares_cover(n: int, n_votes: int) -> None:
    rng = np.random.default_rng(n)

    def vote_shares(shape: tuple[int, ...]) -> Floats:
        accepts = rng.binomial(n_votes, rng.beta(8, 1, size=shape)) / n_votes
        return np.maximum(accepts, 1 - accepts)

    truth = float(vote_shares((2_000_000,)).mean())
    intervals = [mean_interval(shares) for shares in vote_shares((N_SAMPLES, n))]

    assert np.mean([low <= truth <= high for low, high in intervals]) >= COVERED


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_intervals_of_grouped_and_weighted_means_cover(n: int, *, is_weighted: bool) -> None:
    """Samples of n groups of one to three; members share their stability; the unstable weigh less."""
    rng = np.random.default_rng(n)

    def sample(n_groups: int) -> tuple[Floats, npt.NDArray[np.int64], Floats | None]:
        groups = np.repeat(np.arange(n_groups), rng.integers(1, 4, n_groups))
        accepts = rng.binomial(5, rng.beta(8, 1, size=n_groups)[groups]) / 5
        shares: Floats = np.maximum(accepts, 1 - accepts)
        if not is_weighted:
            return shares, groups, None
        chance = np.where(shares == 1, 0.2, 0.8)
        drawn = rng.random(len(groups)) < chance
        return shares[drawn], groups[drawn], 1 / chance[drawn]

    shares, _, weights = sample(1_000_000)
    truth = float(np.average(shares, weights=weights))
    intervals = [mean_interval(*sample(n)) for _ in range(N_SAMPLES)]

    assert np.mean([low <= truth <= high for low, high in intervals]) >= COVERED
