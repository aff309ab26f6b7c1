"""The lower bound of kappa that a stop asks for, and the thresholds at which the loop ends."""

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.human_ceiling import compute_people_metrics
from caliber_pipeline.core.intervals import CellSample, metric_intervals
from caliber_pipeline.core.stopping import (
    TOLERANCE,
    Alignment,
    Decision,
    LoopSettings,
    find_stop,
    kappa_lower_bound,
    measure_alignment,
)


def frame(n: int, group_size: int = 1, weight: list[float] | None = None) -> pd.DataFrame:
    human = np.arange(n) % 2
    llm = np.where(np.arange(n) % 10 == 3, 1 - human, human)
    return pd.DataFrame(
        {
            "split": ["dev"] * n,
            "group": [f"g{i // group_size}" for i in range(n)],
            "human_score": human,
            "llm_score": llm,
            "is_example": False,
            "weight": weight or [1.0] * n,
        }
    )


def test_single_records_have_the_bound_of_their_four_counts() -> None:
    # Every tenth verdict is a false negative: 40 accepts right, 50 rejects right, 10 accepts rejected, of 100.
    expected = metric_intervals(CellSample.from_counts([40, 50, 0, 10]), confidence=0.9)["cohen_kappa"][0]
    assert kappa_lower_bound(frame(100)) == pytest.approx(expected)


def test_groups_and_weights_make_it_less_sure_and_order_does_not_count() -> None:
    single = kappa_lower_bound(frame(100))
    grouped = kappa_lower_bound(frame(100, group_size=10))
    weighted = kappa_lower_bound(frame(100, weight=[1.0, 5.0] * 50))
    assert single is not None
    assert grouped is not None
    assert weighted is not None
    assert weighted < single
    shuffled = frame(100, weight=[1.0, 5.0] * 50).sample(frac=1, random_state=0)
    assert kappa_lower_bound(shuffled) == weighted


def test_nothing_judged_has_no_bound_and_one_verdict_alone_has_none() -> None:
    assert kappa_lower_bound(frame(10).assign(is_example=True)) is None
    assert kappa_lower_bound(frame(10).assign(human_score=1, llm_score=1)) is None


def test_alignment_is_reached_at_the_target_the_tolerance_and_the_ceiling_themselves() -> None:
    assert Alignment(0.6, 0.6 - TOLERANCE).describe_reached(0.6) is not None
    assert Alignment(0.6, 0.6 - TOLERANCE - 1e-9).describe_reached(0.6) is None
    assert Alignment(0.4, None, 0.5, (0.5 - 2 * TOLERANCE, 0.5)).describe_reached(0.6) is not None
    assert Alignment(0.4, None, 0.5, (0.5 - 2 * TOLERANCE, 0.5 - 1e-9)).describe_reached(0.6) is None


def find(n_groups: int = 100, cost_usd: float = 0.0, decided: dict[str, pd.DataFrame] | None = None) -> str | None:
    """Whether the loop goes on after v003, the first proposal that failed over v001."""
    made = Decision("rejected", "", "v001", "v001", None)
    proposed = Criteria(criteria="x", base="v001", round=1, author="optimizer")
    settings = LoopSettings(max_cost_usd=1.0)
    return find_stop(made, proposed, Alignment(0.1), n_groups, decided or {}, "r:a", settings, cost_usd=cost_usd)


def failed_over(base: str) -> dict[str, pd.DataFrame]:
    row = pd.DataFrame({"base": [base], "decision": ["rejected"]})
    row.attrs = {"records_fingerprint": "r", "annotations_fingerprint": "a"}
    return {"v002": row}


def test_the_loop_ends_at_its_thresholds_themselves() -> None:
    assert find() is None
    assert find(n_groups=20) is None
    assert find(n_groups=19) is not None
    assert find(cost_usd=0.99) is None
    assert find(cost_usd=1.0) == "the budget is spent: 1.00 of 1.00 US dollars"


def test_only_failures_over_the_champion_itself_count() -> None:
    assert find(decided=failed_over("v001")) == "no improvement 2 times over v001"
    assert find(decided=failed_over("v000")) is None


def test_the_human_ceiling_is_known_where_two_people_judged_the_same_records() -> None:
    scored = frame(100).assign(record_id=[f"r{i}" for i in range(100)])
    names = ["record_id", "annotator", "score"]
    people = [
        (record_id, who, int(score) ^ (who == "b" and i % 5 == 0))
        for i, (record_id, score) in enumerate(zip(scored["record_id"], scored["human_score"], strict=True))
        for who in ("a", "b")
    ]
    annotations = pd.DataFrame(people, columns=names).assign(is_gold=False, created_at="2026-01-01")
    metrics = compute_alignment_metrics(scored)
    for count, is_known in ((2, True), (1, False)):
        own = annotations[annotations["annotator"].isin(["a", "b"][:count])]
        figures = compute_people_metrics(own, scored)
        alignment = measure_alignment(scored, pd.concat([metrics, figures], ignore_index=True))
        assert (alignment.ceiling is not None) is is_known
        assert (alignment.judge_with_people is not None) is is_known
    # b differs from a on every fifth record, the judge on every tenth
    both = compute_people_metrics(annotations, scored)
    ceiling = measure_alignment(scored, pd.concat([metrics, both], ignore_index=True)).ceiling
    assert ceiling == pytest.approx(0.6)  # agreement 0.8, chance 0.5: (0.8 - 0.5) / 0.5
