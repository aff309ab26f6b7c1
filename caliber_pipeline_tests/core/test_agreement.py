import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core.agreement import ConfusionMatrix, interpret_kappa, kappa_from_rates, point_metrics
from caliber_pipeline.core.errors import InputError

COUNT = st.integers(min_value=0, max_value=1000)
CELLS = st.tuples(COUNT, COUNT, COUNT, COUNT)


@pytest.mark.parametrize(
    "scores", [[1, 0, 1], np.array([1.0, 0.0, 1.0]), np.array([True, False, True]), np.array([1, 0, 1], np.int8)]
)
def test_scores_may_be_of_any_kind(scores: object) -> None:
    assert ConfusionMatrix.from_scores(scores, [1, 1, 1]) == ConfusionMatrix(2, 0, 1, 0)  # type: ignore[arg-type]
    assert ConfusionMatrix.from_scores([], []).accuracy is None


@pytest.mark.parametrize(
    "scores", [[1, 2, 1], [1, 0, float("nan")], [1, 0, pd.NA], ["1", "0", "1"], np.array([1, -1, 1], np.int8), [[1, 0]]]
)
def test_other_scores_are_refused(scores: object) -> None:
    with pytest.raises(InputError, match=r"human scores: .*; give a flat list or array of 0 and 1"):
        ConfusionMatrix.from_scores(scores, [1, 1, 1])  # type: ignore[arg-type]


def test_cells_are_counted_from_scores() -> None:
    human = np.array([1, 1, 1, 0, 0, 0, 0], dtype=np.int8)
    llm = np.array([1, 1, 0, 0, 0, 0, 1], dtype=np.int8)

    assert ConfusionMatrix.from_scores(human, llm) == ConfusionMatrix(2, 3, 1, 1)


def test_scores_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="2 human scores and 3 judge scores"):
        ConfusionMatrix.from_scores(np.ones(2, np.int8), np.ones(3, np.int8))


def test_figures_of_a_worked_example() -> None:
    # tp 20, tn 15, fp 5, fn 10 (n 50): po = 0.7, people accept 30/50 = 0.6, the judge 25/50 = 0.5.
    matrix = ConfusionMatrix(20, 15, 5, 10)

    assert matrix.n == 50
    assert matrix.accuracy == pytest.approx(0.7, abs=1e-12)
    assert matrix.precision == pytest.approx(20 / 25, abs=1e-12)
    assert matrix.recall == pytest.approx(20 / 30, abs=1e-12)
    assert matrix.specificity == pytest.approx(15 / 20, abs=1e-12)
    assert matrix.f1_score == pytest.approx(2 * 0.8 * (2 / 3) / (0.8 + 2 / 3), abs=1e-12)
    assert matrix.balanced_accuracy == pytest.approx((2 / 3 + 0.75) / 2, abs=1e-12)
    # pe = 0.6 * 0.5 + 0.4 * 0.5 = 0.5, kappa = 0.2 / 0.5
    assert matrix.cohen_kappa == pytest.approx(0.4, abs=1e-12)
    # q = 0.55, pe = 2 * 0.55 * 0.45 = 0.495, AC1 = 0.205 / 0.505
    assert matrix.gwet_ac1 == pytest.approx(0.205 / 0.505, abs=1e-12)
    # 20 * 15 less 5 * 10, over the root of the product of the margins 30, 20, 25 and 25
    assert matrix.mcc == pytest.approx(250 / (600 * 625) ** 0.5, abs=1e-12)
    assert matrix.prevalence == pytest.approx(0.6, abs=1e-12)
    assert matrix.accept_rate == pytest.approx(0.5, abs=1e-12)
    assert matrix.bias == pytest.approx(-0.1, abs=1e-12)
    assert matrix.majority_baseline == pytest.approx(0.6, abs=1e-12)
    assert matrix.lift == pytest.approx(0.1, abs=1e-12)


