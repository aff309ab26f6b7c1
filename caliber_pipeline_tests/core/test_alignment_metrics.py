from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core.agreement import CELLS, ConfusionMatrix
from caliber_pipeline.core.alignment_metrics import (
    cell_sample,
    compute_alignment_metrics,
    confusion_matrix,
    label_verdict,
    measure_agreement,
    metric_row,
    metric_value,
)
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.human_ceiling import compute_people_metrics
from caliber_pipeline.core.intervals import proportion_interval

DATASETS = Path(__file__).parents[3] / "shared" / "datasets"


def scored_frame(human: Sequence[int], llm: Sequence[int | None], **columns: object) -> pd.DataFrame:
    n = len(human)
    frame = {
        "record_id": [f"r{i}" for i in range(n)],
        "split": ["dev"] * n,
        "human_score": pd.array(human, dtype="int8[pyarrow]"),
        "llm_score": pd.array(llm, dtype="int8[pyarrow]"),
        "is_example": [False] * n,
        "status": ["failed" if score is None else "scored" for score in llm],
        **columns,
    }
    return pd.DataFrame(frame)


def test_records_without_a_verdict_and_examples_are_counted_but_not_scored() -> None:
    scored = scored_frame([1, 1, 0, 0, 1], [1, None, 0, 1, 1], is_example=[False] * 4 + [True])

    metrics = compute_alignment_metrics(scored)

    assert confusion_matrix(metrics, "dev") == ConfusionMatrix(1, 1, 1, 0)
    assert metric_value(metrics, "dev", "n_failed") == 1
    assert metric_value(metrics, "dev", "n_examples") == 1
    assert metric_value(metrics, "dev", "coverage") == 3 / 4
    assert metric_value(metrics, "dev", "accuracy") == pytest.approx(2 / 3)


def test_copies_of_records_in_their_groups_do_not_narrow_the_interval_of_coverage() -> None:
    human = [1, 0] * 30
    llm = [1.0] * 54 + [np.nan] * 6

    def coverage(human: list[int], llm: list[float], groups: list[int] | None) -> list[float]:
        row = measure_agreement(human, llm, groups=groups).loc["coverage", ["value", "ci_low", "ci_high"]]
        return list(map(float, row))

    single = coverage(human, llm, None)
    assert coverage(human, llm, list(range(60))) == single
    assert coverage(human * 5, llm * 5, list(range(60)) * 5) == pytest.approx(single)
    low, high = (float(end) for end in proportion_interval(270, 300))
    assert single[2] - single[1] > 2 * (high - low)  # what it would be if groups were ignored


def test_columns_that_are_encoded_already_are_read_as_they_are() -> None:
    scored = scored_frame([1, 1, 0, 0], [1, 0, 0, 1], split=["dev", "train", "dev", "test"], group=["a", "b", "a", "c"])
    encoded = scored.astype({"split": "category", "group": "category"})

    pd.testing.assert_frame_equal(compute_alignment_metrics(encoded), compute_alignment_metrics(scored))


def test_every_split_has_every_figure_and_undefined_ones_a_reason() -> None:
    metrics = compute_alignment_metrics(scored_frame([1, 1], [1, 1]))

    assert set(metrics["split"]) == {"train", "dev", "test", "all"}
    assert metrics.groupby("split")["metric"].agg(set).map(len).nunique() == 1
    undefined = metrics[metrics["value"].isna()]
    assert undefined["reason"].notna().all()
    assert undefined["ci_low"].isna().all()
    assert metric_value(metrics, "dev", "cohen_kappa") is None
    assert metric_value(metrics, "train", "accuracy") is None


def test_a_frame_without_rows_has_no_value() -> None:
    metrics = compute_alignment_metrics(scored_frame([], []))

    assert metric_value(metrics, "all", "accuracy") is None


def test_an_unknown_figure_is_refused() -> None:
    with pytest.raises(KeyError, match="0 figures 'kappa' on 'dev'"):
        metric_value(compute_alignment_metrics(scored_frame([1], [1])), "dev", "kappa")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown values \['validation'\]"):
        compute_alignment_metrics(scored_frame([1], [1], split=["validation"]))


