"""Decisions: what a version has to beat, who is champion, and when the loop ends."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from caliber_pipeline.core import optimized_criteria as core
from caliber_pipeline.core.criteria import Clause, Criteria, ExampleRef
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.gate import Comparison
from caliber_pipeline.core.stopping import Alignment, Decision, LoopSettings, find_stop

PERSON = Criteria(criteria="x")
PROPOSED = Criteria(criteria="x", base="v001", round=1, author="optimizer")
SETTINGS = LoopSettings(kappa_target=0.6, max_iterations=3)
DATA = "r:a"
START = datetime(2026, 1, 1, tzinfo=UTC)


def comparison(p: float = 0.001, kappa: float = 0.5, base: float = 0.1, n_groups: int = 100) -> Comparison:
    return Comparison(base, kappa, p, 100, n_groups, n_groups, 20, 3, has_lost_coverage=False, n_differing_groups=23)


def row(version: str, decision: str, champion: str, base: str | None = None, at: int = 0) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "criteria_version": [version],
            "decision": [decision],
            "decision_reason": ["why"],
            "is_by_hand": [False],
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


def test_a_version_evaluated_again_is_held_against_what_it_was_held_against_before() -> None:
    versions = ["v001", "v002", "mine"]
    assert core.select_base("v001", PERSON, versions, "v002", FIRST["v001"]) is None
    before = row("mine", "promoted", "mine", "v001")
    assert core.select_base("mine", PERSON, versions, "v002", before) == "v001"


def test_who_beats_an_old_base_has_to_beat_the_champion_too() -> None:
    won = core.decide_version("mine", "v001", "v002", comparison(), None, SETTINGS)
    assert core.is_challenger(won, "mine", "v002", None)
    assert not core.is_challenger(won, "mine", "v001", None)
    assert not core.is_challenger(won, "mine", "v002", row("mine", "promoted", "mine", "v001"))
    better = core.challenge(won, "v002", comparison(), SETTINGS)
    assert (better.decision, better.champion, better.base) == ("promoted", "mine", "v001")
    worse = core.challenge(won, "v002", comparison(kappa=0.0), SETTINGS)
    assert (worse.decision, worse.champion, worse.base) == ("rejected", "v002", "v001")
    assert worse.reason.startswith(f"{won.reason} over v001; over the champion v002: kappa on dev 0.100 → 0.000")


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
    assert again.reason == "evaluated again; before: why"
    loser = row("v002", "rejected", "v001", "v001")
    assert core.decide_version("v002", "v001", "v001", comparison(), loser, SETTINGS).decision == "promoted"


def stop(
    criteria: Criteria = PERSON,
    decision: str = "baseline",
    kappa: float | None = 0.1,
    n_groups: int = 100,
    decided: dict[str, pd.DataFrame] | None = None,
    settings: LoopSettings = SETTINGS,
) -> str | None:
    made = Decision(decision, "", criteria.base, "v001", None)
    return find_stop(made, criteria, kappa, n_groups, decided or {}, DATA, settings)


def test_the_loop_goes_on_where_nothing_speaks_against_it() -> None:
    assert stop() is None
    assert stop(PROPOSED, "rejected", decided=FIRST) is None
    assert stop(kappa=None) is None


def test_the_loop_ends_for_a_reason() -> None:
    assert stop(kappa=0.6) == "aligned: kappa on dev 0.600 reaches the target 0.6"
    assert stop(n_groups=6) == "too few groups: with 6 of the 20 needed no proposal could be decided upon"
    off = LoopSettings(max_iterations=0)
    assert stop(settings=off) == "proposals are switched off (max_iterations is 0)"
    last = PROPOSED.model_copy(update={"round": 3})
    assert stop(last, "promoted") == "all 3 rounds are used up"


def test_two_failures_over_the_champion_on_the_same_data_end_the_loop() -> None:
    failed = {**FIRST, "v002": row("v002", "rejected", "v001", "v001", 1)}
    second = PROPOSED.model_copy(update={"round": 2})
    assert stop(second, "rejected", decided=failed) == "no improvement 2 times over v001"
    failed["v002"].attrs["annotations_fingerprint"] = "other"
    assert stop(second, "rejected", decided=failed) is None


def test_test_is_judged_for_the_first_version_and_for_winners_alone() -> None:
    assert core.may_judge_test("v001", PERSON, {})
    assert core.may_judge_test("v001", PERSON, FIRST)
    assert not core.may_judge_test("mine", PERSON, FIRST)
    assert not core.may_judge_test("v002", PROPOSED, FIRST)
    lost, won = (row("v002", decision, "v001", "v001", 1) for decision in ("rejected", "promoted"))
    assert not core.may_judge_test("v002", PROPOSED, {**FIRST, "v002": lost})
    assert core.may_judge_test("v002", PROPOSED, {**FIRST, "v002": won})
    assert core.count_test_looks({**FIRST, "v002": lost}, DATA) == 1
    assert core.count_test_looks({**FIRST, "v002": won}, DATA) == 2
    assert core.count_test_looks({**FIRST, "v002": won}, "other:data") == 0


def test_what_people_tried_over_the_champion_is_told_without_changes_of_an_optimizer() -> None:
    mine = PERSON.model_copy(update={"criteria": "mine"})
    lost = row("mine", "rejected", "v001", "v001", 1).assign(decision_reason="no gain")
    made = Decision("rejected", "worse", "v001", "v001", comparison())
    valid = {"v001": PERSON, "mine": mine, "v003": PROPOSED}
    earlier = core.select_earlier(made, "v003", valid, {**FIRST, "mine": lost})
    assert [(e.version, e.text, e.reason) for e in earlier] == [("mine", "mine", "no gain"), ("v003", "x", "worse")]
    assert all(e.changes == e.beaten == () for e in earlier)


def test_the_row_says_why_nothing_was_proposed() -> None:
    made = Decision("rejected", "why", "v001", "v001", comparison())
    row_ = core.build_row("v002", PROPOSED, made, None, None, "stop", START).iloc[0]
    assert not row_["is_proposed"]
    assert row_["proposal_reason"] == "stop"


def test_fewer_words_clauses_or_examples_are_simpler_and_nothing_less() -> None:
    longer = PERSON.model_copy(update={"criteria": "x and y"})
    clause = PERSON.model_copy(update={"clauses": (Clause(text="z"),)})
    assert core.is_simpler(PERSON, longer)
    assert core.is_simpler(PERSON, clause)
    assert not core.is_simpler(PERSON, PERSON)
    shown = PERSON.model_copy(update={"examples": (ExampleRef(record_id="r", content_hash="h"),)})
    assert not core.is_simpler(shown, longer)  # less text, more examples


def test_effort_counts_what_was_not_known_before_and_an_unknown_price_is_null() -> None:
    verdicts = pd.DataFrame({"is_cached": [True, False, False], "n_attempts": [1, 2, 0], "cost_usd": [0.5, 0.25, None]})
    assert core.measure_effort(verdicts) == (2, 0.25)
    verdicts.loc[1, "cost_usd"] = None
    assert core.measure_effort(verdicts) == (2, None)


def test_a_promotion_by_hand_keeps_what_was_before_in_its_reason() -> None:
    made = Decision("rejected", "no gain", "v001", "v001", comparison())
    row_ = core.build_row("v002", PROPOSED, made, None, None, "stop", START)
    row_.attrs = {"evaluated_at": "x"}
    promoted = core.promote_by_hand(row_, "people like it", START + timedelta(hours=1), 2)
    first = promoted.iloc[0]
    assert (first["decision"], first["champion"]) == ("promoted", "v002")
    assert first["is_by_hand"]
    assert first["n_test_looks"] == 2
    assert first["decision_reason"] == "by hand: people like it (before: rejected, no gain)"
    again = core.promote_by_hand(promoted, "they still do", START + timedelta(hours=2), 2).iloc[0]
    assert again["decision_reason"] == "by hand: they still do (before: rejected, no gain)"
    assert promoted.attrs == row_.attrs
    assert core.current_champion({"v001": FIRST["v001"], "v002": promoted}) == "v002"


def test_a_kappa_is_corrected_only_for_the_best_version() -> None:
    human = [0, 1] * 40
    frame = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(80)],
            "group": [f"g{i}" for i in range(80)],
            "split": "dev",
            "human_score": human,
            "llm_score": human,
            "is_example": False,
        }
    )
    worse = frame.assign(llm_score=1)
    assert core.correct_kappa({"v001": worse, "v002": frame}, "v002") == pytest.approx(1.0)
    assert core.correct_kappa({"v001": worse, "v002": frame}, "v001") is None
    assert core.correct_kappa({"v002": frame.assign(split="test")}, "v002") is None


def test_alignment_asks_for_a_sure_lower_bound_or_for_the_human_ceiling() -> None:
    assert Alignment(0.7, 0.4).describe_reached(0.6) is None  # 0.4 < 0.6 - 0.15
    assert Alignment(0.7, 0.46).describe_reached(0.6) is not None
    people = Alignment(0.5, 0.3, 0.55, (0.4, 0.6)).describe_reached(0.6)
    assert people is not None
    assert "as they do with each other (0.550)" in people
    assert Alignment(0.5, 0.3, 0.55, (0.3, 0.5)).describe_reached(0.6) is None  # it does not reach the ceiling
    assert Alignment(0.5, 0.3, 0.55, (0.1, 0.9)).describe_reached(0.6) is None  # so wide that it reaches anything
    assert Alignment(0.0, -0.1, 0.1, (-0.1, 0.15)).describe_reached(0.6) is None  # a guess, among people who guess


def test_a_spent_budget_ends_the_loop() -> None:
    settings = LoopSettings(max_cost_usd=1.0)
    made = Decision("baseline", "", None, "v001", None)
    reason = find_stop(made, PERSON, 0.1, 100, {}, DATA, settings, cost_usd=1.25)
    assert reason == "the budget is spent: 1.25 of 1.00 US dollars"
    assert find_stop(made, PERSON, 0.1, 100, {}, DATA, settings, cost_usd=0.5) is None
