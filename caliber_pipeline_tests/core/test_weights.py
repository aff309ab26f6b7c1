"""Where labels were sampled actively, every figure that decides or is shown is the weighted one."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, cohen_kappa_score

from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.records import Annotation
from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.core.ablation import list_parts, measure_contribution
from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.calibration_history import append_evaluations
from caliber_pipeline.core.criteria import Clause, Criteria
from caliber_pipeline.core.optimized_criteria import build_row
from caliber_pipeline.core.selection_bias import correct_best
from caliber_pipeline.core.stopping import Decision
from caliber_pipeline.core.weights import inclusion_weights
from caliber_pipeline_tests.api.clause_judge import make_flawed_rows, make_session
from caliber_pipeline_tests.core import scored_rows
from caliber_pipeline_tests.core.test_optimized_criteria import START

RNG = np.random.default_rng(7)
N = 60
HUMAN = RNG.integers(0, 2, N).astype(np.int8)
JUDGE, OTHER = (np.where(RNG.random(N) < share, 1 - HUMAN, HUMAN).astype(np.int8) for share in (0.2, 0.4))
WEIGHTS = RNG.uniform(1, 9, N)


def scored(llm: NDArray[np.int8] = JUDGE, split: str = "dev") -> pd.DataFrame:
    return scored_rows.scored(HUMAN, llm, WEIGHTS, split=split)


def kappa(llm: NDArray[np.int8]) -> float:
    return float(cohen_kappa_score(HUMAN, llm, sample_weight=WEIGHTS))


def test_weights_are_one_on_average_and_none_where_all_are_equal() -> None:
    weights = inclusion_weights(scored())
    assert weights is not None
    assert weights.mean() == pytest.approx(1)
    assert weights / weights[0] == pytest.approx(WEIGHTS / WEIGHTS[0])
    half = inclusion_weights(
        scored().assign(weight=[float("nan"), 2.0] * (N // 2))
    )  # without a probability: surely labelled
    assert half is not None
    assert half[1] == pytest.approx(2 * half[0])
    assert inclusion_weights(scored().assign(weight=4.0)) is None
    assert inclusion_weights(scored().assign(weight=None)) is None
    assert inclusion_weights(scored().drop(columns="weight")) is None


def test_the_history_shows_the_figures_of_the_metrics() -> None:
    metrics = compute_alignment_metrics(scored())
    decision = Decision("baseline", "why", None, "v001", None)
    row = build_row("v001", Criteria(criteria="x"), decision, None, None, None, START)
    names = ("records_fingerprint", "annotations_fingerprint", "criteria_fingerprint")
    for frame in (metrics, row):
        frame.attrs = {"evaluated_at": "2026-01-05T06:00:00+00:00", **dict.fromkeys(names, "f")}
    history = append_evaluations(None, {"v001": metrics}, {"v001": row}).iloc[0]
    assert history["dev_cohen_kappa"] == pytest.approx(kappa(JUDGE), abs=1e-12)
    assert history["dev_accuracy"] == pytest.approx(accuracy_score(HUMAN, JUDGE, sample_weight=WEIGHTS), abs=1e-12)
    assert history["dev_true_positives"] == int((HUMAN & JUDGE).sum())  # counts stay counts


def test_the_best_of_several_is_so_by_weight() -> None:
    best = correct_best(HUMAN, np.stack([OTHER, JUDGE]), np.arange(N), inclusion_weights(scored()))
    assert best is not None
    assert best.position == 1
    assert best.kappa == pytest.approx(kappa(JUDGE), abs=1e-12)


def test_a_clause_contributes_by_weight() -> None:
    part = list_parts(Criteria(criteria="x", clauses=(Clause(text="reject a"),)))[0]
    without = pd.DataFrame({"record_id": [f"r{i}" for i in range(N)], "llm_score": OTHER})
    found = measure_contribution(part, scored(split="train"), without)
    assert found.change == pytest.approx(kappa(OTHER) - kappa(JUDGE), abs=1e-12)


def test_a_session_shows_the_value_that_its_interval_is_about() -> None:
    session: CalibrationSession = make_session(make_flawed_rows(40))
    rows = [
        {"record_id": each.record_id, "score": each.human_score, "inclusion_probability": 0.9 if i % 2 else 0.2}
        for i, each in enumerate(session.records)
    ]
    manager = AnnotationManager(session.records, [Annotation.model_validate(row) for row in rows])
    session._content.manager = manager
    result = session.evaluate_sync("be right")
    accuracy = result.metrics.accuracy
    assert accuracy is not None
    # the judge accepts all; people accept every other, each with a weight of 1 / 0.9 against 1 / 0.2
    assert accuracy == pytest.approx((1 / 0.9) / (1 / 0.9 + 1 / 0.2))
    interval = result.interval("accuracy")
    assert interval is not None
    assert interval[0] <= accuracy <= interval[1]
    assert result.metrics.cells == (20, 0, 20, 0)
