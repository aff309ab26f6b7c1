"""The gate: whether a version is better than its base, decided on dev."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.agreement import Floats, cohen_kappa, to_optional
from caliber_pipeline.core.paired_gain import cells_by_group, gain_p
from caliber_pipeline.core.splits import MIN_GROUPS
from caliber_pipeline.core.weights import inclusion_weights

ALPHA: Final = 0.05  # of the whole loop: divided by the rounds that it may take, since each is one more look
MAX_NEW_ERRORS: Final = 1.0  # of the severity that is mended: no version may add more harm than it takes away
POWER: Final = 0.8  # with which a gain is asked to show when the labels it takes are foretold
_MAX_FORETOLD: Final = 20  # times the groups at hand: beyond it a number of labels is no plan

Verdict = Literal["promoted", "rejected", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same dev records.

    Attributes:
        base_kappa: Cohen's kappa of the base; None where undefined. Weighted where labels were sampled actively.
        kappa: Cohen's kappa of the other version; likewise.
        p_value: One-sided, of the paired permutation test; None where kappa is undefined or nothing can be compared.
        n_compared: Dev records judged under both versions and shown as an example in neither.
        n_groups: Groups among them.
        n_all_groups: Groups among all labelled records.
        n_fixed: Records that only the other version gets right.
        n_broken: Records that only the base gets right.
        has_lost_coverage: The version failed on more of the records than the base.
        n_differing_groups: Groups in which the two versions' outcomes differ: what the test rests on.
        mcnemar_p: One-sided exact McNemar test of fixed against broken records; None where records share a group, or
            weigh differently.
        new_error_share: Severity of the broken records over that of the fixed ones, a record without one having 1, each
            as often as it stands for; None where records are broken and none is fixed.
        basis: The records that decide: "dev", or "train and dev, cross-fitted".
        is_weighted: Records weigh by the inverse of their inclusion probability, as in the reported figures.
    """

    base_kappa: float | None
    kappa: float | None
    p_value: float | None
    n_compared: int
    n_groups: int
    n_all_groups: int
    n_fixed: int
    n_broken: int
    has_lost_coverage: bool
    n_differing_groups: int = 0
    mcnemar_p: float | None = None
    new_error_share: float | None = 0.0
    basis: str = "dev"
    is_weighted: bool = False


def compare_versions(
    base: pd.DataFrame,
    version: pd.DataFrame,
    *,
    seed: int = 0,
    split: str | None = "dev",
    basis: str = "dev",
    n_all_groups: int | None = None,
) -> Comparison:
    """Compare two versions by a paired permutation test of the gain in kappa that swaps whole groups.

    Under the hypothesis of no difference the two verdicts on a group's records may be exchanged; the p-value is the
    share of such exchanges with at least the observed gain (Good, 2005, Permutation, Parametric and Bootstrap Tests of
    Hypotheses, ch. 3), with the observed one counted in. Where labels were sampled actively, gain and exchanges are
    those of the weighted kappa, the one that is reported: each record stands for 1 / inclusion probability records. The
    p-value is then that of `weighted_p` where that is larger, as the sampling keeps the two from being exchangeable.

    Args:
        base: As `join_labels` gives it.
        version: Likewise, for the version that asks for promotion.
        seed: Of the permutations.
        split: The split that decides; None for all rows.
        basis: What these rows are, in words.
        n_all_groups: Groups among all labelled records; None where the version's rows hold them all.
    """
    paired = pair_verdicts(base, version, split=split)
    both = paired[paired["llm_score"].notna() & paired["llm_score_base"].notna()]
    human, new, old = (both[c].to_numpy(dtype=np.int8) for c in ("human_score", "llm_score", "llm_score_base"))
    groups, n_groups = _codes(both["group"])
    weights = inclusion_weights(both)
    new_cells, old_cells = (cells_by_group(human, llm, groups, n_groups, weights) for llm in (new, old))
    is_fixed, is_broken = (new == human) & (old != human), (new != human) & (old == human)
    n_fixed, n_broken = int(np.count_nonzero(is_fixed)), int(np.count_nonzero(is_broken))
    return Comparison(
        base_kappa=to_optional(float(cohen_kappa(old_cells.sum(axis=0)))),
        kappa=to_optional(float(cohen_kappa(new_cells.sum(axis=0)))),
        p_value=gain_p(new_cells, old_cells, weights, seed),
        n_compared=len(both),
        n_groups=n_groups,
        n_all_groups=int(version["group"].nunique()) if n_all_groups is None else n_all_groups,
        n_fixed=n_fixed,
        n_broken=n_broken,
        has_lost_coverage=bool(paired["llm_score"].isna().sum() > paired["llm_score_base"].isna().sum()),
        n_differing_groups=int(np.count_nonzero((new_cells != old_cells).any(axis=1))),
        mcnemar_p=exact_mcnemar(n_fixed, n_broken) if n_groups == len(both) and weights is None else None,
        new_error_share=_new_error_share(both, weights, is_broken, is_fixed),
        basis=basis,
        is_weighted=weights is not None,
    )


