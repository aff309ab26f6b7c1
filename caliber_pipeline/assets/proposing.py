"""Has the strategies propose the next version from what is stored."""

from collections.abc import Mapping

import pandas as pd

from caliber_pipeline.api.running import run_sync
from caliber_pipeline.assets.ground_truth import GroundTruth
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.optimized_criteria import select_earlier
from caliber_pipeline.core.proposal_checks import select_guarded
from caliber_pipeline.core.proposals import EarlierProposal, ProposalRequest, select_train
from caliber_pipeline.core.stopping import Decision
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import Choice, choose_next, refuse_twin
from caliber_pipeline.strategies.train_judge import TrainJudge


def open_train_judge(project: Project, truth: GroundTruth) -> TrainJudge:
    """A project's judge, for annotated records."""
    return TrainJudge(
        truth.records,
        truth.labels,
        lambda criteria: project.build_judge(criteria=criteria, version=criteria.base),
        project.open_verdict_cache,
    )


def build_request(
    project: Project, truth: GroundTruth, champion: str, round_: int, earlier: tuple[EarlierProposal, ...] = ()
) -> ProposalRequest:
    """What the strategies are asked.

    Raises:
        MissingStepError: the champion was not evaluated.
    """
    tables, criteria = project.tables, project.criteria_files.load(champion)
    scored = truth.join(tables.require("judge_scores", champion))
    misalignments, patterns = (tables.require(name, champion) for name in ("misalignments", "patterns"))
    return ProposalRequest(
        champion=criteria,
        champion_version=champion,
        evidence=select_train(scored, misalignments, patterns, truth.records),
        round_=round_,
        max_examples=project.build_judge(criteria=criteria, version=champion).max_examples,
        earlier=earlier,
    )


def propose_next(
    project: Project,
    truth: GroundTruth,
    decision: Decision,
    version: str,
    valid: Mapping[str, Criteria],
    decided: Mapping[str, pd.DataFrame],
    judge: TrainJudge,
) -> Choice:
    """The next version to try after a decision: it edits the champion, and tells a judge what no version tells."""
    earlier = select_earlier(decision, version, valid, decided)
    request = build_request(project, truth, decision.champion, valid[version].round + 1, earlier)
    guarded = select_guarded(truth.records, truth.labels)
    choice = run_sync(choose_next(project.build_strategies(judge.judge), request, guarded, judge))
    judge.model_usage += choice.usage
    return refuse_twin(choice, valid)
