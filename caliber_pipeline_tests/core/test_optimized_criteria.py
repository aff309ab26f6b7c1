"""Decisions: what a version has to beat, who is champion, and when the loop ends."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from caliber_pipeline.core import optimized_criteria as core
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.gate import Comparison

PERSON = Criteria(criteria="x")
PROPOSED = Criteria(criteria="x", base="v001", round=1, author="optimizer")
SETTINGS = core.LoopSettings(kappa_target=0.6, max_iterations=3)
DATA = "r:a"
START = datetime(2026, 1, 1, tzinfo=UTC)


def comparison(p: float = 0.001, kappa: float = 0.5, base: float = 0.1, n_groups: int = 100) -> Comparison:
    return Comparison(base, kappa, p, 100, n_groups, n_groups, 20, 3, has_lost_coverage=False, n_differing_groups=23)


def row(version: str, decision: str, champion: str, base: str | None = None, at: int = 0) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "criteria_version": [version],
            "decision": [decision],
            "champion": [champion],
            "base": pd.array([base], dtype="string[pyarrow]"),
            "round": [0 if base is None else 1],
            "decided_at": [START + timedelta(hours=at)],
        }
    )
    frame.attrs = {"records_fingerprint": "r", "annotations_fingerprint": "a"}
    return frame


FIRST = {"v001": row("v001", "baseline", "v001")}


def test_the_champion_is_that_of_the_latest_decision() -> None:
    assert core.current_champion({}) is None
    decided = {
        **FIRST,
        "v003": row("v003", "rejected", "v002", "v002", 2),
        "v002": row("v002", "promoted", "v002", "v001", 1),
    }
    assert core.current_champion(decided) == "v002"


def test_a_version_has_to_beat_the_base_that_it_names_else_the_champion() -> None:
    assert core.select_base("v001", PERSON, ["v001"], None) is None
    assert core.select_base("mine", PERSON, ["v001", "mine"], "v001") == "v001"
    assert core.select_base("v002", PROPOSED, ["v001", "v002"], "v009") == "v001"
    assert core.select_base("v001", PERSON, ["v001"], "v001") is None
    with pytest.raises(CriteriaError, match="'v002' name the base 'v001', which is no other version"):
        core.select_base("v002", PROPOSED, ["v002"], None)


def test_only_a_promotion_changes_the_champion() -> None:
    won = core.decide_version("v002", "v001", "v001", comparison(), None, SETTINGS)
    assert (won.decision, won.champion) == ("promoted", "v002")
    lost = core.decide_version("v002", "v001", "v001", comparison(p=0.4), None, SETTINGS)
    assert (lost.decision, lost.champion) == ("rejected", "v001")
    first = core.decide_version("v001", None, None, None, None, SETTINGS)
    assert (first.decision, first.champion) == ("baseline", "v001")


def test_a_winner_keeps_its_decision_when_it_is_evaluated_again_and_a_loser_gets_another_chance() -> None:
    winner = row("v002", "promoted", "v002", "v001")
    again = core.decide_version("v002", "v001", "v002", comparison(p=0.9), winner, SETTINGS)
    assert (again.decision, again.champion) == ("promoted", "v002")
    loser = row("v002", "rejected", "v001", "v001")
    assert core.decide_version("v002", "v001", "v001", comparison(), loser, SETTINGS).decision == "promoted"


def stop(
    criteria: Criteria = PERSON,
    decision: str = "baseline",
    kappa: float | None = 0.1,
    n_groups: int = 100,
    decided: dict[str, pd.DataFrame] | None = None,
    settings: core.LoopSettings = SETTINGS,
) -> str | None:
    made = core.Decision(decision, "", criteria.base, "v001", None)
    return core.find_stop(made, criteria, kappa, n_groups, decided or {}, DATA, settings)


def test_the_loop_goes_on_where_nothing_speaks_against_it() -> None:
    assert stop() is None
    assert stop(PROPOSED, "rejected", decided=FIRST) is None
    assert stop(kappa=None) is None


def test_the_loop_ends_for_a_reason() -> None:
    assert stop(kappa=0.6) == "aligned: kappa on dev 0.600 reaches the target 0.6"
    assert stop(n_groups=6) == "too few groups: with 6 of the 20 needed no proposal could be decided upon"
    off = core.LoopSettings(max_iterations=0)
    assert stop(settings=off) == "proposals are switched off (max_iterations is 0)"
    last = PROPOSED.model_copy(update={"round": 3})
    assert stop(last, "promoted") == "all 3 rounds are used up"


def test_two_failures_over_the_champion_on_the_same_data_end_the_loop() -> None:
    failed = {**FIRST, "v002": row("v002", "rejected", "v001", "v001", 1)}
    second = PROPOSED.model_copy(update={"round": 2})
    assert stop(second, "rejected", decided=failed) == "no improvement 2 times over v001"
    failed["v002"].attrs["annotations_fingerprint"] = "other"
    assert stop(second, "rejected", decided=failed) is None


def test_test_is_reported_for_people_and_winners_alone() -> None:
    assert core.is_test_reported(PERSON, "rejected")
    assert core.is_test_reported(PROPOSED, "promoted")
    assert not core.is_test_reported(PROPOSED, "rejected")
    assert not core.is_test_reported(PROPOSED, "undecided")


def test_the_row_withholds_a_sealed_test() -> None:
    scored = pd.DataFrame(
        {"split": ["test"] * 3 + ["dev"], "human_score": [1, 0, 0, 1], "llm_score": [1, 1, 0, 1], "is_example": False}
    )
    made = core.Decision("rejected", "why", "v001", "v001", comparison())
    sealed = core.build_row("v002", PROPOSED, made, scored, None, None, "stop", START).iloc[0]
    assert pd.isna(sealed["test_true_positives"])
    assert not sealed["is_proposed"]
    assert sealed["proposal_reason"] == "stop"
    shown = core.build_row("v001", PERSON, made, scored, None, None, "stop", START).iloc[0]
    cells = [shown[f"test_{c}"] for c in ("true_positives", "true_negatives", "false_positives", "false_negatives")]
    assert cells == [1, 1, 1, 0]