def test_intervals_hold_the_value_and_input_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, 200).tolist()
    llm: list[int | None] = [int(h if rng.random() < 0.8 else 1 - h) for h in human]
    scored = scored_frame(human, llm, split=rng.choice(["train", "dev", "test"], 200))

    metrics = compute_alignment_metrics(scored)

    with_interval = metrics[metrics["ci_low"].notna()]
    assert (with_interval["ci_low"] <= with_interval["value"]).all()
    assert (with_interval["value"] <= with_interval["ci_high"]).all()
    pd.testing.assert_frame_equal(metrics, compute_alignment_metrics(scored.sample(frac=1, random_state=1)))


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared data sets are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "expected", "accuracy", "kappa"),
    [
        # From the data sets' README: accuracy, kappa, TN, FP, FN, TP.
        ("booookscore_sample.csv", ConfusionMatrix(183, 21, 52, 31), 0.7108, 0.1578),
        ("openqa_eval_sample.csv", ConfusionMatrix(148, 105, 18, 29), 0.8433, 0.6805),
    ],
)
def test_figures_of_the_shared_data_sets(name: str, expected: ConfusionMatrix, accuracy: float, kappa: float) -> None:
    data = pd.read_csv(DATASETS / name)

    metrics = compute_alignment_metrics(scored_frame(data["human_score"].tolist(), data["llm_score"].tolist()))

    assert confusion_matrix(metrics, "all") == expected
    assert metric_value(metrics, "all", "accuracy") == pytest.approx(accuracy, abs=5e-5)
    assert metric_value(metrics, "all", "cohen_kappa") == pytest.approx(kappa, abs=5e-5)


def test_copies_of_a_record_in_one_group_do_not_narrow_the_interval() -> None:
    human, llm = [1] * 20 + [0] * 20, [1] * 16 + [0] * 20 + [1] * 4
    single = scored_frame(human, llm, group=[f"g{i}" for i in range(40)])
    copied = pd.concat([single] * 4)

    def width(metrics: pd.DataFrame) -> float:
        row = metric_row(metrics, "dev", "cohen_kappa")
        return float(row["ci_high"] - row["ci_low"])

    assert width(compute_alignment_metrics(copied)) == pytest.approx(width(compute_alignment_metrics(single)), rel=0.03)


def test_groups_of_one_record_change_nothing() -> None:
    human, llm = [1] * 20 + [0] * 20, [1] * 16 + [0] * 20 + [1] * 4
    plain = compute_alignment_metrics(scored_frame(human, llm))

    grouped = compute_alignment_metrics(scored_frame(human, llm, group=[f"g{i}" for i in range(40)]))

    pd.testing.assert_frame_equal(plain, grouped)


def test_few_groups_are_said_to_be_few() -> None:
    scored = scored_frame([1, 1, 0, 0] * 6, [1, 0, 0, 0] * 6, group=["a", "b", "c"] * 8)

    row = metric_row(compute_alignment_metrics(scored), "dev", "accuracy")

    assert row["reason"] == "only 3 groups: the interval may be too narrow"
    assert row["value"] == 0.75


def test_weights_undo_active_sampling() -> None:
    # Three agreeing records stand for 10 each, two disagreeing ones for 1 each: 30 of 32 agree.
    scored = scored_frame([1, 1, 0, 1, 0], [1, 1, 0, 0, 1], weight=[10.0, 10.0, 10.0, 1.0, None])

    metrics = compute_alignment_metrics(scored)

    assert metric_value(metrics, "dev", "accuracy") == pytest.approx(30 / 32)
    assert metric_value(metrics, "dev", "true_positives") == 2


