from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.annotators import (
    annotator_biases,
    build_ratings,
    fit_dawid_skene,
    krippendorff_alpha,
    majority_labels,
    pairwise_agreement,
    retest_agreement,
    run_alt_test,
)
from caliber_pipeline.core.errors import InputError
from caliber_pipeline_tests.core.rating_tables import ratings_of
from caliber_pipeline_tests.core.simulated_intervals import COVERED

DATASETS = Path(__file__).parents[3] / "shared" / "datasets"
NAN = np.nan


def annotations_of(*rows: tuple[str, str, int, str | None, bool]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["record_id", "annotator", "score", "created_at", "is_gold"])
    return frame.assign(created_at=pd.to_datetime(frame["created_at"], utc=True))


def test_the_latest_verdict_counts_and_gold_is_nobodys() -> None:
    ratings = build_ratings(
        annotations_of(
            ("r2", "ben", 0, "2026-01-02", False),
            ("r2", "ben", 1, "2026-01-01", False),
            ("r1", "ann", 1, None, False),
            ("r1", "gold", 0, None, True),
        )
    )

    assert ratings.record_ids.tolist() == ["r1", "r2"]
    assert ratings.annotators == ("ann", "ben")
    np.testing.assert_array_equal(ratings.scores, [[1, NAN], [NAN, 0]])


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared data sets are not beside the checkout")
def test_people_on_the_shared_data_set() -> None:
    data = pd.read_csv(DATASETS / "openqa_eval_sample.csv")
    ratings = ratings_of(data[["rater1_score", "rater2_score"]])

    pair = pairwise_agreement(ratings).iloc[0]

    # From the data sets' README: n 300, agreement 0.8700, kappa 0.7323.
    assert pair["n"] == 300
    assert pair["agreement"] == pytest.approx(0.87, abs=5e-5)
    assert pair["cohen_kappa"] == pytest.approx(0.7323, abs=5e-5)
    assert pair["ci_low"] < 0.7323 < pair["ci_high"]
    three = ratings_of(data[["rater1_score", "rater2_score", "rater3_score"]])
    # irrCAC 0.4.4 (CAC.krippendorff) and krippendorff 0.9.0 on the three raters, 44 records of the third
    assert float(krippendorff_alpha(three.n_accepts, three.n_raters)) == pytest.approx(0.725617259447, abs=1e-9)


@settings(max_examples=40)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=3, max_size=3), min_size=3, max_size=30))
def test_alpha_agrees_with_the_krippendorff_package(scores: list[list[float]]) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    ratings = ratings_of(scores)
    pairable = ratings.scores[ratings.n_raters >= 2]
    given = pairable[~np.isnan(pairable)]
    if len(np.unique(given)) < 2:
        assert np.isnan(krippendorff_alpha(ratings.n_accepts, ratings.n_raters))
        return

    expected = krippendorff.alpha(reliability_data=ratings.scores.T, level_of_measurement="nominal")

    assert float(krippendorff_alpha(ratings.n_accepts, ratings.n_raters)) == pytest.approx(expected, abs=1e-9)


def test_the_first_two_are_the_first_in_time_then_by_name() -> None:
    ratings = build_ratings(
        annotations_of(
            ("r1", "ann", 1, "2026-01-03", False),
            ("r1", "ben", 0, "2026-01-02", False),
            ("r1", "cleo", 0, "2026-01-01", False),
            ("r2", "ann", 1, None, False),
            ("r2", "cleo", 0, None, False),
            ("r2", "ben", 0, None, False),
        )
    )

    np.testing.assert_array_equal(ratings.first_two, [[NAN, 0, 0], [1, 0, NAN]])
    np.testing.assert_array_equal(ratings_of([[NAN, 1, 0, 1]]).first_two, [[NAN, 1, 0, NAN]])


