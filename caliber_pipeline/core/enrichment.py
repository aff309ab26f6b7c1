"""Enrichment: which themes in people's notes the judge misses more often than others."""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_FALSE_DISCOVERY_RATE: Final = 0.05  # q-value up to which a theme is called enriched

_CELLS: Final = ("n_missed", "n_caught", "n_other_missed", "n_other_caught")
COLUMNS: Final = {
    "pattern_id": "string[pyarrow]",
    "name": "string[pyarrow]",
    "kind": "string[pyarrow]",
    "n_missed": "int64[pyarrow]",
    "n_caught": "int64[pyarrow]",
    "n_other_missed": "int64[pyarrow]",
    "n_other_caught": "int64[pyarrow]",
    "share_missed": "double[pyarrow]",
    "share_other_missed": "double[pyarrow]",
    "odds_ratio": "double[pyarrow]",
    "p_value": "double[pyarrow]",
    "q_value": "double[pyarrow]",
    "is_enriched": "bool[pyarrow]",
}


def measure_enrichment(scored: pd.DataFrame, patterns: pd.DataFrame) -> pd.DataFrame:
    """Test for each pattern whether the judge errs more on its notes' records than on the other notes' records.

    The universe is what can be missed: of the rejected records with notes, false positives against true negatives; of
    the accepted ones with notes, false negatives against true positives. Over all records every theme would look
    enriched, since only rejects can be false positives. p is Fisher's exact test, one-sided (missed more often); q is
    its Benjamini-Hochberg adjustment over all patterns of the table (Benjamini & Hochberg, 1995, J. R. Stat. Soc. B
    57:289-300).

    Args:
        scored: record_id, human_score, llm_score (null without a verdict) and, if there, is_example; records without
            a verdict or shown as examples do not count. Give the train rows where the result feeds a proposal.
        patterns: A frame of the `patterns` schema; unclustered notes count as other notes.

    Returns:
        One row per pattern with `COLUMNS`, the least q first. Shares are null where there is nothing to share, the
        odds ratio where it divides by zero; p is then 1.
    """
    from scipy.stats import false_discovery_control

    verdicts = _verdicts(scored)
    members = patterns[["pattern_id", "polarity", "record_ids"]].explode("record_ids")
    members = members.rename(columns={"record_ids": "record_id"}).merge(verdicts, on="record_id")
    fits = members["human_score"].astype("int64") == members["polarity"].map({"reject": 0, "accept": 1})
    members = members[fits.astype(bool)]
    cells = members.groupby("pattern_id")["is_missed"].agg(["sum", "count"])
    whole = members.groupby("polarity")["is_missed"].agg(["sum", "count"])
    rows = []
    for pattern in patterns[~patterns["is_unclustered"].astype(bool)].to_dict("records"):
        missed, n = _counts(cells, pattern["pattern_id"])
        all_missed, n_all = _counts(whole, pattern["polarity"])
        kind = "false_positive" if pattern["polarity"] == "reject" else "false_negative"
        counts = (missed, n - missed, all_missed - missed, (n_all - n) - (all_missed - missed))
        rows.append({"pattern_id": pattern["pattern_id"], "name": pattern["name"], "kind": kind} | _figures(*counts))
    frame = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in {"p_value", "q_value", "is_enriched"}])
    frame["p_value"] = _fisher_greater(frame)
    frame["q_value"] = false_discovery_control(frame["p_value"])
    frame["is_enriched"] = frame["q_value"] <= MAX_FALSE_DISCOVERY_RATE
    frame = frame.sort_values(["q_value", "p_value", "n_missed", "pattern_id"], ascending=[True, True, False, True])
    return frame[list(COLUMNS)].reset_index(drop=True).astype(COLUMNS)


def _verdicts(scored: pd.DataFrame) -> pd.DataFrame:
    counts = scored["llm_score"].notna() & scored["human_score"].notna()
    if "is_example" in scored:
        counts &= ~scored["is_example"].astype(bool)
    chosen = scored.loc[counts.astype(bool), ["record_id", "human_score", "llm_score"]]
    is_missed = chosen["human_score"].astype("int64") != chosen["llm_score"].astype("int64")
    return chosen.assign(is_missed=is_missed.astype("int64"))


def _counts(table: pd.DataFrame, key: str) -> tuple[int, int]:
    if key not in table.index:
        return 0, 0
    return int(table["sum"][key]), int(table["count"][key])


def _figures(missed: int, caught: int, other_missed: int, other_caught: int) -> dict[str, float | int | None]:
    divisor = caught * other_missed
    return {
        **dict(zip(_CELLS, (missed, caught, other_missed, other_caught), strict=True)),
        "share_missed": missed / (missed + caught) if missed + caught else None,
        "share_other_missed": other_missed / (other_missed + other_caught) if other_missed + other_caught else None,
        "odds_ratio": missed * other_caught / divisor if divisor else None,
    }


def _fisher_greater(table: pd.DataFrame) -> NDArray[np.float64]:
    """Fisher's exact test per row, one-sided: the probability of so many missed or more, the margins given."""
    from scipy.stats import hypergeom

    missed, caught, others_missed, others_caught = (table[name].to_numpy(dtype=np.int64) for name in _CELLS)
    n_theme, n_missed = missed + caught, missed + others_missed
    p_values = hypergeom.sf(missed - 1, n_theme + others_missed + others_caught, n_missed, n_theme)
    return np.asarray(np.clip(np.nan_to_num(p_values, nan=1.0), 0.0, 1.0))  # NaN where there is no record at all
