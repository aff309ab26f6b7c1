"""Cross-fitting of what is stored."""

from caliber_pipeline.api.running import run_sync
from caliber_pipeline.assets.proposing import build_request
from caliber_pipeline.assets.scored import count_groups, load_records, load_scored
from caliber_pipeline.core.gate import Comparison
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import crossfitting
from caliber_pipeline.strategies.train_judge import TrainJudge


def compare_cross_fitted(project: Project, base: str, round_: int, judge: TrainJudge) -> Comparison:
    """A stored version against proposals that edit it, each record judged by one that did not see its fold."""
    verdicts = project.tables.require("judge_scores", base)
    request, _ = build_request(project, base, round_)
    comparing = crossfitting.compare_cross_fitted(
        load_scored(project, verdicts),
        load_records(project, verdicts),
        request,
        project.build_strategies(judge.judge),
        project.build_encoder(),
        judge,
        n_all_groups=count_groups(project, verdicts),
    )
    return run_sync(comparing)