def test_pairs_that_share_nothing_are_left_out_and_of_many_the_largest_are_kept() -> None:
    ratings = ratings_of([[1, 1, NAN, NAN], [0, 1, 0, NAN], [1, 0, NAN, NAN], [NAN, NAN, NAN, 1]])

    pairs = pairwise_agreement(ratings)
    largest = pairwise_agreement(ratings, max_pairs=1)

    assert list(zip(pairs["annotator"], pairs["other"], pairs["n"], strict=True)) == [
        ("a0", "a1", 3),
        ("a0", "a2", 1),
        ("a1", "a2", 1),
    ]
    assert largest["n"].tolist() == [3]


def test_alpha_of_a_worked_example() -> None:
    # Krippendorff (2011), section A: two observers, ten units, binary:
    # observer A 0 1 0 0 0 0 0 0 1 0, observer B 1 1 1 0 0 1 0 0 0 0; alpha is 0.095.
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    ratings = ratings_of(np.column_stack([first, second]))

    # 6 accepts of 20: expected 2 * 6 * 14 / 19, observed 4 units of 2 * 1 * 1: 1 - 8 * 19 / 168.
    assert float(krippendorff_alpha(ratings.n_accepts, ratings.n_raters)) == pytest.approx(1 - 8 * 19 / 168)


def test_bias_is_held_against_the_others_on_the_same_records() -> None:
    # a0 accepts all of four records on which a1 accepts two: +0.5; a2 judged alone and has none.
    ratings = ratings_of([[1, 1, NAN], [1, 1, NAN], [1, 0, NAN], [1, 0, NAN], [NAN, NAN, 1]])

    biases = annotator_biases(ratings)

    np.testing.assert_allclose(biases["bias"].to_numpy(dtype=np.float64), [0.5, -0.5, NAN])
    assert biases["ci_low"][0] < 0.5 < biases["ci_high"][0]
    assert biases["accept_rate"].tolist() == [1, 0.5, 1]


def test_a_crowd_of_hundreds_on_one_record_is_summed_without_a_warning() -> None:
    fit = fit_dawid_skene(ratings_of(np.vstack([np.ones(900), np.zeros(900), np.tile([1, 0], 450)])))

    assert fit.accept_probability[0] > 0.99 > 0.01 > fit.accept_probability[1]


def test_columns_that_only_a_run_has_are_not_needed() -> None:
    annotations = pd.DataFrame({"record_id": ["a", "a", "b"], "annotator": ["x", "y", "x"], "score": [1, 0, 1]})

    assert build_ratings(annotations).annotators == ("x", "y")
    assert retest_agreement(annotations).empty


def test_more_accepts_than_annotators_are_refused() -> None:
    with pytest.raises(InputError, match="accepts of 2 records and annotators of 1"):
        krippendorff_alpha([1, 2], [2])
    with pytest.raises(InputError, match="the first at most the second"):
        krippendorff_alpha([3], [2])


def test_ties_have_no_majority() -> None:
    ratings = ratings_of([[1, 0, NAN], [1, 1, 0], [0, NAN, NAN], [NAN, NAN, NAN]])

    np.testing.assert_array_equal(majority_labels(ratings), [NAN, 1, 0, NAN])


def test_dawid_skene_finds_the_skills_that_made_the_verdicts() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.6
    skills = [(0.95, 0.9), (0.8, 0.85), (0.6, 0.6), (0.9, 0.7), (0.7, 0.9)]
    scores = np.column_stack([np.where(truth, rng.random(3000) < r, rng.random(3000) > s) for r, s in skills])
    scores = np.where(rng.random(scores.shape) < 0.1, NAN, scores)

    fit = fit_dawid_skene(ratings_of(scores))

    np.testing.assert_allclose(fit.recall, [r for r, _ in skills], atol=0.04)
    np.testing.assert_allclose(fit.specificity, [s for _, s in skills], atol=0.06)
    assert fit.prevalence == pytest.approx(0.6, abs=0.03)
    rough = fit_dawid_skene(ratings_of(scores), n_iterations=1)
    assert np.abs(rough.recall - fit.recall).max() > 0.01
    by_majority = majority_labels(ratings_of(scores))
    assert np.mean((fit.accept_probability > 0.5) == truth) > np.mean(by_majority == truth)


