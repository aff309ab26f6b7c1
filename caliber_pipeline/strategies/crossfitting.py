"""Where dev is too small to decide: the rules decided upon by cross-fitting over train and dev.

What is compared is not the proposal's own verdicts on train, which it was written from, but those of proposals written
in the same way without the record's fold.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.gate import Comparison, compare_versions
from caliber_pipeline.core.optimized_criteria import Decision, LoopSettings, decide_version
from caliber_pipeline.core.splits import MIN_GROUPS
from caliber_pipeline.encoders.protocol import Encoder
from caliber_pipeline.strategies.evidence import propose_from_notes
from caliber_pipeline.strategies.train_judge import TrainJudge

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


def settle(
    version: str,
    decision: Decision,
    strategy: str | None,
    settings: LoopSettings,
    compare: Callable[[str], Comparison],
) -> Decision:
    """A version's decision, by cross-fitting where dev left it open and cross-fitting settles it.

    Args:
        version: The version.
        decision: By dev.
        strategy: The strategy that proposed the version; None for a person's.
        settings: Rounds and budgets.
        compare: Cross-fits proposals over a base; called only where it is needed.
    """
    base = decision.base
    if base is None or not needs_cross_fitting(decision.decision, decision.comparison, strategy):
        return decision
    settled = decide_version(version, base, decision.champion, compare(base), None, settings)
    told = replace(decision, reason=f"{decision.reason}; {settled.reason}")
    return settled if settled.decision == "promoted" else told


def compare_cross_fitted(
    scored: pd.DataFrame,
    records: pd.DataFrame,
    criteria: Criteria,
    version: str,
    encoder: Encoder,
    judge: TrainJudge,
    *,
    round_: int,
    max_examples: int,
    n_all_groups: int,
) -> Comparison:
    """A base against proposals by rules over it, each record judged by one that did not see its fold.

    Args:
        scored: The base's verdicts with labels, as `core.judge_scores.join_labels` gives them.
        records: record_id, query, output, reference, split.
        criteria: The base, which is edited.
        version: Its name.
        encoder: Of the notes.
        judge: Judges the records of a fold.
        round_: The round of the proposals.
        max_examples: How many examples the judge reads with profit.
        n_all_groups: Groups among all labelled records.
    """
    pool = scored[scored["split"].isin(["train", "dev"]).astype(bool)].reset_index(drop=True)
    texts = records[records["record_id"].isin(pool["record_id"])].drop(columns="split")
    fold_of = hash_texts(pool["group"].astype("string[pyarrow]") + "\x1fcross-fitting") % np.uint64(N_FOLDS)
    parts = []
    for fold in range(N_FOLDS):
        is_inside = fold_of == fold
        inside = pool[is_inside]
        seen = pool.assign(split=pd.array(np.where(is_inside, "dev", "train"), dtype="string[pyarrow]"))
        seen_texts = texts.merge(seen[["record_id", "split"]], on="record_id")
        proposal = propose_from_notes(
            seen, seen_texts, criteria, version, encoder, round_=round_, max_examples=max_examples
        )
        if proposal is None or inside.empty:
            parts.append(inside)
            continue
        given = judge.judge(proposal.criteria, inside["record_id"].astype(str).tolist())
        parts.append(inside.drop(columns="llm_score").merge(given[["record_id", "llm_score"]], on="record_id"))
    fitted = pd.concat(parts, ignore_index=True)
    return compare_versions(pool, fitted, split=None, basis=BASIS, n_all_groups=n_all_groups)
