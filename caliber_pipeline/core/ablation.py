"""Ablation: what each clause and example of a criteria version contributes, on train."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.agreement import Floats, cohen_kappa, to_optional
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.intervals import JEFFREYS, MIN_GROUPS, N_DRAWS, expanded_tail
from caliber_pipeline.core.paired_gain import UNSEEN_NEW, UNSEEN_OLD, cells_by_group
from caliber_pipeline.core.weights import inclusion_weights

N_HELD_OUT: Final = 5  # parts of the examples: each judges a fifth of them by the others
MAX_SINGLE_EXAMPLES: Final = 20  # more are left out all at once: one of three hundred shows nothing


@dataclass(frozen=True)
class Part:
    """A part of criteria that can be left out.

    Attributes:
        name: 'clause 2', 'example r7' or 'all examples'.
        text: The clause's text, or the record ids.
        without: The criteria without it.
    """

    name: str
    text: str
    without: Criteria


@dataclass(frozen=True)
class Contribution:
    """What leaving out a part does to the agreement on train.

    Attributes:
        name: The part.
        text: Its text.
        change: Kappa without it less kappa with it; None where undefined. Below 0, the part helps.
        ci_low: Lower end of the 95 % interval, whole groups drawn.
        ci_high: Upper end.
        n_changed: Records whose verdict changes.
        n: Records compared.
        effect: 'helps', 'harms', 'nothing shown' (the interval holds 0), 'does nothing' (no verdict changes), or
            'too few records' (train has too few groups).
    """

    name: str
    text: str
    change: float | None
    ci_low: float | None
    ci_high: float | None
    n_changed: int
    n: int
    effect: str


def list_parts(criteria: Criteria) -> list[Part]:
    """Every clause, and every example, or all at once where there are many."""
    parts = []
    for i, clause in enumerate(criteria.clauses):
        kept = (*criteria.clauses[:i], *criteria.clauses[i + 1 :])
        parts.append(Part(f"clause {i + 1}", clause.text, criteria.model_copy(update={"clauses": kept})))
    examples = criteria.examples
    if len(examples) > MAX_SINGLE_EXAMPLES:
        text = f"{len(examples)} examples"
        return [*parts, Part("all examples", text, criteria.model_copy(update={"examples": ()}))]
    for i, example in enumerate(examples):
        rest = (*examples[:i], *examples[i + 1 :])
        parts.append(
            Part(f"example {example.record_id}", example.record_id, criteria.model_copy(update={"examples": rest}))
        )
    return parts


def select_ablated(scored: pd.DataFrame) -> pd.DataFrame:
    """The records that contributions are measured on: those of train that have a verdict."""
    usable = scored["llm_score"].notna() & (scored["split"] == "train")
    return scored[usable.astype(bool)].reset_index(drop=True)


def hold_out(criteria: Criteria, record_ids: Sequence[str]) -> list[tuple[list[str], frozenset[str]]]:
    """The records in batches, each with the examples to leave out while it is judged.

    A judge that is shown a record knows its label. So that shown records can be measured on too, they are judged while
    a part of the examples, their own among them, is left out.

    Args:
        criteria: The version that is measured.
        record_ids: The records.
    """
    shown = {example.record_id for example in criteria.examples}
    inside = [record_id for record_id in record_ids if record_id in shown]
    parts = [inside[i::N_HELD_OUT] for i in range(min(N_HELD_OUT, len(inside)))]
    others = [record_id for record_id in record_ids if record_id not in shown]
    return [*([(others, frozenset[str]())] if others else []), *((part, frozenset(part)) for part in parts)]


def leave_out(criteria: Criteria, record_ids: Collection[str]) -> Criteria:
    """The criteria without these examples."""
    kept = tuple(example for example in criteria.examples if example.record_id not in record_ids)
    return criteria.model_copy(update={"examples": kept})


def measure_contribution(part: Part, scored: pd.DataFrame, without: pd.DataFrame, *, seed: int = 0) -> Contribution:
    """What leaving out a part does.

    The interval is that of the paired difference under a Bayesian bootstrap over groups (Rubin, 1981), with half an
    unseen group of each kind of change: without it a single changed verdict would seem to prove something.

    Args:
        part: The part.
        scored: The version's verdicts, as `select_ablated` gives them.
        without: record_id and llm_score without the part; records without a verdict are left aside.
        seed: Of the bootstrap.
    """
    known = without.dropna(subset=["llm_score"])
    score_of = dict(zip(known["record_id"].astype(str), known["llm_score"].astype(int), strict=True))
    both = scored[scored["record_id"].isin(list(score_of))]
    human, full = (both[name].to_numpy(dtype=np.int8) for name in ("human_score", "llm_score"))
    ablated = np.array([score_of[record_id] for record_id in both["record_id"]], dtype=np.int8)
    n_changed = int(np.count_nonzero(full != ablated))
    if both["group"].nunique() < MIN_GROUPS:
        return Contribution(part.name, part.text, None, None, None, n_changed, len(both), "too few records")
    if not n_changed:
        return Contribution(part.name, part.text, 0.0, None, None, 0, len(both), "does nothing")
    groups, names = pd.factorize(both["group"], sort=True)
    codes = groups.astype(np.int64)
    weights = inclusion_weights(both)
    cells = np.stack([cells_by_group(human, llm, codes, len(names), weights) for llm in (full, ablated)])
    before, after = cohen_kappa(cells.sum(axis=1))
    differences = _draw_differences(cells, seed)
    change = to_optional(float(after - before))
    if change is None or np.isnan(differences).all():
        return Contribution(part.name, part.text, None, None, None, n_changed, len(both), "nothing shown")
    tail = expanded_tail(float(len(names)))
    low, high = np.quantile(differences[~np.isnan(differences)], (tail, 1 - tail)).tolist()
    effect = "helps" if high < 0 else "harms" if low > 0 else "nothing shown"
    return Contribution(part.name, part.text, change, low, high, n_changed, len(both), effect)


def _draw_differences(cells: Floats, seed: int) -> Floats:
    """Draws of kappa without the part less kappa with it; NaN where undefined.

    Args:
        cells: Shape (2, g, 4): each group's cells with the part, then without it.
        seed: Of the draws.
    """
    sizes = cells[0].sum(axis=1)
    heaviness = float((sizes**2).sum() / sizes.sum())  # of the group that a record is in, on average
    unseen = heaviness * np.stack([UNSEEN_OLD, UNSEEN_NEW])
    amounts = np.append(np.ones(len(sizes)), np.full(len(UNSEEN_NEW), JEFFREYS))
    drawn = np.random.default_rng(seed).standard_gamma(amounts, size=(N_DRAWS, len(amounts)))
    kappas = cohen_kappa(np.einsum("bg,kgc->kbc", drawn, np.concatenate([cells, unseen], axis=1)))
    return np.asarray(kappas[1] - kappas[0])
