import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.core.errors import InputError, JudgeError
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline_tests.api.clause_judge import BlindJudge, ClauseJudge, make_flawed_rows, make_session
from caliber_pipeline_tests.api.word_encoder import WordEncoder


def test_iterates_until_aligned() -> None:
    session = make_session(make_flawed_rows(200))
    seen: list[str] = []

    outcome = session.iterate_sync("be right", on_round=lambda each: seen.append(each.version))

    assert outcome.is_aligned
    assert outcome.champion == "v002"
    assert [(each.version, each.decision) for each in outcome.rounds] == [("v001", "baseline"), ("v002", "promoted")]
    assert seen == ["v001", "v002"]
    # v001 accepts all: kappa 0 on every split; v002 knows both flaws
    assert outcome.rounds[0].kappa_by_split == dict.fromkeys(("train", "dev", "test", "all"), 0.0)
    assert outcome.best.kappa_by_split["dev"] == 1.0
    assert session.get_evaluation_result() is outcome.best.result
    json.dumps(outcome.to_dict())


def test_iterating_with_a_judge_that_learns_nothing_promotes_nothing() -> None:
    outcome = make_session(make_flawed_rows(200), BlindJudge()).iterate_sync()

    assert outcome.champion == "v001"
    assert outcome.stop_reason == "no improvement 2 times over v001"
    assert [each.decision for each in outcome.rounds] == ["baseline", "rejected", "rejected"]
    assert "test" not in outcome.rounds[1].kappa_by_split


def test_rounds_survive_json_and_are_not_paid_for_again(tmp_path: Path) -> None:
    judge = ClauseJudge()
    session = make_session(make_flawed_rows(200), judge)
    outcome = session.iterate_sync("be right")
    n_asked = len(judge.asked)

    restored = CalibrationSession.load(session.save(tmp_path / "session.json"), judge=judge)

    assert restored.to_dict() == session.to_dict()
    again = restored.outcome
    assert again is not None
    assert (again.champion, again.stop_reason, again.is_aligned) == (outcome.champion, outcome.stop_reason, True)
    assert again.decisions["p_value"].tolist()[1] == outcome.rounds[1].row["p_value"].iloc[0] < 0.0001
    restored._encoder = WordEncoder()
    assert restored.iterate_sync("be right").champion == outcome.champion
    assert len(judge.asked) == n_asked
    restored.annotate("r000", 1)
    assert restored.outcome is None


def test_proposals_race_on_train_as_in_the_pipeline() -> None:
    outcome = make_session(make_flawed_rows(200)).iterate_sync("be right", strategies=["rules", "examples"])

    tried = {candidate["strategy"]: candidate for candidate in outcome.rounds[0].candidates}
    # the judge reads clauses alone: the rules' proposal is right on all, another choice of examples changes nothing
    assert tried["rules"]["outcome"] == "chosen"
    assert tried["rules"]["kappa"] == 1.0
    assert tried["examples"]["outcome"].startswith("dropped after 16 records: clearly worse than")
    assert outcome.rounds[0].row["n_calls"].iloc[0] > 200
    assert outcome.rounds[1].row["n_test_looks"].iloc[0] == 2


def test_says_before_anything_is_paid_for_what_a_strategy_lacks() -> None:
    judge = ClauseJudge()
    session = make_session(make_flawed_rows(60), judge)

    with pytest.raises(InputError, match=r"unknown strategies \['magic'\]; there are rules, examples, rewrite, gepa"):
        session.iterate_sync("be right", strategies=["magic"])
    with pytest.raises(JudgeError, match=r"strategies \['rewrite'\] ask a language model: name its llm_provider"):
        session.iterate_sync("be right", strategies=["rewrite"])
    assert judge.asked == []


def test_iterating_with_few_labels_says_so() -> None:
    outcome = make_session(make_flawed_rows(12)).iterate_sync("be right")

    assert outcome.stop_reason.startswith("too few groups: with 12 of the 20 needed")
    assert [each.decision for each in outcome.rounds] == ["baseline"]


def test_iterating_can_only_evaluate() -> None:
    session = make_session(make_flawed_rows(60))
    session.evaluate_sync("be kind", system_prompt="you are a judge")

    outcome = session.iterate_sync(max_iterations=0)

    assert len(outcome.rounds) == 1
    assert (outcome.rounds[0].criteria.criteria, outcome.rounds[0].criteria.system_prompt) == (
        "be kind",
        "you are a judge",
    )


def test_says_why_errors_give_no_proposal() -> None:
    accepted = {"judgment": 1, "notes": None}
    session = make_session([{**row, **accepted, "score": i // 2 % 2} for i, row in enumerate(make_flawed_rows(40))])
    session._judge = RecordedJudge()  # is shown no examples, and there are no notes to make clauses of

    outcome = session.iterate_sync("be kind")

    assert outcome.stop_reason.startswith("the errors on train give no new clause and no new example")


def test_iterating_drops_no_patterns() -> None:
    session = make_session(make_flawed_rows(60))
    patterns = session.discover_patterns_sync()

    session.iterate_sync("be kind", max_iterations=0)

    assert session.patterns is patterns


def test_where_dev_is_too_small_the_rules_are_cross_fitted() -> None:
    outcome = make_session(make_flawed_rows(24)).iterate_sync("be right")

    assert outcome.rounds[1].decision == "promoted"
    assert outcome.rounds[1].row["basis"].iloc[0] == "train and dev, cross-fitted"


class VotingJudge(ClauseJudge):
    """Knows how many of its votes agree."""

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        for frame in super().judge(task):
            yield frame.assign(vote_share=1.0)


def test_neighbours_are_looked_at_where_the_judge_votes() -> None:
    rows = make_flawed_rows(120)
    session = make_session(rows, VotingJudge())

    outcome = session.iterate_sync("be right")

    assert outcome.champion == "v002"
    assert outcome.best.base == "v001"