def test_a_person_who_judged_twice_is_held_against_themselves() -> None:
    annotations = annotations_of(
        ("r1", "ann", 1, "2026-01-01", False),
        ("r1", "ann", 1, "2026-02-01", False),
        ("r2", "ann", 1, "2026-01-01", False),
        ("r2", "ann", 0, "2026-02-01", False),
        ("r3", "ben", 0, "2026-02-01", False),
    )

    retest = retest_agreement(annotations)

    assert retest[["annotator", "n", "agreement"]].to_numpy().tolist() == [["ann", 2, 0.5]]


def _noisy(truth: Floats, accuracy: float, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(len(truth)) < accuracy, truth, 1 - truth)


def test_the_alternative_annotator_test_passes_a_good_judge_and_not_a_random_one() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(200) < 0.5).astype(float)
    ratings = ratings_of(np.column_stack([_noisy(truth, 0.85, rng) for _ in range(4)]))

    good = run_alt_test(ratings, _noisy(truth, 0.9, rng))
    random = run_alt_test(ratings, (rng.random(200) < 0.5).astype(float))

    assert good.winning_rate == 1
    assert random.winning_rate == 0
    assert (good.advantage or 0) > (random.advantage or 1)


def test_one_annotators_row_of_the_alternative_annotator_test_by_hand() -> None:
    # Others always accept. The judge accepts 27 of 30, a0 accepts 24, both at once 21: the judge alone wins 6, a0
    # alone 3, 21 are even. Mean gap (3 - 6) / 30 = -0.1; squares sum to 9, variance (9 - 0.3) / 29 = 0.3, its root
    # 0.5477226; t = (-0.1 - 0.2) / (0.5477226 / 30 ** 0.5) = -3, whose tail at 29 degrees of freedom is 0.0027496.
    own = [1.0] * 24 + [0.0] * 6
    judge = np.array([1.0] * 21 + [0.0] * 3 + [1.0] * 6)
    ratings = ratings_of(np.column_stack([own, [1.0] * 30, [1.0] * 30]))

    row = run_alt_test(ratings, judge).by_annotator.iloc[0]

    assert row["judge_wins"] == 0.9
    assert row["annotator_wins"] == 0.8
    assert row["p_value"] == pytest.approx(0.0027496, abs=1e-6)


def test_the_alternative_annotator_test_says_what_it_lacks() -> None:
    two = run_alt_test(ratings_of([[1, 0]] * 50), np.ones(50))
    short = run_alt_test(ratings_of([[1, 0, 1]] * 20), np.ones(20))

    assert two.winning_rate is None
    assert two.reason == "2 annotators; the test needs 3"
    lone = run_alt_test(ratings_of([[1, 0, 1]] * 40 + [[1, NAN, NAN]]), np.append(np.ones(40), 0))
    assert lone.winning_rate is not None
    thin = np.full((40, 4), NAN)
    thin[:, :3], thin[0, 3] = [1, 0, 1], 1  # the fourth annotator judged one record: left out of the rate
    assert len(run_alt_test(ratings_of(thin), np.ones(40)).by_annotator) == 3
    assert short.winning_rate is None
    assert short.reason == "0 annotators share 30 judged records with others; the test needs 3"


def test_copies_of_records_in_their_groups_narrow_no_interval_of_people() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(60) < 0.6).astype(float)
    scores, groups = np.column_stack([_noisy(truth, 0.8, rng) for _ in range(3)]), np.tile(np.arange(60), 4)
    single, copied = ratings_of(scores), ratings_of(np.tile(scores, (4, 1)), groups)

    for describe, ends in (
        (pairwise_agreement, ("ci_low", "ci_high")),
        (pairwise_agreement, ("agreement_ci_low", "agreement_ci_high")),
        (annotator_biases, ("accept_rate_ci_low", "accept_rate_ci_high")),
        (annotator_biases, ("ci_low", "ci_high")),
    ):
        widths = [describe(ratings)[ends[1]] - describe(ratings)[ends[0]] for ratings in (single, copied)]
        # the intervals of single records are not those of groups to the last digit; four times the records halve them
        np.testing.assert_allclose(widths[1].astype(float), widths[0].astype(float), rtol=0.08)
    assert pairwise_agreement(copied)[["n", "n_groups"]].to_numpy().tolist() == [[240, 60]] * 3