def test_weighted_figures_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    n = 300
    scored = scored_frame(
        rng.integers(0, 2, n).tolist(),
        rng.integers(0, 2, n).tolist(),
        weight=1 / rng.uniform(0.1, 1, n),
        group=[f"g{i}" for i in rng.integers(0, 60, n)],
        vote_share=rng.choice([0.6, 0.8, 1.0], n),
    )

    shuffled = compute_alignment_metrics(scored.sample(frac=1, random_state=3))

    pd.testing.assert_frame_equal(compute_alignment_metrics(scored), shuffled)


def test_slices_add_rows_and_small_ones_are_marked() -> None:
    scored = scored_frame([1, 0] * 40, [1, 0] * 40, language=["en"] * 60 + ["de"] * 18 + [None] * 2)

    metrics = compute_alignment_metrics(scored, slice_columns=["language"])

    rows = metrics[(metrics["split"] == "dev") & (metrics["metric"] == "accuracy")]
    assert rows.set_index(rows["slice_value"].fillna("whole"))["n"].to_dict() == {
        "whole": 80,
        "en": 60,
        "de": 18,
        "(none)": 2,
    }
    reasons = rows.set_index(rows["slice_value"].fillna("whole"))["reason"]
    assert reasons["de"] == "a small slice of 18 records: it describes, and decides nothing"
    assert pd.isna(reasons["en"])


def test_a_slice_column_that_is_missing_or_an_identifier_is_refused() -> None:
    scored = scored_frame([1] * 101, [1] * 101)

    with pytest.raises(InputError, match="slice column 'tone' is missing"):
        compute_alignment_metrics(scored, slice_columns=["tone"])
    with pytest.raises(InputError, match="slice column 'record_id' has 101 values"):
        compute_alignment_metrics(scored, slice_columns=["record_id"])


def test_few_labels_say_how_many_are_missing() -> None:
    few = compute_alignment_metrics(scored_frame([1, 0] * 10, [1, 0] * 8 + [0, 1] * 2))
    many = compute_alignment_metrics(scored_frame([1, 0] * 200, [1, 0] * 160 + [0, 1] * 40))

    assert label_verdict(few, "dev").startswith("not enough labels to say: about ")
    assert metric_value(many, "dev", "labels_missing") == 0
    assert label_verdict(many, "dev").startswith("moderate to substantial agreement: kappa 0.60 (0.5")


def test_the_missing_labels_are_enough_once_they_are_there() -> None:
    few = scored_frame([1, 0] * 15, [1, 0] * 12 + [0, 1] * 3)
    missing = metric_value(compute_alignment_metrics(few), "dev", "labels_missing")
    assert missing is not None

    # As many records more, of the same kinds
    times = int(np.ceil(1 + missing / 30))
    more = compute_alignment_metrics(scored_frame(*(few[c].tolist() * times for c in ("human_score", "llm_score"))))

    assert metric_value(more, "dev", "labels_missing") == 0


@pytest.mark.parametrize(("human", "llm"), [([], []), ([1] * 30, [1] * 30)])
def test_missing_labels_are_named_where_kappa_is_undefined(human: list[int], llm: list[int | None]) -> None:
    metrics = compute_alignment_metrics(scored_frame(human, llm))

    # Half of each verdict and no agreement: the variance of kappa is 1, so (1.96 / 0.2) squared = 96.04 labels.
    expected = 97 if not human else 1
    assert (metric_value(metrics, "dev", "labels_missing") or 0) >= expected


def test_standardised_kappa_is_kappa_where_half_are_accepted() -> None:
    metrics = compute_alignment_metrics(scored_frame([1] * 90 + [0] * 10, [1] * 81 + [0] * 9 + [0] * 8 + [1] * 2))

    # TPR 0.9, TNR 0.8: at prevalence 1/2 chance agreement is 1/2 and agreement 0.85, so (0.85 - 0.5) / 0.5 = 0.7.
    assert metric_value(metrics, "dev", "standardised_kappa") == pytest.approx(0.7, abs=1e-12)
    # po = 0.89, accept rate 0.83, pe = 0.9 * 0.83 + 0.1 * 0.17 = 0.764, kappa = 0.126 / 0.236
    assert metric_value(metrics, "dev", "cohen_kappa") == pytest.approx(0.126 / 0.236, abs=1e-12)


