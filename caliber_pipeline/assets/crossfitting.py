"""Cross-fitting of what is stored."""

from caliber_pipeline.api.running import run_sync
from caliber_pipeline.assets.ground_truth import GroundTruth
from caliber_pipeline.assets.proposing import build_request
from caliber_pipeline.core.gate import Comparison
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import crossfitting
from caliber_pipeline.strategies.train_judge import TrainJudge


def compare_cross_fitted(project: Project, truth: GroundTruth, base: str, round_: int, judge: TrainJudge) -> Comparison:
    """A stored version against proposals that edit it, each record judged by one that did not see its fold."""
    comparing = crossfitting.compare_cross_fitted(
        truth.join(project.tables.require("judge_scores", base)),
        truth.records,
        build_request(project, truth, base, round_),
        project.build_strategies(judge.judge),
        project.build_encoder(),
        judge,
        n_all_groups=truth.n_groups,
    )
    return run_sync(comparing)
