import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.drift import (
    Certificate,
    agreement_of,
    build_row,
    count_undated,
    difference_interval,
    evidence_of_drift,
    find_certificate,
    run_drift_test,
    select_anchors,
    split_by_time,
    split_drift,
)
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.intervals import proportion_interval
from caliber_pipeline.core.planning import draw_sample, sampling_probabilities


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
    with pytest.raises(InputError, match=r"the certified agreement is 1; give one between 0 and 1"):
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


@pytest.mark.parametrize("n", [50, 200])
def test_intervals_of_data_drift_cover(n: int) -> None:
    """Exact, by the binomial probabilities of all outcomes on 50 anchors and n audited records."""
    from scipy.stats import binom

    shares, anchors, audited = [0.5, 0.7, 0.8, 0.9, 0.95], np.arange(51), np.arange(n + 1)
    low, high = difference_interval(audited[:, None], n, anchors, 50)
    for now in shares:
        for new in shares:
            is_covered = (low <= new - now) & (new - now <= high)
            coverage = binom.pmf(audited, n, new) @ is_covered @ binom.pmf(anchors, 50, now)
            assert coverage >= 0.935, (now, new)


@pytest.mark.parametrize("audited", [[1, 0, 2], [1, float("nan")], ["yes"]])
def test_agreement_is_true_or_false(audited: list[object]) -> None:
    with pytest.raises(InputError, match="give a flat list or array of 0 and 1"):
        run_drift_test(audited, 0.9)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give a flat list or array of 0 and 1"):
        split_drift([1, 0], [1, 0], audited)  # type: ignore[arg-type]


def test_anchors_must_be_the_same() -> None:
    with pytest.raises(InputError, match="3 anchors before, 2 now and 1 audited records"):
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


def history_of(*rows: tuple[str, str, str, int, int]) -> pd.DataFrame:
    """Evaluations: version, time, decision, dev hits, dev n; test is sealed."""
    frame = pd.DataFrame(rows, columns=["criteria_version", "evaluated_at", "decision", "hits", "n"])
    history = frame[["criteria_version", "decision"]].copy()
    history["evaluated_at"] = pd.to_datetime(frame["evaluated_at"], utc=True)
    history["dev_n"], history["dev_true_positives"], history["dev_true_negatives"] = frame["n"], frame["hits"], 0
    history["dev_accuracy"] = frame["hits"] / frame["n"]
    history["test_n"] = None
    return history


UNDATED = pd.DataFrame({"record_id": ["r0"], "created_at": pd.to_datetime([float("nan")], utc=True)})


def certify(history: pd.DataFrame | None, version: str, scored: pd.DataFrame | None = None) -> Certificate | None:
    return find_certificate(history, version, scored_of(4) if scored is None else scored, UNDATED)


def test_the_certificate_is_the_first_evaluation_that_won() -> None:
    history = history_of(
        ("v002", "2026-01-02", "promoted", 90, 100),
        ("v002", "2026-01-09", "promoted", 60, 100),
        ("v003", "2026-01-03", "rejected", 99, 100),
    )

    certificate = certify(history, "v002")

    assert certificate is not None
    assert certificate.certified_at == pd.Timestamp("2026-01-02", tz="UTC")
    assert certificate.agreement == pytest.approx(float(proportion_interval(90, 100)[0]))
    assert certify(history, "v003") is None
    assert certify(None, "v002") is None
    assert certify(history_of(("v001", "2026-01-01", "baseline", 0, 0)), "v001") is None


def test_a_weighted_certificate_is_the_lower_of_weighted_and_counted() -> None:
    history = history_of(("v002", "2026-01-02", "promoted", 90, 100))
    for accuracy, hits in ((0.85, 85), (0.95, 90)):
        certificate = certify(history.assign(dev_accuracy=accuracy), "v002")
        assert certificate is not None
        assert certificate.agreement == pytest.approx(float(proportion_interval(hits, 100)[0]))


def test_a_certificate_of_groups_of_copies_is_that_of_one_record_each() -> None:
    scored = scored_of(40).assign(llm_score=pd.array([1] * 36 + [0] * 4, dtype="int8[pyarrow]"), is_example=False)
    copies = pd.concat([scored.assign(split="dev", record_id=scored["record_id"] + f"-{i}") for i in range(5)])
    history = history_of(("v002", "2026-01-02", "promoted", 180, 200))

    certificate = certify(history, "v002", copies)

    assert certificate is not None
    # 40 groups that differ: their sums vary 5 * 40 / 39 times as much as those of 200 single records
    assert certificate.agreement == pytest.approx(float(proportion_interval(36 * 39 / 40, 39)[0]))


def test_members_of_a_group_raise_no_alarm_together() -> None:
    """Conversations of ten turns, all right or all wrong: a judge that agrees as certified, audited for 60 of them."""
    n_groups, n_runs, is_alarm = 60, 400, []
    when = pd.date_range("2026-02-01", periods=10 * n_groups, freq="min", tz="UTC")
    scored = pd.DataFrame(
        {
            "record_id": [f"r{i:04d}" for i in range(10 * n_groups)],
            "group": np.repeat([f"g{i}" for i in range(n_groups)], 10),
            "human_score": 1,
            "is_example": False,
            "split": "dev",
        }
    )
    annotations = pd.DataFrame({"record_id": scored["record_id"], "created_at": when})
    for seed in range(n_runs):
        agrees = np.repeat(np.random.default_rng(seed).random(n_groups) < 0.9, 10).astype(int)
        judged = scored.assign(llm_score=pd.Series(agrees, dtype="int8[pyarrow]"))
        _, audited = split_by_time(judged, annotations, pd.Timestamp("2026-01-01", tz="UTC"))
        is_alarm.append(run_drift_test(agreement_of(audited), 0.9).is_alarm)
    assert len(audited) == n_groups
    assert np.mean(is_alarm) <= 0.05


