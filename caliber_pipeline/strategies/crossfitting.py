"""Where dev is too small to decide: the way to propose decided upon by cross-fitting over train and dev.

What is compared is not the proposal's own verdicts on train, which it was written from, but those of proposals written
in the same way without the record's fold.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.gate import Comparison, compare_versions
from caliber_pipeline.core.optimized_criteria import decide_version
from caliber_pipeline.core.proposals import ProposalRequest
from caliber_pipeline.core.splits import MIN_GROUPS
from caliber_pipeline.core.stopping import Decision, LoopSettings
from caliber_pipeline.encoders.protocol import Encoder
from caliber_pipeline.strategies.choosing import choose_next
from caliber_pipeline.strategies.evidence import find_patterns, gather_evidence
from caliber_pipeline.strategies.protocol import Strategy
from caliber_pipeline.strategies.train_judge import TrainJudge

N_FOLDS: Final = 4  # each proposal is then written from three quarters of the records
BASIS: Final = "train and dev, cross-fitted"


def needs_cross_fitting(decision: str, comparison: Comparison | None, strategy: str | None) -> bool:
    """Whether dev left open what cross-fitting could settle: for strategies' proposals, which can be written again."""
    return (
        decision == "undecided"
        and strategy is not None
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


async def compare_cross_fitted(
    scored: pd.DataFrame,
    records: pd.DataFrame,
    champion: ProposalRequest,
    strategies: Sequence[Strategy],
    encoder: Encoder,
    judge: TrainJudge,
    *,
    n_all_groups: int,
) -> Comparison:
    """A base against proposals that edit it, each record judged by one that did not see its fold.

    Args:
        scored: The base's verdicts with labels, as `core.judge_scores.join_labels` gives them.
        records: record_id, query, output, reference, split.
        champion: What was asked for when the version was proposed; its evidence is gathered anew for each fold, and
            what was tried before is left out, since its figures on dev were seen.
        strategies: Who proposes.
        encoder: Of the notes.
        judge: Judges the records of a fold.
        n_all_groups: Groups among all labelled records.
    """
    pool = scored[scored["split"].isin(["train", "dev"]).astype(bool)].reset_index(drop=True)
    fold_of = hash_texts(pool["group"].astype("string[pyarrow]") + "\x1fcross-fitting") % np.uint64(N_FOLDS)
    parts = []
    for fold in range(N_FOLDS):
        inside, outside = pool[fold_of == fold], pool[fold_of != fold].assign(split="train")
        if inside.empty:
            continue
        is_seen = records["record_id"].isin(outside["record_id"])
        texts = records[is_seen].assign(split="train")
        patterns = find_patterns(outside, texts, encoder)
        evidence = gather_evidence(outside, texts, patterns, encoder)
        others = records.loc[~is_seen, ["record_id", "query", "output", "reference"]]
        guarded = others.merge(scored[["record_id", "human_notes"]], on="record_id", how="left")
        request = replace(champion, evidence=evidence, earlier=())
        choice = await choose_next(strategies, request, guarded, judge)
        judge.model_usage += choice.usage
        if choice.proposal is None:
            parts.append(inside)
            continue
        given = await asyncio.to_thread(judge.judge, choice.proposal.criteria, inside["record_id"].astype(str).tolist())
        parts.append(inside.drop(columns="llm_score").merge(given[["record_id", "llm_score"]], on="record_id"))
    fitted = pd.concat(parts, ignore_index=True)
    return compare_versions(pool, fitted, split=None, basis=BASIS, n_all_groups=n_all_groups)
