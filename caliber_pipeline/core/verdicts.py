"""What a judge yields: the part of `judge_scores` that is the judge's to fill, and the statuses it may give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.errors import SpendingCapError
from caliber_pipeline.core.schemas import JUDGE_SCORES

VERDICTS: Final = pa.schema(list(JUDGE_SCORES)[: JUDGE_SCORES.get_field_index("n_attempts") + 1])
"""The columns of a batch from a judge: `judge_scores` up to `n_attempts`."""

STATUSES: Final = ("scored", "unparseable", "refused", "failed", "skipped")
"""A verdict; a reply that says neither 0 nor 1; a refusal; a call that failed for good; not asked, as the spending cap
was reached. Only the first has a score."""

_GO_ON: Final = "the verdicts are kept, run again with a higher cap to go on from there"

NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True)
class JudgingSummary:
    """What a run of the judge gave and took; calls, tokens and cost without what was read from the cache.

    Attributes:
        n_records: Records, one row each.
        n_by_status: Rows by status.
        coverage: Share of the records that got a verdict; None without records.
        n_cached: Verdicts read from the cache.
        n_calls: Calls, retries and repairs included.
        prompt_tokens: Tokens sent; None where a call's were not reported.
        completion_tokens: Tokens received; None where a call's were not reported.
        cost_usd: Cost; None where a price or a count is missing, 0 where no call was made.
        mean_latency_s: Mean seconds from first attempt to verdict; None where it is not known.
        repeat_stability: Mean share of votes that agree with the verdict; None without votes.
        is_capped: The spending cap ended the run early.
    """

    n_records: int
    n_by_status: dict[str, int]
    coverage: float | None
    n_cached: int
    n_calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    mean_latency_s: float | None
    repeat_stability: float | None
    is_capped: bool


def summarize_verdicts(judge_scores: pd.DataFrame) -> JudgingSummary:
    """Sum a `judge_scores` table up."""
    n = len(judge_scores)
    counts = judge_scores["status"].value_counts()
    n_by_status = {status: int(counts.get(status, 0)) for status in STATUSES if counts.get(status, 0)}
    called = judge_scores[~judge_scores["is_cached"].astype(bool) & (judge_scores["n_attempts"] > 0)]
    shares, latencies = judge_scores["vote_share"].dropna(), called["latency_s"].dropna()
    return JudgingSummary(
        n_records=n,
        n_by_status=n_by_status,
        coverage=n_by_status.get("scored", 0) / n if n else None,
        n_cached=int(judge_scores["is_cached"].sum()),
        n_calls=int(called["n_attempts"].sum()),
        prompt_tokens=_total(called["prompt_tokens"], int),
        completion_tokens=_total(called["completion_tokens"], int),
        cost_usd=_total(called["cost_usd"], float),
        mean_latency_s=float(latencies.mean()) if len(latencies) else None,
        repeat_stability=float(shares.mean()) if len(shares) else None,
        is_capped=n_by_status.get("skipped", 0) > 0,
    )


def refuse_capped(summary: JudgingSummary, where: str) -> None:
    """End a run in which the spending cap left records unasked, however few: with them it would be another run.

    Args:
        summary: What was judged.
        where: What it was judged for, as "under 'v001'".

    Raises:
        SpendingCapError: a record was not asked about; the message gives the coverage.
    """
    refuse_skipped(summary.n_by_status, where)


def refuse_skipped(n_by_status: Mapping[str, int], where: str, *, advice: str = _GO_ON) -> None:
    """`refuse_capped`, from the counts alone.

    Args:
        n_by_status: Rows by status.
        where: What was judged, as in `refuse_capped`.
        advice: What became of the verdicts, and what to do.

    Raises:
        SpendingCapError: a record was not asked about; the message gives the coverage.
    """
    if n_by_status.get("skipped", 0):
        n_scored, n_records = n_by_status.get("scored", 0), sum(n_by_status.values())
        raise SpendingCapError(
            f"the spending cap was reached: {n_scored} of {n_records} records judged {where} "
            f"({n_scored / n_records:.1%}); {advice}"
        )


def _total(values: pd.Series, kind: type[NumberT]) -> NumberT | None:
    return None if values.isna().any() else kind(values.sum())