def test_labels_chosen_by_doubt_are_no_drift() -> None:
    """A judge that agrees as certified: 98 % where it is sure, 60 % on the unsure fifth, which a plan asks for most."""
    n, n_runs, is_alarm = 3000, 300, []
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        is_unsure = rng.random(n) < 0.2
        probabilities = sampling_probabilities(np.where(is_unsure, 0.45, 0.02), 400)
        drawn = np.flatnonzero(draw_sample(probabilities, seed=seed))
        agrees = rng.random(n) < np.where(is_unsure, 0.6, 0.98)
        scored = pd.DataFrame(
            {
                "record_id": [f"{seed}-{i}" for i in drawn],
                "human_score": 1,
                "llm_score": pd.Series(agrees[drawn].astype(int), dtype="int8[pyarrow]"),
                "is_example": False,
                "split": "dev",
                "group": [f"{seed}-{i}" for i in drawn],
                "weight": 1 / probabilities[drawn],
            }
        )
        when = pd.date_range("2026-02-01", periods=len(drawn), freq="min", tz="UTC")
        annotations = pd.DataFrame({"record_id": scored["record_id"], "created_at": when})
        _, audited = split_by_time(scored, annotations, pd.Timestamp("2026-01-01", tz="UTC"))
        is_alarm.append(run_drift_test(agreement_of(audited), 0.8 * 0.98 + 0.2 * 0.6).is_alarm)
    assert np.mean(is_alarm) <= 0.05 + 2 * (0.05 * 0.95 / n_runs) ** 0.5


def scored_of(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(n)],
            "human_score": pd.array([1] * n, dtype="int8[pyarrow]"),
            "llm_score": pd.array([1, None] + [0] * (n - 2), dtype="int8[pyarrow]"),
            "is_example": [False, False, True] + [False] * (n - 3),
            "split": ["dev", "train"] * (n // 2),
            "group": [f"g{i}" for i in range(n)],
        }
    )


def test_records_first_labelled_after_the_certificate_are_audited_in_order() -> None:
    days = ["2026-01-01", "2026-01-09", "2026-01-08", "2026-01-07", None, "2026-01-06"]
    annotations = pd.DataFrame(
        {"record_id": [f"r{i}" for i in range(6)] + ["r0"], "created_at": [*days, "2026-02-01"]}
    ).assign(created_at=lambda frame: pd.to_datetime(frame["created_at"], utc=True))

    before, audited = split_by_time(scored_of(6), annotations, pd.Timestamp("2026-01-05", tz="UTC"))

    # r0 was labelled before (and again later), r1 has no verdict, r2 is an example, r4 has no time
    assert before["record_id"].tolist() == ["r0", "r4"]
    assert audited["record_id"].tolist() == ["r5", "r3"]
    assert agreement_of(before).tolist() == [True, False]


def test_anchors_are_held_out_and_always_the_same() -> None:
    scored = scored_of(40)

    anchors = select_anchors(scored, 10)

    assert set(anchors["split"]) == {"dev"}
    assert len(anchors) == 10
    assert len(select_anchors(scored.assign(group="one"), 10)) == 1
    again = select_anchors(scored.sample(frac=1, random_state=0), 10)
    assert sorted(again["record_id"]) == sorted(anchors["record_id"])


def test_labels_without_a_time_are_said_to_test_nothing() -> None:
    annotations = pd.DataFrame({"record_id": ["r0", "r2", "r2"], "created_at": [None, None, "2026-01-01"]}).assign(
        created_at=lambda frame: pd.to_datetime(frame["created_at"], utc=True)
    )
    certificate = Certificate(0.9, pd.Timestamp("2026-01-01", tz="UTC"))

    n = count_undated(scored_of(4), annotations)
    row = build_row("v001", certificate, np.zeros(0, dtype=bool), n_undated=n).iloc[0]

    assert n == 3
    assert row["n_undated"] == 3
    assert row["summary"].startswith("nothing to test: 3 labels carry no time")
    assert pd.isna(row["agreement"])


def test_the_row_says_what_was_found() -> None:
    certificate = Certificate(0.9, pd.Timestamp("2026-01-01", tz="UTC"))
    none = np.zeros(0, dtype=bool)

    first = build_row("v001", None, none).iloc[0]
    quiet = build_row("v001", certificate, none).iloc[0]
    alarm = build_row("v001", certificate, np.zeros(20, dtype=bool), (np.ones(50, bool), np.zeros(50, bool))).iloc[0]

    assert first["summary"] == "first evaluation: no certificate to hold it against"
    assert quiet["summary"] == "no record was labelled since the certificate"
    assert not quiet["is_alarm"]
    assert alarm["is_alarm"]
    assert alarm["summary"].startswith(
        "alarm after 2 records: agreement 0.0% on 20 records labelled since; certified: "
    )
    assert "judge drift of -100.0%" in alarm["summary"]
    assert alarm["n_anchors"] == 50
