"""The outcome of the loop on a terminal."""

from typing import Any

from caliber_pipeline.core.agreement import interpret_kappa
from caliber_pipeline.core.calibration_history import CalibrationSummary
from caliber_pipeline.renderers.wording import format_figure


def print_summary(summary: CalibrationSummary) -> None:
    """Print versions, patterns and where the tables lie."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title="Criteria versions", title_justify="left", pad_edge=False)
    table.add_column("version", no_wrap=True)
    for name in ("dev: acc.", "kappa"):
        table.add_column(name, justify="right")
    table.add_column("in words", no_wrap=True)
    for name in ("FP", "FN", "test: acc.", "kappa"):
        table.add_column(name, justify="right")
    table.add_column("decision", no_wrap=True)
    for version in summary.versions:
        table.add_row(*_cells(version, is_champion=version["criteria_version"] == summary.champion))
    console.print(table)
    for version in summary.versions:
        console.print(f"  {version['criteria_version']}: {version['decision_reason']}", markup=False)
        if version.get("labels_on_dev"):
            console.print(f"        on dev: {version['labels_on_dev']}", markup=False)
    if summary.stop_reason:
        console.print(f"\nThe loop ended: {escape(summary.stop_reason)}.")
    patterns = Table(box=box.SIMPLE_HEAD, title="Patterns in the notes", title_justify="left", pad_edge=False)
    patterns.add_column("records", justify="right")
    patterns.add_column("pattern")
    for pattern in summary.patterns:
        patterns.add_row(str(pattern["count"]), escape(pattern["name"]))
    patterns.add_row(str(summary.n_unclustered), "(in no pattern)")
    console.print(patterns)
    console.print(
        f"{summary.n_records} records, {summary.n_rejected_records} rejected rows; "
        f"{summary.n_rejected_annotations} rejected annotations. Champion: [bold]{escape(summary.champion)}[/bold]."
    )
    if summary.n_stale_annotations:
        console.print(
            f"{summary.n_stale_annotations} annotations were made under criteria of another substance than "
            f"{summary.champion}: have them given again (`caliber annotate`).",
            markup=False,
        )
    console.print(f"Parquet: {summary.output}", markup=False, soft_wrap=True)


def _cells(version: dict[str, Any], *, is_champion: bool) -> list[str]:
    dev, test = version["splits"]["dev"], version["splits"]["test"]
    return [
        version["criteria_version"] + (" *" if is_champion else ""),
        format_figure(dev["accuracy"]),
        format_figure(dev["cohen_kappa"]),
        "too few labels" if version.get("labels_missing") else interpret_kappa(dev["cohen_kappa"]),
        str(dev["false_positives"]),
        str(dev["false_negatives"]),
        format_figure(test["accuracy"]) if test else "sealed",
        format_figure(test["cohen_kappa"]) if test else "sealed",
        version["decision"],
    ]