def test_a_constant_judge_has_kappa_0_and_no_mcc() -> None:
    matrix = ConfusionMatrix(5, 0, 3, 0)

    assert matrix.cohen_kappa == 0
    assert matrix.mcc is None


def test_one_and_the_same_verdict_throughout_has_no_kappa() -> None:
    matrix = ConfusionMatrix(5, 0, 0, 0)

    assert matrix.cohen_kappa is None
    assert matrix.specificity is None
    assert matrix.balanced_accuracy is None
    assert matrix.accuracy == 1


def test_an_empty_table_has_no_figure() -> None:
    assert set(ConfusionMatrix(0, 0, 0, 0).figures.values()) == {None}


@settings(max_examples=30)
@given(CELLS)
def test_figures_agree_with_sklearn(cells: tuple[int, int, int, int]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    tp, tn, fp, fn = cells
    human, llm, weight = [1, 0, 0, 1], [1, 0, 1, 0], [tp, tn, fp, fn]
    if min(tp + fn, tn + fp, tp + fp, tn + fn) == 0:
        return
    figures = ConfusionMatrix(*cells).figures

    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(human, llm, sample_weight=weight), abs=1e-9)
    assert figures["precision"] == pytest.approx(metrics.precision_score(human, llm, sample_weight=weight), abs=1e-9)
    assert figures["recall"] == pytest.approx(metrics.recall_score(human, llm, sample_weight=weight), abs=1e-9)
    assert figures["f1_score"] == pytest.approx(metrics.f1_score(human, llm, sample_weight=weight), abs=1e-9)
    assert figures["mcc"] == pytest.approx(metrics.matthews_corrcoef(human, llm, sample_weight=weight), abs=1e-9)
    assert figures["cohen_kappa"] == pytest.approx(
        metrics.cohen_kappa_score(human, llm, sample_weight=weight), abs=1e-9
    )
    assert figures["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(human, llm, sample_weight=weight), abs=1e-9
    )


@pytest.mark.parametrize(
    ("cells", "ac1", "kappa"),
    [
        # irrCAC 0.4.4, CAC(...).gwet() and .conger() (Cohen's kappa for two raters) on the four cells of the data sets
        ((148, 105, 18, 29), 0.69297433831615, 0.68053289831430),
        ((183, 21, 52, 31), 0.56136005818825, 0.15776261358413),
    ],
)
def test_gwets_coefficient_agrees_with_irrcac(cells: tuple[int, int, int, int], ac1: float, kappa: float) -> None:
    assert ConfusionMatrix(*cells).gwet_ac1 == pytest.approx(ac1, abs=1e-12)
    assert ConfusionMatrix(*cells).cohen_kappa == pytest.approx(kappa, abs=1e-12)


@given(st.lists(CELLS, max_size=5))
def test_many_tables_at_once_give_what_each_gives(tables: list[tuple[int, int, int, int]]) -> None:
    together = point_metrics(np.array(tables, dtype=np.float64).reshape(-1, 4))

    for i, cells in enumerate(tables):
        for name, value in point_metrics(cells).items():
            assert np.array_equal(together[name][i], value, equal_nan=True)


def test_kappa_from_the_observed_rates_and_prevalence_is_the_observed_kappa() -> None:
    matrix = ConfusionMatrix(183, 21, 52, 31)

    kappa = kappa_from_rates(183 / 214, 21 / 73, 214 / 287)
    assert float(kappa) == pytest.approx(matrix.cohen_kappa, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "undefined"),
        (-0.01, "poor"),
        (0.0, "slight"),
        (0.2, "slight"),
        (0.4, "fair"),
        (0.41, "moderate"),
        (0.6, "moderate"),
        (0.61, "substantial"),
        (0.81, "almost perfect"),
        (1.0, "almost perfect"),
    ],
)
def test_kappa_in_words(value: float | None, words: str) -> None:
    assert interpret_kappa(value) == words
