"""Where dev is too small to decide: the rules decided upon by cross-fitting over train and dev.

What is compared is not the proposal's own verdicts on train, which it was written from, but those of proposals written
in the same way without the record's fold.
"""

from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.api.optimization import propose_from_notes
from caliber_pipeline.assets.proposing import TrainJudge
from caliber_pipeline.assets.scored import load_annotations, load_records, load_scored
from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.gate import Comparison, compare_versions
from caliber_pipeline.core.splits import MIN_GROUPS
from caliber_pipeline.resources import Project

N_FOLDS: Final = 4  # each proposal is then written from three quarters of the records
BASIS: Final = "train and dev, cross-fitted"


def needs_cross_fitting(decision: str, comparison: Comparison | None, strategy: str | None) -> bool:
    """Whether dev left open what cross-fitting could settle: for proposals by rules, which can be written again."""
    return (
        decision == "undecided"
        and strategy == "rules"
        and comparison is not None
        and comparison.p_value is not None
        and comparison.n_all_groups >= MIN_GROUPS
    )


def compare_cross_fitted(project: Project, base: str, round_: int) -> Comparison:
    """The base against proposals by rules over it, each record judged by one that did not see its fold.

    Args:
        project: Where all is stored.
        base: The version that is edited.
        round_: The round of the proposals.
    """
    verdicts = project.tables.require("judge_scores", base)
    records, scored = load_records(project, verdicts), load_scored(project, verdicts)
    judge = TrainJudge(project, records, resolve_labels(load_annotations(project, verdicts)))
    criteria = project.criteria_files.load(base)
    max_examples = project.build_judge(criteria=criteria, version=base).max_examples
    pool = scored[scored["split"].isin(["train", "dev"]).astype(bool)].reset_index(drop=True)
    texts = records[records["record_id"].isin(pool["record_id"])]
    fold_of = hash_texts(pool["group"].astype("string[pyarrow]") + "\x1fcross-fitting") % np.uint64(N_FOLDS)
    parts = []
    for fold in range(N_FOLDS):
        is_inside = fold_of == fold
        inside = pool[is_inside]
        seen = pool.assign(split=pd.array(np.where(is_inside, "dev", "train"), dtype="string[pyarrow]"))
        split_of = seen[["record_id", "split"]]
        proposal = propose_from_notes(
            seen,
            texts.drop(columns="split").merge(split_of, on="record_id"),
            criteria,
            base,
            project.build_encoder(),
            round_=round_,
            max_examples=max_examples,
        )
        if proposal is None or inside.empty:
            parts.append(inside)
            continue
        given = judge.judge(proposal.criteria, inside["record_id"].astype(str).tolist())
        parts.append(inside.drop(columns="llm_score").merge(given[["record_id", "llm_score"]], on="record_id"))
    fitted = pd.concat(parts, ignore_index=True)
    return compare_versions(pool, fitted, split=None, basis=BASIS)