def test_groups_come_with_the_annotations_and_a_record_without_one_stands_alone() -> None:
    rows = [(f"r{i}", "ann", i % 2, None, False) for i in range(4)]
    annotations = annotations_of(*rows, ("r0", "ben", 1, None, False))
    grouped = annotations.assign(group=pd.Series(["x", None, "x", None, "x"]))

    assert build_ratings(annotations).groups is None
    assert build_ratings(annotations.assign(group=annotations["record_id"])).groups is None
    codes = build_ratings(grouped).groups
    assert codes is not None
    assert codes[0] == codes[2]
    assert len(set(codes.tolist())) == 3


def test_copies_in_groups_are_no_further_evidence_of_retest_agreement() -> None:
    def annotations(n_copies: int) -> pd.DataFrame:
        ids = [(f"r{i}.{k}", i) for i in range(40) for k in range(n_copies)]
        first = [(record_id, "ann", 1, "2026-01-01", False) for record_id, _ in ids]
        last = [(record_id, "ann", int(i % 5 > 0), "2026-02-01", False) for record_id, i in ids]
        return annotations_of(*first, *last).assign(group=[i for _, i in ids] * 2)

    single, copied = (retest_agreement(annotations(n)).iloc[0] for n in (1, 4))

    assert (single["n"], copied["n"], copied["agreement"]) == (40, 160, 0.8)
    assert copied["ci_high"] - copied["ci_low"] == pytest.approx(single["ci_high"] - single["ci_low"], rel=0.08)


def test_copies_in_groups_make_no_annotator_replaceable() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(60) < 0.5).astype(float)
    scores, judge = np.column_stack([_noisy(truth, 0.85, rng) for _ in range(3)]), _noisy(truth, 0.75, rng)
    groups = np.tile(np.arange(60), 9)

    single = run_alt_test(ratings_of(scores), judge)
    copied = run_alt_test(ratings_of(np.tile(scores, (9, 1)), groups), np.tile(judge, 9))
    ignored = run_alt_test(ratings_of(np.tile(scores, (9, 1))), np.tile(judge, 9))

    p_values = [test.by_annotator["p_value"].to_numpy(dtype=float) for test in (single, copied, ignored)]
    # the t of the copies is the same, and its degrees of freedom are those that 60 groups leave
    np.testing.assert_allclose(p_values[1], p_values[0], rtol=0.2)
    assert single.winning_rate == copied.winning_rate == 0
    assert ignored.winning_rate == 1
    assert copied.by_annotator["n_groups"].tolist() == [60] * 3
    few = run_alt_test(ratings_of(np.tile(scores[:20], (9, 1)), np.tile(np.arange(20), 9)), np.tile(judge[:20], 9))
    assert few.reason == "0 annotators share 30 groups of judged records with others; the test needs 3"


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_intervals_of_an_annotators_bias_cover(n: int) -> None:
    """Two annotators, one of whom accepts what the other doubts."""
    rng = np.random.default_rng(n)
    covered = 0
    n_samples = 4000  # more than elsewhere, as it comes close to the bound
    for _ in range(n_samples):
        base, eager = rng.random(n) < 0.8, rng.random(n) < 0.3
        row = annotator_biases(ratings_of(np.column_stack([base | eager, base]))).iloc[0]
        covered += row["ci_low"] <= 0.06 <= row["ci_high"]  # 0.2 * 0.3

    assert covered / n_samples >= COVERED
