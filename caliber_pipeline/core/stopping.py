"""When the calibration loop ends, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.alignment_metrics import cell_sample, metric_row, metric_value
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.gate import MAX_NEW_ERRORS, Comparison
from caliber_pipeline.core.intervals import metric_intervals
from caliber_pipeline.core.loop import WINNING, base_of, data_fingerprint
from caliber_pipeline.core.splits import MIN_GROUPS

MAX_FAILURES_IN_A_ROW: Final = 2  # two proposals in a row that did not win: more of the same will not either
TOLERANCE: Final = 0.15  # of kappa, by which the lower bound may miss the target: about 120 dev labels at kappa 0.7
_TWO_SIDED: Final = 0.90  # the lower end of the 90 % interval is the one-sided 95 % bound


@dataclass(frozen=True)
class LoopSettings:
    """When the loop ends.

    Attributes:
        kappa_target: Cohen's kappa on dev from which judge and people count as aligned.
        max_iterations: Proposals since a person's file.
        max_new_errors: Severity of newly wrong records to put up with, as a share of that of the mended ones.
        max_cost_usd: What all verdicts and proposals of the loop may cost; None for any.
    """

    kappa_target: float = 0.6
    max_iterations: int = 3
    max_new_errors: float = MAX_NEW_ERRORS
    max_cost_usd: float | None = None


@dataclass(frozen=True)
class Decision:
    """What was decided about a version.

    Attributes:
        decision: baseline, promoted, rejected or undecided.
        reason: The decision in words.
        base: The version it was compared with; None for a first one.
        champion: The champion after the decision.
        comparison: The evidence; None where there was no base.
        is_by_hand: A person decided it, before this evaluation.
    """

    decision: str
    reason: str
    base: str | None
    champion: str
    comparison: Comparison | None
    is_by_hand: bool = False


@dataclass(frozen=True)
class Alignment:
    """How sure it is that the champion agrees with people, on dev.

    Attributes:
        kappa: Cohen's kappa; None where undefined.
        lower_bound: Its one-sided 95 % lower bound; None where it was not computed, and then asked for nothing.
        ceiling: Kappa of people among each other on records that two of them judged; None where there are none.
        judge_with_people: The 95 % interval of the judge's kappa with single people on the same records.
    """

    kappa: float | None
    lower_bound: float | None = None
    ceiling: float | None = None
    judge_with_people: tuple[float, float] | None = None

    def describe_reached(self, target: float) -> str | None:
        """In which sense the target is reached; None where it is not."""
        if self.kappa is not None and self.kappa >= target:
            reached = f"aligned: kappa on dev {self.kappa:.3f} reaches the target {target:g}"
            if self.lower_bound is None:
                return reached
            if self.lower_bound >= target - TOLERANCE:
                return f"{reached}, and is at least {self.lower_bound:.3f} with 95 % confidence"
        if self.ceiling is not None and self.judge_with_people is not None:
            low, high = self.judge_with_people
            # a wide interval reaches any ceiling: what it reaches must be near its other end too; and where people
            # hardly agree with each other, a judge that guesses agrees with them as well, and is not aligned
            if high >= self.ceiling and low >= self.ceiling - 2 * TOLERANCE and low > 0:
                return (
                    f"aligned: the judge agrees with single people (kappa {low:.3f} to {high:.3f} on dev) as they do "
                    f"with each other ({self.ceiling:.3f})"
                )
        return None


def measure_alignment(scored: pd.DataFrame, metrics: pd.DataFrame) -> Alignment:
    """The alignment of a version on dev.

    Args:
        scored: As `join_labels` gives it.
        metrics: The version's `alignment_metrics`.
    """
    kappa = metric_value(metrics, "dev", "cohen_kappa")
    ceiling = metric_value(metrics, "dev", "human_human_kappa")
    row = metric_row(metrics, "dev", "judge_annotator_kappa")
    has_interval = ceiling is not None and not pd.isna(row["ci_low"]) and not pd.isna(row["ci_high"])
    interval = (float(row["ci_low"]), float(row["ci_high"])) if has_interval else None
    return Alignment(kappa, kappa_lower_bound(scored), ceiling, interval)


def kappa_lower_bound(scored: pd.DataFrame) -> float | None:
    """The one-sided 95 % lower bound of Cohen's kappa on dev, whole groups drawn; None where undefined."""
    sample = cell_sample(scored, "dev")
    if sample.n_units == 0:
        return None
    bound = metric_intervals(sample, confidence=_TWO_SIDED)["cohen_kappa"][0]
    return None if np.isnan(bound) else float(bound)


def find_stop(
    decision: Decision,
    criteria: Criteria,
    champion_on_dev: Alignment | float | None,
    n_groups: int,
    decided: Mapping[str, pd.DataFrame],
    data: str,
    settings: LoopSettings,
    *,
    cost_usd: float = 0.0,
) -> str | None:
    """Why the loop ends with a version, or None where a next one is worth trying.

    Args:
        decision: What was decided about it.
        criteria: Its content.
        champion_on_dev: The champion's alignment, or its kappa alone.
        n_groups: Groups among all labelled records.
        decided: The rows of the other decided versions.
        data: The data fingerprint of this evaluation: proposals that failed on other data do not count.
        settings: When the loop ends.
        cost_usd: What the loop has cost so far.
    """
    if settings.max_iterations == 0:
        return "proposals are switched off (max_iterations is 0)"
    if n_groups < MIN_GROUPS:
        return f"too few groups: with {n_groups} of the {MIN_GROUPS} needed no proposal could be decided upon"
    alignment = champion_on_dev if isinstance(champion_on_dev, Alignment) else Alignment(champion_on_dev)
    if (reached := alignment.describe_reached(settings.kappa_target)) is not None:
        return reached
    if criteria.round >= settings.max_iterations:
        return f"all {settings.max_iterations} rounds are used up"
    if settings.max_cost_usd is not None and cost_usd >= settings.max_cost_usd:
        return f"the budget is spent: {cost_usd:.2f} of {settings.max_cost_usd:.2f} US dollars"
    losers = [
        version
        for version, frame in decided.items()
        if base_of(frame) == decision.champion
        and frame["decision"].iloc[0] not in WINNING
        and data_fingerprint(frame.attrs) == data
    ]
    n_failures = len(losers) + (decision.decision not in WINNING)
    if n_failures >= MAX_FAILURES_IN_A_ROW:
        return f"no improvement {n_failures} times over {decision.champion}"
    return None
