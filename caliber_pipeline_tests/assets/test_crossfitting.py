"""Cross-fitting: every record judged by a proposal that did not see its fold."""

import dagster as dg
import pytest

from caliber_pipeline.assets.crossfitting import compare_cross_fitted
from caliber_pipeline.assets.ground_truth import GroundTruth
from caliber_pipeline.assets.proposing import open_train_judge
from caliber_pipeline.core.gate import Comparison, decide
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import choose_next, crossfitting
from caliber_pipeline.strategies.crossfitting import N_FOLDS, needs_cross_fitting
from caliber_pipeline.strategies.train_judge import TrainJudge
from caliber_pipeline_tests.test_automation import obey, tick


def test_it_decides_by_proposals_that_did_not_see_the_fold(
    planted: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        obey(planted, instance, tick(planted, instance))
    evidence: list[set[str]] = []
    judged: list[list[str]] = []
    judge = TrainJudge.judge

    async def watch_proposals(strategies, request, guarded, trial):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        evidence.append(set(request.evidence.scored["record_id"]))
        assert not set(guarded["record_id"]) & evidence[-1]
        return await choose_next(strategies, request, guarded, trial)

    def watch_judge(self, criteria, record_ids):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        judged.append(list(record_ids))
        return judge(self, criteria, record_ids)

    monkeypatch.setattr(crossfitting, "choose_next", watch_proposals)
    monkeypatch.setattr(TrainJudge, "judge", watch_judge)
    truth = GroundTruth.load(planted, planted.tables.require("judge_scores", "v001"))
    trial = open_train_judge(planted, truth)
    comparison = compare_cross_fitted(planted, truth, "v001", 1, trial)
    assert trial.n_calls == sum(map(len, judged))
    assert len(evidence) == len(judged) == N_FOLDS
    records = planted.tables.require("records").set_index("record_id")
    for seen, fold in zip(evidence, judged, strict=True):
        assert not seen & set(fold)
        assert set(records.loc[[*seen, *fold], "split"]) == {"train", "dev"}
    fitted = [record_id for fold in judged for record_id in fold]
    assert sorted(fitted) == sorted(records.index[records["split"] != "test"])
    assert comparison.basis == "train and dev, cross-fitted"
    decision, reason = decide(comparison, max_rounds=3)
    assert decision == "promoted"
    assert reason.startswith("kappa on train and dev, cross-fitted 0.000 → 1.000")


@pytest.mark.parametrize(
    ("decision", "strategy", "n_groups", "is_needed"),
    [
        ("undecided", "rules", 30, True),
        ("rejected", "rules", 30, False),
        ("undecided", "rewrite", 30, True),
        ("undecided", None, 30, False),
        ("undecided", "rules", 19, False),
    ],
)
def test_it_is_for_proposals_by_strategies_that_dev_left_open(
    decision: str, strategy: str | None, n_groups: int, *, is_needed: bool
) -> None:
    comparison = Comparison(0.1, 0.5, 0.03, 10, 10, n_groups, 5, 0, has_lost_coverage=False, n_differing_groups=5)
    assert needs_cross_fitting(decision, comparison, strategy) is is_needed
