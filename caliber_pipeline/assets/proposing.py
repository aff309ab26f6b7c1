"""Has the strategies propose the next version from what is stored."""

from collections.abc import Mapping

import pandas as pd

from caliber_pipeline.api.running import run_sync
from caliber_pipeline.assets.scored import load_annotations, load_records, load_scored
from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.optimized_criteria import Decision, select_earlier
from caliber_pipeline.core.proposal_checks import select_guarded
from caliber_pipeline.core.proposals import EarlierProposal, ProposalRequest, select_train
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import Choice, choose_next
from caliber_pipeline.strategies.train_judge import TrainJudge


def open_train_judge(project: Project, verdicts: pd.DataFrame) -> TrainJudge:
    """A project's judge, for the records and labels that verdicts were made from."""
    return TrainJudge(
        load_records(project, verdicts),
        resolve_labels(load_annotations(project, verdicts)),
        lambda criteria: project.build_judge(criteria=criteria, version=criteria.base),
        project.open_verdict_cache,
    )


def build_request(
    project: Project, champion: str, round_: int, earlier: tuple[EarlierProposal, ...] = ()
) -> tuple[ProposalRequest, pd.DataFrame]:
    """What the strategies are asked, and the records that they must not quote.

    Raises:
        MissingStepError: the champion was not evaluated.
    """
    verdicts = project.tables.require("judge_scores", champion)
    records, scored = load_records(project, verdicts), load_scored(project, verdicts)
    misalignments, patterns = (project.tables.require(name, champion) for name in ("misalignments", "patterns"))
    criteria = project.criteria_files.load(champion)
    request = ProposalRequest(
        champion=criteria,
        champion_version=champion,
        evidence=select_train(scored, misalignments, patterns, records),
        round_=round_,
        max_examples=project.build_judge(criteria=criteria, version=champion).max_examples,
        earlier=earlier,
    )
    return request, select_guarded(records, resolve_labels(load_annotations(project, verdicts)))


def propose_next(
    project: Project,
    decision: Decision,
    version: str,
    valid: Mapping[str, Criteria],
    decided: Mapping[str, pd.DataFrame],
    judge: TrainJudge,
) -> Choice:
    """The next version to try after a decision, which edits the champion."""
    earlier = select_earlier(decision, version, valid, decided)
    request, guarded = build_request(project, decision.champion, valid[version].round + 1, earlier)
    choice = run_sync(choose_next(project.build_strategies(judge.judge), request, guarded, judge))
    judge.model_usage += choice.usage
    return choice