def test_repeat_stability_is_the_mean_share_of_votes_for_the_verdict() -> None:
    metrics = compute_alignment_metrics(scored_frame([1, 1, 0, 0], [1, 0, 0, None], vote_share=[1.0, 0.6, None, 0.9]))

    assert metric_value(metrics, "dev", "repeat_stability") == pytest.approx(0.8)
    assert metric_row(metrics, "dev", "repeat_stability")["n"] == 2


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1]), st.sampled_from([0, 1, None]), st.booleans(), st.sampled_from(["train", "test"])
        ),
        max_size=30,
    )
)
def test_every_record_is_in_one_cell_or_counted_as_failed_or_example(
    rows: list[tuple[int, int | None, bool, str]],
) -> None:
    split = [row[3] for row in rows]
    metrics = compute_alignment_metrics(
        scored_frame(
            [row[0] for row in rows], [row[1] for row in rows], is_example=[row[2] for row in rows], split=split
        )
    )

    for part, size in (("all", len(rows)), ("train", split.count("train")), ("test", split.count("test"))):
        counts = [metric_value(metrics, part, name) for name in (*CELLS, "n_failed", "n_examples")]
        assert sum(count or 0 for count in counts) == size


def test_people_are_held_against_each_other_on_the_records_of_each_split() -> None:
    # dev: ann and ben agree on four of four; test: they agree on none of two; r6 has one annotator only.
    ann, ben = [1, 0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 0, 1]
    annotations = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in (*range(7), *range(6))],
            "annotator": ["ann"] * 7 + ["ben"] * 6,
            "score": ann + ben,
            "created_at": pd.NaT,
            "is_gold": False,
        }
    )
    verdicts = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(7)],
            "llm_score": pd.array([1, 0, 0, 0, 1, 1, None], dtype="int8[pyarrow]"),
            "is_example": [False] * 7,
            "split": ["dev"] * 4 + ["test"] * 3,
        }
    )

    people = compute_people_metrics(annotations, verdicts)

    assert metric_value(people, "dev", "human_human_kappa") == 1
    # dev: the judge accepts one of two accepted and rejects both others: po 3/4, pe 1/2
    assert metric_value(people, "dev", "judge_annotator_kappa") == pytest.approx(0.5)
    assert metric_row(people, "test", "human_human_kappa")["value"] == -1
    assert metric_value(people, "test", "judge_consensus_kappa") is None
    assert metric_row(people, "all", "human_human_kappa")["n"] == 6
    assert metric_row(people, "train", "human_human_kappa")["reason"] == "no record has verdicts of two annotators"


def test_figures_from_the_verdicts_alone_are_those_of_a_split() -> None:
    rng = np.random.default_rng(0)
    human = (rng.random(200) < 0.7).astype(int)
    llm = np.where(rng.random(200) < 0.8, human, 1 - human).astype(float)
    llm[:5] = np.nan
    group, weight = [f"g{i // 4}" for i in range(200)], rng.choice([1.0, 3.0], 200)
    scored = scored_frame(human.tolist(), [None if np.isnan(x) else int(x) for x in llm])

    for extra in ({}, {"group": group}, {"weight": weight}, {"group": group, "weight": weight}):
        table = measure_agreement(human, llm, groups=extra.get("group"), weights=extra.get("weight"))  # type: ignore[arg-type]
        metrics = compute_alignment_metrics(scored.assign(**extra))
        columns = ["value", "ci_low", "ci_high", "n"]
        for name in ("cohen_kappa", "accuracy", "lift", "coverage", "labels_missing", "true_positives", "n_failed"):
            figures = table.loc[name, columns].to_numpy(dtype=float, na_value=np.nan)
            expected = metric_row(metrics, "dev", name)[columns].to_numpy(dtype=float, na_value=np.nan)
            np.testing.assert_array_equal(figures, expected)


