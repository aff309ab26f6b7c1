"""Which annotated records a judge is shown as examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.arguments import INTEGER, accepts
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_texts

UNCLUSTERED: Final = "unclustered"  # what the pattern ids of records without a pattern start with

_Mask = npt.NDArray[np.bool_]


class SelectionStrategy(StrEnum):
    """How examples are chosen; `caliber_pipeline/docs/example_selection.md` says when to use which."""

    BALANCED = "balanced"
    MISALIGNMENT_GUIDED = "misalignment_guided"
    PATTERN_AWARE = "pattern_aware"


@dataclass(frozen=True)
class ExampleSelection:
    """The chosen records.

    Attributes:
        examples: Their rows of the candidates, in a seeded order that mixes accepts and rejects.
        strategy_used: How they were chosen.
        metadata: How many there are of each kind, and how many there were to choose from.
    """

    examples: pd.DataFrame
    strategy_used: SelectionStrategy
    metadata: Mapping[str, int]


@accepts(count=INTEGER)
def select_examples(
    candidates: pd.DataFrame,
    count: int,
    strategy: SelectionStrategy | str = SelectionStrategy.BALANCED,
    seed: int = 0,
) -> ExampleSelection:
    """Choose examples; a pure function of its arguments, whatever the order of the rows.

    Balanced: half accepts, half rejects, an odd one a reject, filled from the other side where one is short.
    Misalignment-guided: a third false positives, a third false negatives, the rest balanced among the records on
    which judge and people agree; where those run out, from what is left. Pattern-aware: one of each pattern, the
    largest patterns first, the rest balanced.

    Args:
        candidates: One row per record: record_id, human_score (rows without one are never chosen) and, where the
            strategy reads them, llm_score and pattern_id (null, or starting with 'unclustered': no pattern).
        count: How many to choose; fewer come back where there are fewer annotated candidates.
        strategy: How to choose.
        seed: Another seed chooses other records of the same kinds.

    Raises:
        InputError: the strategy is unknown, the count is negative, ids repeat, a score is neither 0 nor 1, or the
            column that the strategy reads is missing.
    """
    strategy = parse_strategy(strategy)
    if count < 0:
        raise InputError(f"cannot choose {count} examples; give a count of 0 or more")
    pool = _shuffle(candidates, seed)
    choice = _Choice(_accepts(pool))
    metadata: dict[str, int] = {}
    if strategy is SelectionStrategy.MISALIGNMENT_GUIDED:
        metadata = _choose_misaligned(choice, pool, count)
    elif strategy is SelectionStrategy.PATTERN_AWARE:
        metadata = _choose_by_pattern(choice, pool, count)
    choice.take_balanced(choice.everything, count)
    chosen = pool.iloc[sorted(choice.positions)].reset_index(drop=True)
    n_accepts = int(choice.is_accept[choice.positions].sum())
    metadata = {"accepts": n_accepts, "rejects": len(chosen) - n_accepts, **metadata}
    return ExampleSelection(chosen, strategy, metadata)


def choose_strategy(n_misaligned: int, n_patterns: int) -> SelectionStrategy:
    """Errors teach most; without any, the themes in people's notes do; without those, an even mix."""
    if n_misaligned:
        return SelectionStrategy.MISALIGNMENT_GUIDED
    return SelectionStrategy.PATTERN_AWARE if n_patterns else SelectionStrategy.BALANCED


class _Choice:
    """Positions chosen so far from a shuffled pool: the first of a kind are a random sample of it."""

    def __init__(self, is_accept: _Mask) -> None:
        self.is_accept = is_accept
        self.positions: list[int] = []
        self._is_free = np.ones(len(is_accept), dtype=np.bool_)

    @property
    def everything(self) -> _Mask:
        return np.ones(len(self.is_accept), dtype=np.bool_)

    def take(self, among: _Mask, n: int) -> int:
        """Take up to n of the free ones among these; returns how many."""
        found = np.flatnonzero(among & self._is_free)[: max(n, 0)]
        self._is_free[found] = False
        self.positions += found.tolist()
        return len(found)

    def take_balanced(self, among: _Mask, count: int) -> None:
        """Take half accepts and half rejects until `count` are chosen in all."""
        free = among & self._is_free
        n_free_accepts = int((free & self.is_accept).sum())
        n_free_rejects = int(free.sum()) - n_free_accepts
        n = min(max(count - len(self.positions), 0), n_free_accepts + n_free_rejects)
        n_accepts_so_far = int(self.is_accept[self.positions].sum())
        has_more_rejects = 2 * n_accepts_so_far < len(self.positions)
        n_accepts = (n + has_more_rejects) // 2  # an odd one goes where there are fewer so far, else to the rejects
        n_accepts = min(max(n_accepts, n - n_free_rejects), n_free_accepts)
        self.take(free & self.is_accept, n_accepts)
        self.take(free & ~self.is_accept, n - n_accepts)


