"""What the champion's figures say to someone who knows none of the metrics."""

import math

import pandas as pd

from caliber_pipeline.core.alignment_metrics import metric_row, metric_value
from caliber_pipeline.core.splits import DEV_SHARE


def labels_in_all(n_dev: int) -> int:
    """How many labels it takes for so many on dev, which gets its share of whatever is labelled."""
    return math.ceil(n_dev / DEV_SHARE)


def describe_champion(metrics: pd.DataFrame, version: str, *, kappa_target: float) -> list[str]:
    """Sentences about a version on dev: how often it is right, how it errs, and whether to rely on it.

    Args:
        metrics: Its `alignment_metrics`.
        version: Its name.
        kappa_target: What counts as aligned.
    """
    prevalence, accuracy = (metric_row(metrics, "dev", name) for name in ("prevalence", "accuracy"))
    if pd.isna(accuracy["value"]):
        return ["Dev, the part of the data that decides, holds no judged answer: nothing can be said yet."]
    missing = int(metric_value(metrics, "dev", "labels_missing") or 0)
    share = float(prevalence["value"])
    lines = [
        f"On the {accuracy['n']} answers of dev, the part of the data that decides, {version} gives people's verdict "
        f"on {accuracy['value']:.0%}; always saying '{'accept' if share >= 0.5 else 'reject'}' would on "
        f"{max(share, 1 - share):.0%}."
    ]
    if share in {0.0, 1.0}:
        given, other = ("accept", "reject") if share else ("reject", "accept")
        return [
            *lines,
            f"People {given} all of them, so that nothing shows whether the judge can tell good answers from bad ones: "
            f"label some that people {other}.",
        ]
    specificity, recall = (metric_value(metrics, "dev", name) for name in ("specificity", "recall"))
    lines.append(
        f"It lets pass {1 - float(specificity or 0):.0%} of what people reject (false positives, FP), and turns down "
        f"{1 - float(recall or 0):.0%} of what people accept (false negatives, FN)."
    )
    if missing:
        lines.append(
            f"These labels are too few to rely on that: label about {labels_in_all(missing)} more answers; {missing} "
            "of those would come to dev."
        )
    else:
        lines.append(_describe_kappa(metric_row(metrics, "dev", "cohen_kappa"), kappa_target))
    return lines


def _describe_kappa(kappa: pd.Series, target: float) -> str:
    value, low, high = (float(kappa[name]) for name in ("value", "ci_low", "ci_high"))
    figure = f"kappa, which is 0 for chance and 1 for full agreement, is {value:.2f} ({low:.2f} to {high:.2f})"
    if low >= target:
        return f"It agrees with people as well as was asked for: {figure}, all of it at or above the target {target:g}."
    if value >= target:
        return f"It reaches the target {target:g}, but these labels allow for less: {figure}."
    if low > 0:
        return f"It beats chance and misses the target {target:g}: {figure}. Do not let it decide alone."
    return f"Nothing shows that it beats chance: {figure}. Do not rely on it."