def pair_verdicts(base: pd.DataFrame, version: pd.DataFrame, *, split: str | None = "dev") -> pd.DataFrame:
    """The rows of a version with the base's verdict beside its own, as `llm_score_base`; examples of either left out.

    Args:
        base: As `join_labels` gives it.
        version: Likewise.
        split: The split to keep; None for all.
    """
    columns = ["record_id", "llm_score", "is_example"]
    both = version.merge(base[columns], on="record_id", suffixes=("", "_base"))
    is_kept = ~both["is_example"].astype(bool) & ~both["is_example_base"].astype(bool)
    if split is not None:
        is_kept &= (both["split"] == split).astype(bool)
    return both[is_kept]


def exact_mcnemar(n_fixed: int, n_broken: int) -> float:
    """The probability of at least so many fixed among the changed records, were fixing and breaking equally likely.

    McNemar (1947), Psychometrika 12:153-157, by the binomial distribution, one-sided.
    """
    from scipy.special import bdtrc

    n = n_fixed + n_broken
    return float(bdtrc(n_fixed - 1, n, 0.5)) if n_fixed else 1.0


def groups_needed(alpha: float) -> int:
    """How many groups must differ so that a test that swaps them could reach alpha at all: 6 for three rounds."""
    return math.ceil(math.log2(1 / alpha))


def decide(
    comparison: Comparison, *, max_rounds: int, max_new_errors: float = MAX_NEW_ERRORS, is_simpler: bool = False
) -> tuple[Verdict, str]:
    """Promote, reject, or leave undecided, and why.

    Args:
        comparison: The evidence.
        max_rounds: Looks at dev that the whole loop may take.
        max_new_errors: Severity of newly wrong records that a gain may cost, as a share of that of the mended ones.
        is_simpler: The version tells the judge less than its base: then it wins a tie.
    """
    c = comparison
    if c.n_all_groups < MIN_GROUPS:
        return (
            "undecided",
            f"too few groups: {c.n_all_groups} of the {MIN_GROUPS} that a split needs to decide anything, "
            f"missing {MIN_GROUPS - c.n_all_groups}",
        )
    if c.p_value is None or c.kappa is None or c.base_kappa is None:
        return "undecided", f"kappa is undefined on the {c.n_compared} {c.basis} records judged under both versions"
    which = "weighted kappa" if c.is_weighted else "kappa"
    gain = (
        f"{which} on {c.basis} {c.base_kappa:.3f} → {c.kappa:.3f}, {c.n_fixed} fixed, {c.n_broken} broken "
        f"of {c.n_compared}"
    )
    if c.has_lost_coverage:
        return "rejected", f"{gain}; but the judge failed on more records"
    if c.n_fixed == c.n_broken == 0:
        return ("promoted", f"{gain}; a tie, and simpler") if is_simpler else ("rejected", f"{gain}; a tie")
    if c.kappa <= c.base_kappa:
        return "rejected", f"{gain}; no gain"
    alpha = ALPHA / max(max_rounds, 1)
    needed = groups_needed(alpha)
    if c.n_differing_groups < needed:
        missing = needed - c.n_differing_groups
        more = math.ceil(c.n_all_groups * missing / c.n_differing_groups)
        return (
            "undecided",
            f"{gain}; the versions differ in {c.n_differing_groups} groups and {needed} are needed to decide at "
            f"{alpha:.4f}: missing {missing}, about {more} more labelled groups at this rate",
        )
    if c.p_value > alpha:
        return "rejected", f"{gain}; {_show(c.p_value)} > {alpha:.4f}{_foretell(c, alpha)}"
    if c.new_error_share is None or c.new_error_share > max_new_errors:
        weight = "more than nothing" if c.new_error_share is None else f"{c.new_error_share:.0%}"
        return (
            "rejected",
            f"{gain}; {_show(c.p_value)}, but the new errors weigh {weight} of those it mends, "
            f"over the budget of {max_new_errors:.0%}",
        )
    return "promoted", f"{gain}; {_show(c.p_value)} ≤ {alpha:.4f}"


def _show(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}"


def _foretell(comparison: Comparison, alpha: float) -> str:
    """How many groups a gain as large as this would take to show; empty where that is no plan."""
    from scipy.special import ndtri

    p = comparison.p_value
    if p is None or p >= 0.5:  # beyond it there is no sign of a gain
        return ""
    factor = float((ndtri(1 - alpha) + ndtri(POWER)) / ndtri(1 - p)) ** 2
    if factor > _MAX_FORETOLD:
        return ""
    n = math.ceil(comparison.n_groups * factor)
    return f"; a gain of this size would take about {n} groups to show, {n - comparison.n_groups} more"


def _new_error_share(
    both: pd.DataFrame, weights: Floats | None, is_broken: NDArray[np.bool_], is_fixed: NDArray[np.bool_]
) -> float | None:
    severity = np.ones(len(both))
    if "severity" in both.columns:
        severity = both["severity"].to_numpy(dtype=np.float64, na_value=1.0)
    if weights is not None:
        severity = severity * weights
    new, mended = float(severity[is_broken].sum()), float(severity[is_fixed].sum())
    if new == 0:
        return 0.0
    return new / mended if mended > 0 else None


def _codes(groups: pd.Series) -> tuple[NDArray[np.int64], int]:
    codes, names = pd.factorize(groups, sort=True)
    return codes.astype(np.int64), len(names)
