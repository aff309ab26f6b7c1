"""Plots in the colour of the text around them, so that they read on light and on dark."""

from collections.abc import Sequence
from typing import Final

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.renderers.kappa_charts import Evaluation, plot_kappa_by_version
from caliber_pipeline.renderers.pictures import draw, label
from caliber_pipeline.renderers.views import RoundView

_ACCENT: Final = "#3b82c4"  # 3:1 and more against both white and black
_WRONG: Final = "#c2573a"
_INLINE: Final = "role='img' fill='currentColor' "


def plot_confusion_matrix(metrics: ConfusionMatrix) -> str:
    """The four cells, shaded by their share of all records; the judge's errors in another colour."""
    most = max(metrics.cells) or 1
    cells = (
        (metrics.true_positives, _ACCENT),
        (metrics.false_negatives, _WRONG),
        (metrics.false_positives, _WRONG),
        (metrics.true_negatives, _ACCENT),
    )
    places = [(124 + 132 * (i % 2), 32 + 72 * (i // 2)) for i in range(len(cells))]
    shapes = [
        f"<path d='M{x} {y}h128v68h-128z' fill='{colour}' opacity='{0.08 + 0.5 * count / most:.2f}'/>"
        for (x, y), (count, colour) in zip(places, cells, strict=True)
    ]
    counts = "".join(label(x + 64, y + 42, str(n)) for (x, y), (n, _) in zip(places, cells, strict=True))
    columns, rows = ("judge accepts", "judge rejects"), ("people accept", "people reject")
    shapes += [f"<g font-size='22'>{counts}</g>"]
    shapes += [label(188 + 132 * i, 22, text) for i, text in enumerate(columns)]
    shapes += [label(62, 70 + 72 * i, text) for i, text in enumerate(rows)]
    return draw(392, 184, shapes, f"{_INLINE}text-anchor='middle' ")


def plot_kappa(rounds: Sequence[RoundView]) -> str:
    """Cohen's kappa of each version on dev."""
    evaluations = [Evaluation(each.version, each.decision, each.kappa_by_split.get("dev")) for each in rounds]
    return plot_kappa_by_version(evaluations, {}).replace("<svg ", f"<svg {_INLINE}", 1)