def test_verdicts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"the arrays have \[3, 2\] entries"):
        measure_agreement([1, 0, 1], [1, 0])
    with pytest.raises(InputError, match=r"judge scores: .* give a flat list"):
        measure_agreement([1, 0], [1, 0.5])
    with pytest.raises(InputError, match="a weight is not above 0"):
        measure_agreement([1, 0], [1, 0], weights=[1, 0])
    assert measure_agreement([], [])["value"].dropna().index.tolist() == [
        "labels_missing", *CELLS, "n_failed",
    ]  # fmt: skip


def test_the_ceiling_counts_groups_once_and_weighs_records_by_their_inclusion() -> None:
    # 60 records: of the first 40 people differ on every second, of the others, sampled with 1/4, on none.
    n, hard = 60, 40
    scores = {"ann": [1, 0] * 30, "ben": [1, 1, 0, 0] * 10 + [1, 0] * 10}
    annotations = pd.concat(
        [
            pd.DataFrame({"record_id": [f"r{i:02d}" for i in range(n)], "annotator": name, "score": verdicts})
            for name, verdicts in scores.items()
        ]
    )
    chance = annotations["record_id"].map({f"r{i:02d}": 1.0 if i < hard else 0.25 for i in range(n)})
    verdicts = pd.DataFrame(
        {
            "record_id": [f"r{i:02d}" for i in range(n)],
            "llm_score": pd.array([1, 0] * 30, dtype="int8[pyarrow]"),
            "is_example": False,
            "split": "dev",
        }
    )

    single = metric_row(compute_people_metrics(annotations, verdicts), "dev", "human_human_kappa")
    weighted = compute_people_metrics(annotations.assign(inclusion_probability=chance), verdicts)
    grouped = compute_people_metrics(annotations, verdicts.assign(group=[f"g{i // 6}" for i in range(n)]))

    assert single["value"] == pytest.approx(1 / 3)
    # 20 of 40 + 4 * 20 records differ: 1 - (20 / 120) / 0.5
    assert metric_value(weighted, "dev", "human_human_kappa") == pytest.approx(2 / 3)
    row = metric_row(grouped, "dev", "human_human_kappa")
    assert row["value"] == pytest.approx(single["value"])
    assert row["reason"] == "only 10 groups: the interval may be too narrow"


def test_repeat_stability_weighs_records_and_counts_groups_once() -> None:
    # 40 stable records drawn with 1/5 and 10 shaky ones drawn surely: (200 * 1 + 10 * 0.6) / 210
    shares = [1.0] * 40 + [0.6] * 10
    scored = scored_frame([1] * 50, [1] * 50, vote_share=shares)

    weighted = compute_alignment_metrics(scored.assign(weight=[5.0] * 40 + [1.0] * 10))
    assert metric_value(weighted, "dev", "repeat_stability") == pytest.approx(206 / 210)

    copies = pd.concat([scored.assign(group=[f"g{i}" for i in range(50)])] * 4, ignore_index=True)
    single = metric_row(compute_alignment_metrics(scored), "dev", "repeat_stability")
    copied = metric_row(compute_alignment_metrics(copies), "dev", "repeat_stability")
    assert copied["ci_high"] - copied["ci_low"] >= single["ci_high"] - single["ci_low"]
    assert metric_row(compute_alignment_metrics(scored.assign(vote_share=None)), "dev", "repeat_stability")["n"] == 0


def test_the_units_of_a_split_are_its_groups() -> None:
    scored = scored_frame([1, 1, 0, 0], [1, 0, 0, 0], group=["a", "a", "b", "b"], split=["dev", "dev", "dev", "test"])

    sample = cell_sample(scored, "dev")

    assert sample.n_units == 2
    assert sample.cells.tolist() == [1, 1, 0, 1]


def test_columns_in_several_chunks_are_read_as_one() -> None:
    scored = scored_frame([1, 0, 1], [1, 0, 0])
    chunked = scored.assign(
        llm_score=pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([[1], [0, 0]], pa.int8())))
    )

    pd.testing.assert_frame_equal(compute_alignment_metrics(chunked), compute_alignment_metrics(scored))
