"""What to do next, from what is there."""

import pandas as pd
import pytest

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.loop import LoopPlan, LoopState, champion_base, plan_next, select_stale, select_untested

ONE = Criteria(criteria="one")
CYCLE = "criteria 'v001' rest on themselves: v001 → b → v001; correct a base"
TWO = Criteria(criteria="two", base="v001")


def state(**changes: object) -> LoopState:
    return LoopState(**{"missing_input": None, "is_ingested": True, "criteria": {"v001": ONE}, **changes})  # type: ignore[arg-type]


def test_input_comes_first() -> None:
    assert plan_next(state(is_ingested=False)) == LoopPlan(should_ingest=True)
    missing = plan_next(state(is_ingested=False, missing_input="records.csv: no such file"))
    assert missing == LoopPlan(skip_reason="records.csv: no such file")


def test_input_that_is_being_read_or_could_not_be_is_not_asked_for_again() -> None:
    assert plan_next(state(is_ingested=False, is_ingesting=True)).skip_reason == "the input is being read"
    assert "could not be read" in str(plan_next(state(is_ingested=False, has_ingest_failed=True)).skip_reason)


def test_stored_input_is_enough_where_the_file_is_gone() -> None:
    assert plan_next(state(missing_input="records.csv: no such file")).evaluate == "v001"


def test_an_empty_folder_and_nothing_new_are_told_apart() -> None:
    assert plan_next(state(criteria={})).skip_reason == "the criteria folder has no version yet"
    done = plan_next(state(decided=frozenset(["v001"]), registered=frozenset(["v001"])))
    assert done == LoopPlan(skip_reason="nothing new among 1 criteria versions")


def test_a_version_waits_for_its_base() -> None:
    both = {"v001": ONE, "a-proposal": TWO}
    assert plan_next(state(criteria=both)).evaluate == "v001"
    assert plan_next(state(criteria=both, decided=frozenset(["v001"]))).evaluate == "a-proposal"


def test_one_evaluation_at_a_time() -> None:
    plan = plan_next(state(criteria={"v001": ONE, "v002": TWO}, running=frozenset(["v001"])))
    assert plan.evaluate is None
    assert plan.register == ("v001", "v002")
    assert plan.skip_reason == "being evaluated: v001"


def test_versions_wait_for_batches_and_are_evaluated_again_when_these_have_ended() -> None:
    both = {"v001": ONE, "v002": ONE}
    waiting = plan_next(state(criteria=both, waiting={"v001": "1 batch is under way"}))
    assert (waiting.evaluate, waiting.skip_reason) == (None, "'v001': 1 batch is under way")
    assert plan_next(state(criteria=both, answered=frozenset(["v002"]))).evaluate == "v002"
    decided = frozenset(["v001"])
    assert plan_next(state(decided=decided, answered=frozenset(["v001"]))).evaluate == "v001"
    assert plan_next(state(decided=decided, answered=frozenset(["v001"]), untested=("v001",))).test == "v001"
    failed = state(criteria=both, waiting={"v001": "1 batch is under way"}, failed=frozenset(["v001"]))
    assert plan_next(failed).evaluate == "v002"


def test_stale_versions_come_before_new_ones_and_failed_ones_are_named() -> None:
    versions = {"v001": ONE, "v002": TWO, "v003": ONE}
    decided = frozenset(["v001", "v002"])
    assert plan_next(state(criteria=versions, decided=decided, stale=("v001", "v002"))).evaluate == "v001"
    plan = plan_next(state(criteria=versions, decided=decided, failed=frozenset(["v003"])))
    assert plan.evaluate is None
    assert plan.warnings == ("the evaluation of 'v003' failed; run the job 'calibration' for it again",)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"invalid": {"x.yaml": "x.yaml: not valid YAML"}}, "skipped: x.yaml: not valid YAML"),
        ({"evaluated": {"v001": "f" * 64}}, "criteria 'v001' changed after they were evaluated"),
        ({"criteria": {"v002": TWO}}, "criteria 'v002' name the base 'v001', which is no other version"),
        ({"criteria": {"v001": TWO}}, "criteria 'v001' name the base 'v001', which is no other version"),
        ({"criteria": {"v001": Criteria(criteria="x", base="b"), "b": TWO}, "decided": frozenset("b")}, CYCLE),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, object], warning: str) -> None:
    plan = plan_next(state(**{"decided": frozenset(["v001"]), **changes}))
    assert any(text.startswith(warning) for text in plan.warnings)
    assert warning in str(plan.skip_reason)


def test_stale_are_those_of_an_earlier_ingestion_base_first() -> None:
    ingestions = {"v001": "monday", "v002": "monday"}
    assert select_stale(("v001", "v002"), ingestions, "tuesday") == ("v001", "v002")
    assert select_stale(("v001", "v002"), ingestions | {"v001": "tuesday"}, "tuesday") == ("v002",)
    assert select_stale((None, "v001"), ingestions, "monday") == ()
    assert select_stale((None, None), {}, "monday") == ()


def decided(decision: str, ingested_at: str = "monday", base: str | None = None) -> pd.DataFrame:
    row = pd.DataFrame({"decision": [decision], "base": pd.array([base], dtype="string[pyarrow]")})
    row.attrs = {"ingested_at": ingested_at}
    return row


def test_untested_are_the_winners_on_the_latest_data_whose_verdicts_leave_test_out() -> None:
    rows = {
        "v002": decided("promoted"),
        "v001": decided("baseline"),
        "v003": decided("rejected"),
        "v004": decided("undecided"),
        "v005": decided("promoted", "sunday"),
        "v006": decided("promoted"),
        "v007": decided("promoted"),
    }
    judged = {version: {"has_test": "False"} for version in rows} | {"v006": {"has_test": "True"}}
    del judged["v007"]  # its verdicts are gone
    assert select_untested(rows, judged, "monday") == ("v001", "v002")


def test_a_version_whose_evaluation_failed_is_not_judged_on_test_and_gives_way_to_the_next() -> None:
    both = {"v001": ONE, "v002": ONE}
    done = frozenset(both)
    assert plan_next(state(criteria=both, decided=done, untested=("v001", "v002"))).test == "v001"
    failed = state(criteria=both, decided=done, untested=("v001", "v002"), failed=frozenset(["v001"]))
    assert plan_next(failed).test == "v002"


def test_the_champion_s_base_is_known_while_its_decision_is_stored() -> None:
    rows = {"v001": decided("baseline"), "v002": decided("promoted", base="v001")}
    assert champion_base(rows, "v002") == "v001"
    assert champion_base(rows, "v001") is None
    assert champion_base(rows, "v003") is None
    assert champion_base({}, None) is None