def _choose_misaligned(choice: _Choice, pool: pd.DataFrame, count: int) -> dict[str, int]:
    llm = _scores(pool, "llm_score")
    is_judged = ~np.isnan(llm)
    is_fp = (llm == 1) & ~choice.is_accept
    is_fn = (llm == 0) & choice.is_accept
    third = max(count // 3, 1)
    n_fp = choice.take(is_fp, min(third, count))
    choice.take(is_fn, min(third, count - n_fp))
    choice.take_balanced(is_judged & ~is_fp & ~is_fn, count)
    choice.take_balanced(is_judged, count)
    is_chosen = np.zeros(len(pool), dtype=np.bool_)
    is_chosen[choice.positions] = True
    return {
        "false_positives_selected": int((is_chosen & is_fp).sum()),
        "false_negatives_selected": int((is_chosen & is_fn).sum()),
        "aligned_selected": int((is_chosen & is_judged & ~is_fp & ~is_fn).sum()),
        "total_fp_available": int(is_fp.sum()),
        "total_fn_available": int(is_fn.sum()),
    }


def _choose_by_pattern(choice: _Choice, pool: pd.DataFrame, count: int) -> dict[str, int]:
    ids = _column(pool, "pattern_id").to_numpy(dtype=object, na_value=UNCLUSTERED).astype(str)
    names, codes = np.unique(ids, return_inverse=True)
    is_pattern = ~np.char.startswith(names, UNCLUSTERED)
    sizes = np.bincount(codes, minlength=len(names))
    by_size = np.lexsort((names, -sizes))
    for code in by_size[is_pattern[by_size]][:count]:
        choice.take(codes == code, 1)
    choice.take_balanced(choice.everything, count)
    covered = np.unique(codes[choice.positions])
    return {"patterns_covered": int(is_pattern[covered].sum()), "total_patterns": int(is_pattern.sum())}


def parse_strategy(strategy: SelectionStrategy | str) -> SelectionStrategy:
    """The strategy of a name, in whatever case.

    Raises:
        InputError: there is none.
    """
    try:
        return SelectionStrategy(str(strategy).lower())
    except ValueError:
        names = ", ".join(SelectionStrategy)
        raise InputError(f"unknown strategy '{strategy}'; give one of {names}") from None


def _shuffle(candidates: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The annotated candidates in an order that depends on the seed and the ids alone."""
    annotated = candidates[candidates["human_score"].notna()]
    ids = _column(annotated, "record_id").astype(str)
    if not ids.is_unique:
        repeated = list(ids[ids.duplicated()].unique())
        raise InputError(f"{len(repeated)} record ids repeat, e.g. {repeated[:3]}; rename or drop the repeats")
    order = np.lexsort((ids.to_numpy(dtype=object), hash_texts(ids + f"\x1f{seed}")))
    return annotated.iloc[order].reset_index(drop=True)


def _accepts(pool: pd.DataFrame) -> _Mask:
    return np.asarray(_scores(pool, "human_score") == 1)


def _scores(pool: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """0, 1, or NaN where there is none."""
    scores: npt.NDArray[np.float64] = _column(pool, name).to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = scores[~np.isnan(scores) & ~np.isin(scores, (0, 1))]
    if len(wrong):
        raise InputError(f"{len(wrong)} values of {name} are neither 0 nor 1, e.g. {wrong[0]:g}")
    return scores


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name not in table.columns:
        raise InputError(f"the candidates have no column '{name}'; they have {', '.join(map(str, table.columns))}")
    return table[name]
