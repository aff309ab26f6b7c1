import numpy as np
import pytest

from caliber_pipeline.core.drift import evidence_of_drift, run_drift_test, split_drift


def test_evidence_of_a_worked_example() -> None:
    # Certified 0.5; one miss: the mean of 1 - p for p uniform on (0, 0.5) is 0.75, over 0.5: 1.5. One hit: 0.25 / 0.5.
    assert np.exp(evidence_of_drift([0], 0.5)) == pytest.approx([1.5])
    assert np.exp(evidence_of_drift([1], 0.5)) == pytest.approx([0.5])
    # A miss then a hit: the mean of p (1 - p) is 2 * (0.125 - 0.041667) = 0.166667, over 0.25.
    assert np.exp(evidence_of_drift([0, 1], 0.5))[1] == pytest.approx(2 / 3)


def test_a_judge_that_got_worse_raises_the_alarm_soon_and_for_good() -> None:
    rng = np.random.default_rng(0)
    audited = np.append(rng.random(300) < 0.7, np.ones(300))

    test = run_drift_test(audited, certified=0.85)

    assert test.is_alarm
    assert test.alarm_at is not None
    assert test.alarm_at < 150
    assert test.peak_evidence >= 20
    assert test.n == 600


def test_a_judge_that_agrees_as_certified_raises_none() -> None:
    rng = np.random.default_rng(0)

    test = run_drift_test(rng.random(2000) < 0.85, certified=0.85)

    assert not test.is_alarm
    assert test.agreement == pytest.approx(0.85, abs=0.02)


def test_without_audited_records_there_is_no_evidence() -> None:
    test = run_drift_test([], certified=0.9)

    assert (test.is_alarm, test.evidence, test.agreement, test.n) == (False, 1.0, None, 0)


def test_overwhelming_evidence_stays_finite() -> None:
    assert np.isfinite(run_drift_test(np.zeros(20_000), certified=0.9).evidence)
    assert run_drift_test(np.ones(20_000), certified=0.9).evidence == 0


def test_a_certificate_of_all_or_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the certified agreement is 1; give one between 0 and 1"):
        run_drift_test([1, 0], certified=1)


def test_a_changed_judge_shows_on_the_anchors() -> None:
    before = np.repeat([True, False], [90, 10])
    now = np.repeat([True, False, False], [65, 25, 10])  # 25 anchors lost, none gained
    audited = np.repeat([True, False], [130, 70])  # 0.65, as the anchors are now

    split = split_drift(before, now, audited)

    assert split.judge.value == -0.25
    assert split.data.value == 0.0
    assert split.in_words == "judge drift of -25.0%"
    # two-sided exact test of 0 against 25: 2 / 2 ** 25
    assert split.p_value == pytest.approx(2 * 0.5**25)


def test_changed_data_shows_where_the_anchors_hold() -> None:
    before = np.repeat([True, False], [90, 10])

    split = split_drift(before, before, np.repeat([True, False], [130, 70]))

    assert split.judge.value == 0
    assert split.data.value == pytest.approx(-0.25)
    assert split.in_words == "data drift of -25.0%"
    assert split_drift(before, before, before).in_words == "neither judge drift nor data drift is shown"


def test_the_interval_of_data_drift_is_newcombes_widened() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    anchors, audited = np.repeat([True, False], [90, 10]), np.repeat([True, False], [130, 70])

    data = split_drift(anchors, anchors, audited).data

    low, high = proportion.confint_proportions_2indep(130, 200, 90, 100, method="newcomb", compare="diff")
    assert data.ci_low <= low + 1e-9
    assert data.ci_high >= high - 1e-9
    assert data.ci_high - data.ci_low <= 1.03 * (high - low)


def test_anchors_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="3 anchors before, 2 now and 1 audited records"):
        split_drift([1, 1, 0], [1, 0], [1])


@pytest.mark.slow
@pytest.mark.parametrize("certified", [0.6, 0.85, 0.95])
def test_false_alarms_stay_under_alpha_however_often_one_looks(certified: float) -> None:
    """4,000 judges at exactly the certified agreement, looked at after each of 1,000 audited records."""
    rng, n_runs, alpha = np.random.default_rng(1), 4000, 0.05
    alarms = sum(run_drift_test(rng.random(1000) < certified, certified, alpha=alpha).is_alarm for _ in range(n_runs))

    assert alarms / n_runs <= alpha


@pytest.mark.slow
def test_a_drop_of_ten_points_is_found_within_300_records() -> None:
    rng = np.random.default_rng(2)
    alarms = [run_drift_test(rng.random(300) < 0.75, 0.85).is_alarm for _ in range(2000)]

    assert np.mean(alarms) > 0.85
