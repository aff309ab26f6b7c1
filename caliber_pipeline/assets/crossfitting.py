"""Cross-fitting of what is stored."""

from caliber_pipeline.assets.proposing import open_train_judge
from caliber_pipeline.assets.scored import count_groups, load_annotations, load_records, load_scored
from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.gate import Comparison
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import crossfitting


def compare_cross_fitted(project: Project, base: str, round_: int) -> Comparison:
    """A stored version against proposals by rules over it, each record judged by one that did not see its fold."""
    verdicts = project.tables.require("judge_scores", base)
    records, scored = load_records(project, verdicts), load_scored(project, verdicts)
    judge = open_train_judge(project, records, resolve_labels(load_annotations(project, verdicts)))
    criteria = project.criteria_files.load(base)
    return crossfitting.compare_cross_fitted(
        scored,
        records,
        criteria,
        base,
        project.build_encoder(),
        judge,
        round_=round_,
        max_examples=project.build_judge(criteria=criteria, version=base).max_examples,
        n_all_groups=count_groups(project, verdicts),
    )
