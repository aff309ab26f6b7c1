import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.abstention import (
    find_threshold,
    labels_needed,
    learn_abstention,
    list_abstained,
    select_abstained,
    select_calibration,
)
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.judge_scores import assign_splits
from caliber_pipeline.core.splits import set_aside_calibration
from caliber_pipeline.core.weights import thin_sampled


def test_twenty_two_labels_without_an_error_are_the_least() -> None:
    # 0.9 ** 22 = 0.0985 <= 0.1 < 0.9 ** 21 = 0.1094
    assert labels_needed(0.1, 0.1) == 22
    assert find_threshold(np.full(22, 0.9), np.ones(22)).threshold == 0.9
    short = find_threshold(np.full(20, 0.9), np.ones(20))
    assert short.threshold is None
    assert short.reason == "2 more calibration labels are needed: 22 without an error show it at best"


def test_without_confidences_it_says_so() -> None:
    nothing = find_threshold(np.full(100, np.nan), np.ones(100))

    assert nothing.reason is not None
    assert nothing.reason.startswith("the judge gives no confidences")


def test_the_judge_decides_what_it_is_sure_of() -> None:
    # The 100 surest agree, of the 100 others every second one.
    confidence = np.repeat([0.95, 0.6], 100)
    is_agreeing = np.append(np.ones(100), np.tile([1, 0], 50))

    found = find_threshold(confidence, is_agreeing)

    assert found.threshold == 0.95
    assert (found.n_decided, found.n_errors, found.share_decided) == (100, 0, 0.5)
    # No error in 100: the bound solves (1 - p) ** 100 = 0.1.
    assert found.risk_bound == pytest.approx(1 - 0.1**0.01)
    assert select_abstained([0.95, 0.6, np.nan], found).tolist() == [False, True, True]


def test_a_judge_that_errs_where_it_is_sure_decides_nothing() -> None:
    nothing = find_threshold(np.full(100, 0.9), np.tile([1, 1, 1, 0], 25))

    assert nothing.threshold is None
    assert nothing.reason is not None
    assert "the 100 surest records judge and people differ on 25" in nothing.reason
    assert select_abstained([0.95], nothing).tolist() == [True]


def test_calibration_takes_one_record_per_group_of_half_of_test() -> None:
    n = 4000
    group = pd.Series([f"g{i // 2}" for i in range(n)])
    split = set_aside_calibration(pd.Series(["test", "test", "dev", "dev"] * (n // 4)), group)
    scored = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(n)],
            "group": group,
            "split": split,
            "llm_score": pd.array([1] * n, dtype="int8[pyarrow]"),
            "is_example": [False] * n,
            "confidence": [0.9] * (n - 1) + [None],
        }
    )

    part = select_calibration(scored)

    assert split.groupby(group).nunique().max() == 1
    assert (split == "dev").sum() == n / 2
    assert set(part["split"]) == {"calibration"}
    assert part["group"].is_unique
    assert len(part) == pytest.approx(500, abs=60)  # half of the 1,000 groups in test
    shuffled = select_calibration(scored.sample(frac=1, random_state=0))
    assert shuffled["record_id"].tolist() == part["record_id"].tolist()


def test_copies_of_records_in_their_groups_change_no_bound_of_what_the_judge_decides() -> None:
    n = 400
    single = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(n)],
            "group": [f"g{i}" for i in range(n)],
            "split": "calibration",
            "human_score": pd.array([int(i % 20 > 0) for i in range(n)], dtype="int8[pyarrow]"),
            "llm_score": pd.array([1] * n, dtype="int8[pyarrow]"),
            "is_example": False,
            "confidence": np.linspace(1, 0.5, n),
        }
    )
    copies = pd.concat([single.assign(record_id=single["record_id"] + f".{k}") for k in range(5)])

    found = learn_abstention(copies)

    assert found == learn_abstention(single)
    as_if_independent = find_threshold(copies["confidence"], copies["llm_score"] == copies["human_score"])
    assert (found.risk_bound or 0) > (as_if_independent.risk_bound or 1) + 0.01


