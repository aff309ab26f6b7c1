"""The gate: whether a version is better than its base, decided on dev."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.agreement import ConfusionMatrix, point_metrics, to_optional
from caliber_pipeline.core.splits import MIN_GROUPS

ALPHA: Final = 0.05  # of the whole loop: divided by the rounds that it may take, since each is one more look
N_PERMUTATIONS: Final = 20_000  # resolves p = 0.0167 (three rounds) to ± 0.001
_BATCH: Final = 1_000  # permutations at a time, which bounds memory

Verdict = Literal["promoted", "rejected", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same dev records.

    Attributes:
        base_kappa: Cohen's kappa of the base; None where undefined.
        kappa: Cohen's kappa of the other version.
        p_value: One-sided, of the paired permutation test; None where kappa is undefined or nothing can be compared.
        n_compared: Dev records judged under both versions and shown as an example in neither.
        n_groups: Groups among them.
        n_all_groups: Groups among all labelled records.
        n_fixed: Records that only the other version gets right.
        n_broken: Records that only the base gets right.
        has_lost_coverage: The version failed on more of the records than the base.
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


def compare_versions(base: pd.DataFrame, version: pd.DataFrame, *, seed: int = 0) -> Comparison:
    """Compare two versions by a paired permutation test of the gain in kappa that swaps whole groups.

    Under the hypothesis of no difference the two verdicts on a group's records may be exchanged; the p-value is the
    share of such exchanges with at least the observed gain (Good, 2005, Permutation, Parametric and Bootstrap Tests of
    Hypotheses, ch. 3), with the observed one counted in.

    Args:
        base: As `join_labels` gives it.
        version: Likewise, for the version that asks for promotion.
        seed: Of the permutations.
    """
    columns = ["record_id", "llm_score", "is_example"]
    both = version.merge(base[columns], on="record_id", suffixes=("", "_base"))
    both = both[(both["split"] == "dev") & ~both["is_example"] & ~both["is_example_base"]]
    has_lost_coverage = bool(both["llm_score"].isna().sum() > both["llm_score_base"].isna().sum())
    both = both[both["llm_score"].notna() & both["llm_score_base"].notna()]
    human, new, old = (both[c].to_numpy(dtype=np.int8) for c in ("human_score", "llm_score", "llm_score_base"))
    groups, n_groups = _codes(both["group"])
    new_cells, old_cells = (_cells_by_group(human, llm, groups, n_groups) for llm in (new, old))
    return Comparison(
        base_kappa=ConfusionMatrix.from_scores(human, old).cohen_kappa,
        kappa=ConfusionMatrix.from_scores(human, new).cohen_kappa,
        p_value=_permutation_p(new_cells, old_cells, seed),
        n_compared=len(both),
        n_groups=n_groups,
        n_all_groups=int(version["group"].nunique()),
        n_fixed=int(np.count_nonzero((new == human) & (old != human))),
        n_broken=int(np.count_nonzero((new != human) & (old == human))),
        has_lost_coverage=has_lost_coverage,
    )


def decide(comparison: Comparison, *, max_rounds: int) -> tuple[Verdict, str]:
    """Promote, reject, or leave undecided, and why."""
    c = comparison
    if c.n_all_groups < MIN_GROUPS:
        return (
            "undecided",
            f"too few groups: {c.n_all_groups} of the {MIN_GROUPS} that a split needs to decide anything",
        )
    if c.p_value is None or c.kappa is None or c.base_kappa is None:
        return "undecided", f"kappa is undefined on the {c.n_compared} dev records judged under both versions"
    gain = f"kappa on dev {c.base_kappa:.3f} → {c.kappa:.3f}, {c.n_fixed} fixed, {c.n_broken} broken of {c.n_compared}"
    if c.has_lost_coverage:
        return "rejected", f"{gain}; but the judge failed on more records"
    alpha = ALPHA / max(max_rounds, 1)
    if c.p_value <= alpha:
        return "promoted", f"{gain}; p = {c.p_value:.4f} ≤ {alpha:.4f}"
    return "rejected", f"{gain}; p = {c.p_value:.4f} > {alpha:.4f}"


def _codes(groups: pd.Series) -> tuple[NDArray[np.int64], int]:
    codes, names = pd.factorize(groups, sort=True)
    return codes.astype(np.int64), len(names)


def _cells_by_group(
    human: NDArray[np.int8], llm: NDArray[np.int8], groups: NDArray[np.int64], n_groups: int
) -> NDArray[np.int64]:
    """The four cells of each group, in the order of `agreement.CELLS`, shape (n_groups, 4)."""
    cell = np.select([(human == 1) & (llm == 1), (human == 0) & (llm == 0), human == 0], [0, 1, 2], default=3)
    return np.bincount(groups * 4 + cell, minlength=4 * n_groups).reshape(n_groups, 4)


def _permutation_p(new: NDArray[np.int64], old: NDArray[np.int64], seed: int) -> float | None:
    difference = (new - old)[(new != old).any(axis=1)]
    new_sum, old_sum = new.sum(axis=0), old.sum(axis=0)
    observed = to_optional(float(_gain(new_sum, old_sum)))
    if observed is None:
        return None
    rng = np.random.default_rng(seed)
    n_as_large = 1
    for _ in range(N_PERMUTATIONS // _BATCH):
        swapped = rng.integers(0, 2, size=(_BATCH, len(difference))) @ difference
        gains = _gain(new_sum - swapped, old_sum + swapped)
        n_as_large += int(np.count_nonzero(gains >= observed - 1e-12))
    return n_as_large / (N_PERMUTATIONS + 1)


def _gain(new: NDArray[np.int64], old: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(point_metrics(new)["cohen_kappa"] - point_metrics(old)["cohen_kappa"])
