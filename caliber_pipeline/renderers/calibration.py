"""The outcome of the loop on a terminal."""

from typing import Any, Final

from rich.console import Console

from caliber_pipeline.core.agreement import interpret_kappa
from caliber_pipeline.core.calibration_history import CalibrationSummary
from caliber_pipeline.core.plain_words import labels_in_all
from caliber_pipeline.core.stability import MIN_STABILITY
from caliber_pipeline.renderers.wording import format_figure
from caliber_pipeline.settings import DEFAULT_OUTPUT

MAX_PATTERNS: Final = 8  # per verdict on a terminal; the report and --json have more
_TITLES: Final = {"reject": "What people say where they reject", "accept": "What people say where they accept"}


def print_summary(summary: CalibrationSummary) -> None:
    """Print versions, patterns, what was left out, and what to do next."""
    console = Console(highlight=False)
    _print_versions(summary, console)
    _print_outcome(summary, console)
    _print_patterns(summary, console)
    _print_input(summary, console)
    console.print("\nNext:")
    steps = _next_steps(summary)
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        console.print(f"  {command:<{width}}  {what}", markup=False, soft_wrap=True)


def _print_versions(summary: CalibrationSummary, console: Console) -> None:
    from rich import box
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, title="Criteria versions", title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("version", no_wrap=True)
    for name in ("dev acc.", "kappa"):
        table.add_column(name, justify="right")
    table.add_column("in words", no_wrap=True)
    for name in ("FP", "FN", "test acc.", "kappa"):
        table.add_column(name, justify="right")
    table.add_column("decision", no_wrap=True)
    for version in summary.versions:
        table.add_row(*_cells(version, is_champion=version["criteria_version"] == summary.champion))
    console.print(table)
    for version in summary.versions:
        console.print(f"  {escape(version['criteria_version'])}")
        lines = [version["decision_reason"]]
        if version["kappa_corrected"] is not None:
            lines.append(f"corrected for being the best of those compared: kappa {version['kappa_corrected']:.3f}")
        if version.get("is_on_earlier_data"):
            lines.append("measured on earlier data: not to be compared with the champion's figures")
        if version.get("labels_on_dev"):
            lines.append(f"on dev: {version['labels_on_dev']}")
        for line in lines:
            console.print(Padding(escape(line), (0, 0, 0, 4), expand=False))


def _print_outcome(summary: CalibrationSummary, console: Console) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    if summary.stop_reason:
        console.print(f"\nThe loop ended: {escape(summary.stop_reason)}.")
    console.print(f"Champion: [bold]{escape(summary.champion)}[/bold].")
    n_looks = max(version["n_test_looks"] for version in summary.versions)
    console.print(f"Test was looked at for {_count(n_looks, 'version')} on these data, and decided nothing.")
    if summary.human_kappa is not None and summary.judge_annotator_kappa is not None:
        console.print(
            f"On dev two people agree by a kappa of {summary.human_kappa:.2f}, judge and one person by "
            f"{summary.judge_annotator_kappa:.2f}."
        )
    if summary.drift_alarm:
        console.print(f"[bold red]Drift alarm:[/bold red] {escape(summary.drift_alarm)}")
    if summary.in_words:
        console.print("\nIn plain words:")
        for line in summary.in_words:
            console.print(Padding(escape(line), (0, 0, 0, 2), expand=False))


def _print_patterns(summary: CalibrationSummary, console: Console) -> None:
    from rich.text import Text

    for polarity, title in _TITLES.items():
        own = [pattern for pattern in summary.patterns if pattern["polarity"] == polarity]
        if not own:
            continue
        console.print(f"\n{title}:", style="italic")
        for pattern in own[:MAX_PATTERNS]:
            mark = "~" if pattern["is_unstable"] else " "
            line = Text(f"  {pattern['count']:>6} {mark} {pattern['name']}")
            console.print(line, no_wrap=True, overflow="ellipsis")
        if len(own) > MAX_PATTERNS:
            console.print(f"         and {len(own) - MAX_PATTERNS} more")
    if any(pattern["is_unstable"] for pattern in summary.patterns):
        console.print(f"  ~ unstable: other notes would give another theme (stability under {MIN_STABILITY:g}).")
    if summary.n_unclustered:
        console.print(f"  {_count(summary.n_unclustered, 'note')} in no pattern.")


def _print_input(summary: CalibrationSummary, console: Console) -> None:
    console.print(f"\n{_count(summary.n_records, 'record')}; tables: {summary.output}", markup=False, soft_wrap=True)
    for name, n in (
        ("rejected_records", summary.n_rejected_records),
        ("rejected_annotations", summary.n_rejected_annotations),
    ):
        if n:
            what = "the records file" if name == "rejected_records" else "the annotations"
            first = f" (the first, {summary.first_rejections[name]})" if name in summary.first_rejections else ""
            console.print(
                f"{_count(n, 'row')} of {what} rejected{first}: see line and reason in {summary.output}/{name}.parquet",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
    if summary.n_stale_annotations:
        console.print(
            f"{summary.n_stale_annotations} annotations were made under criteria of another substance than "
            f"{summary.champion}: have them given again (`caliber annotate`).",
            markup=False,
        )


def _next_steps(summary: CalibrationSummary) -> list[tuple[str, str]]:
    """Commands, and what each is for: the first is what the figures call for."""
    is_default = summary.output == str(DEFAULT_OUTPUT)
    where = "" if is_default else f" --output {summary.output}"
    champion = next(v for v in summary.versions if v["criteria_version"] == summary.champion)
    missing = champion.get("labels_missing")
    steps = []
    if missing:
        steps.append(_more_labels(labels_in_all(missing), summary.n_unlabelled, where))
    steps.append((f"caliber report{where} --to report.html", "the same to read and to forward"))
    if not missing:
        steps.append((f"caliber plan{where}", "how many more labels would say more"))
        steps.append((f"caliber export{where} --to judge.json", "the champion, to score with"))
    if summary.n_to_relabel:
        what = f"{_count(summary.n_to_relabel, 'record')} whose label is in doubt ('To relabel')"
        steps.append((f"caliber annotate{where}", what))
    if is_default:
        steps.append(("dagster dev", "every stage, on http://127.0.0.1:3000"))
    return steps


def _more_labels(n: int, n_unlabelled: int, where: str) -> tuple[str, str]:
    if n_unlabelled >= n:
        return f"caliber annotate{where}", f"about {n} more labels before anything can be said"
    return (
        f"caliber run --records …{where}",
        f"again, with about {n} more labelled answers: {n_unlabelled} are left here",
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _cells(version: dict[str, Any], *, is_champion: bool) -> list[str]:
    dev, test = version["splits"]["dev"], version["splits"]["test"]
    return [
        version["criteria_version"] + (" *" if is_champion else ""),
        format_figure(dev["accuracy"]),
        format_figure(dev["cohen_kappa"]),
        "too few" if version.get("labels_missing") else interpret_kappa(dev["cohen_kappa"]),
        str(dev["false_positives"]),
        str(dev["false_negatives"]),
        format_figure(test["accuracy"]) if test else "sealed",
        format_figure(test["cohen_kappa"]) if test else "sealed",
        version["decision"],
    ]