def test_what_two_people_judged_or_nothing_is_guaranteed_for_needs_no_third() -> None:
    scored = pd.DataFrame(
        {
            "record_id": ["sure", "unsure", "judged by two", "example", "failed"],
            "llm_score": pd.array([1, 1, 1, 1, None], dtype="int8[pyarrow]"),
            "confidence": pd.array([0.95, 0.6, 0.6, 0.6, None], dtype="float64[pyarrow]"),
            "is_example": [False, False, False, True, False],
            "n_annotators": [1, 1, 2, 1, 1],
        }
    )
    found = find_threshold(np.full(30, 0.9), np.ones(30))

    assert learn_abstention(scored.assign(split="dev", group="g")).reason == (
        "no calibration record is judged: they are part of test, which only winning versions see"
    )
    assert list_abstained(scored, found) == ("unsure",)
    assert list_abstained(scored, find_threshold([], [])) == ()
    assert found.in_words == (
        "what it is sure of by 0.9 or more, 100% of 30 calibration records: 0 errors in 30; "
        "people agree with 90 % of it or more, at 90 % confidence"
    )
    assert find_threshold([], []).in_words.startswith("nothing alone: the judge gives no confidences")


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.1), (0.1, 1.0), (float("nan"), 0.1), (-1, 0.1)])
def test_risks_that_are_no_shares_are_refused(alpha: float, delta: float) -> None:
    with pytest.raises(InputError, match="give a share between 0 and 1"):
        find_threshold(np.full(30, 0.9), np.ones(30), alpha=alpha, delta=delta)
    with pytest.raises(InputError, match="30 confidences and 29 agreements"):
        find_threshold(np.full(30, 0.9), np.ones(29))


def test_the_risks_are_those_asked_for() -> None:
    # 0.95 ** 58 = 0.0511 > 0.05 >= 0.95 ** 59 = 0.0485
    assert labels_needed(0.05, 0.05) == 59
    assert find_threshold(np.full(58, 0.9), np.ones(58), alpha=0.05, delta=0.05).threshold is None
    found = find_threshold(np.full(59, 0.9), np.ones(59), alpha=0.05, delta=0.05)
    assert (found.threshold, found.alpha, found.delta) == (0.9, 0.05, 0.05)
    assert found.guarantee == "people agree with 95 % of it or more, at 95 % confidence"


def test_of_labels_chosen_by_doubt_as_many_count_as_make_a_plain_sample() -> None:
    # Of 3,000 records the sure third was drawn with a probability of 0.1, the unsure rest with 0.8: a plain sample
    # keeps all of the sure and 0.1 / 0.8 of the unsure ones; labels without a probability are kept.
    n = 3000
    weight = np.where(np.arange(n) % 3 == 0, 1 / 0.1, 1 / 0.8)
    rows = pd.DataFrame({"record_id": [f"r{i}" for i in range(n)], "weight": weight})
    kept = thin_sampled(rows)
    assert (kept["weight"] == 10).sum() == n / 3
    assert (kept["weight"] == 1.25).sum() == pytest.approx(n * 2 / 3 / 8, abs=45)  # 250, three standard deviations
    assert thin_sampled(rows.assign(weight=np.nan)).equals(rows.assign(weight=np.nan))
    assert len(thin_sampled(rows.assign(weight=np.where(weight == 10, np.nan, weight)))) == n
    assert len(thin_sampled(rows.drop(columns="weight"))) == n


def test_a_calibration_part_is_set_aside_only_for_a_judge_that_tells_how_sure_it_is() -> None:
    records = pd.DataFrame({"record_id": [f"r{i}" for i in range(40)], "split": ["test", "dev"] * 20})
    records["group"] = records["record_id"]
    verdicts = pd.DataFrame({"record_id": ["r0", "r1"], "confidence": pd.array([None, None], "float64[pyarrow]")})

    silent = assign_splits(verdicts, records)
    telling = assign_splits(verdicts.assign(confidence=[0.9, np.nan]), records)

    assert silent["split"].tolist() == records["split"].tolist()
    assert set(telling["split"]) == {"dev", "test", "calibration"}
    assert (telling["split"] != records["split"]).sum() == (telling["split"] == "calibration").sum()


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_the_guarantee_fails_in_at_most_delta_of_runs(n: int) -> None:
    """Risk falls from 0.5 to 0 with confidence, so that the true risk of a threshold is known; 4,000 calibrations."""
    rng, n_runs, alpha, delta = np.random.default_rng(n), 4000, 0.1, 0.1
    failures, found = 0, 0
    for _ in range(n_runs):
        confidence = rng.random(n)
        is_agreeing = rng.random(n) >= (1 - confidence) / 2
        threshold = find_threshold(confidence, is_agreeing, alpha=alpha, delta=delta).threshold
        if threshold is not None:
            found += 1
            failures += (1 - threshold) / 4 > alpha  # the mean of (1 - c) / 2 over c from the threshold to 1

    assert failures / n_runs <= delta + 2 * (delta * (1 - delta) / n_runs) ** 0.5
    assert found / n_runs > {50: 0.05, 200: 0.3, 1000: 0.85}[n]


def test_confidences_in_percent_are_refused() -> None:
    with pytest.raises(InputError, match="a confidence is 95; give shares from 0 to 1"):
        find_threshold([95.0, 80.0] * 20, [True] * 40)
    with pytest.raises(InputError, match=r"agreement: .* give a flat list or array of 0 and 1"):
        find_threshold([0.9] * 2, [1, float("nan")])


def test_a_threshold_needs_one_agreement_per_confidence() -> None:
    with pytest.raises(InputError, match="1 confidences and 2 agreements; give one of each per record"):
        find_threshold([0.9], [True, False])
