"""Stage `drift`: whether a version still agrees with people as its certificate says."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, one_line_failures, stage, with_attrs
from caliber_pipeline.assets.ground_truth import load_records
from caliber_pipeline.core import drift as core
from caliber_pipeline.core.judge_scores import join_labels, resolve_examples
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.verdicts import refuse_capped, summarize_verdicts
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    description="An anytime-valid test of the records labelled since the version won, and what changed: judge or data.",
    group="evaluation",
    kinds={"scipy"},
)
def drift(
    context: dg.AssetExecutionContext, project: Project, annotations: pd.DataFrame, judge_scores: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Hold a version against its certificate."""
    version = context.partition_key
    records, labels = load_records(project, judge_scores), resolve_labels(annotations)
    scored = join_labels(judge_scores, labels, records)
    certificate = core.find_certificate(project.tables.load("calibration_history"), version, scored, annotations)
    audited, anchors, n_undated = scored.iloc[:0], None, 0
    if certificate is not None:
        before, audited = core.split_by_time(scored, annotations, certificate.certified_at)
        n_undated = core.count_undated(before, annotations)
        chosen = core.select_anchors(before, project.settings.drift_anchors if len(audited) else 0)
        with one_line_failures():
            anchors = judge_again(project, version, chosen, records, labels)
    row = core.build_row(version, certificate, core.agreement_of(audited), anchors, n_undated=n_undated)
    state = row.iloc[0]
    numbers = {name: float(state[name]) for name in ("agreement", "evidence") if not pd.isna(state[name])}
    return dg.Output(
        with_attrs(row, judge_scores),
        metadata={"summary": str(state["summary"]), "n_audited": int(state["n_audited"]), **numbers},
    )


def judge_again(
    project: Project, version: str, anchors: pd.DataFrame, records: pd.DataFrame, labels: pd.DataFrame
) -> core.Anchors | None:
    """Agreement on the anchors as stored, and by fresh verdicts; None where the judge cannot have changed.

    Raises:
        SpendingCapError: the spending cap left anchors unasked.
    """
    if anchors.empty:
        return None
    criteria = project.criteria_files.load(version)
    judge = project.build_judge(criteria=criteria, version=version)
    if not judge.is_cacheable:
        return None
    texts = records[records["record_id"].isin(anchors["record_id"])]
    fresh = run_judge(judge, JudgeTask(texts, criteria, resolve_examples(criteria, records, labels)))
    refuse_capped(summarize_verdicts(fresh), f"again under '{version}'")
    now = anchors.drop(columns="llm_score").merge(fresh[["record_id", "llm_score"]], on="record_id")
    is_known = now["llm_score"].notna().to_numpy(dtype=bool)
    if not is_known.any():
        return None
    return core.agreement_of(anchors[is_known]), core.agreement_of(now[is_known])
