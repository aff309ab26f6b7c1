"""`caliber compare`: two criteria versions side by side."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting
from caliber_pipeline.commands.stored import find_version, load_decided, open_project

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from caliber_pipeline.core.gate import Comparison
    from caliber_pipeline.resources import Project

MAX_LISTED: Final = 10  # ids of fixed and of broken records on a terminal; --json lists all
_EXAMPLES = """\
# what v002 gained over v001, and what it broke
caliber compare v001 v002
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "compare",
        execute,
        summary="two criteria versions side by side: figures, changed verdicts, texts",
        description="Compare version B with version A on the records of dev judged under both.",
        examples=_EXAMPLES,
    )
    parser.add_argument("base", metavar="A", help="an evaluated criteria version")
    parser.add_argument("version", metavar="B", help="another")
    add_output(parser)
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Show the comparison.

    Raises:
        InputError: a version is not evaluated, or the two were evaluated on other data.
    """
    project = open_project(arguments)
    base, version = (find_version(project, name) for name in (arguments.base, arguments.version))
    result = compare_stored(project, base, version)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        _print(result)


def compare_stored(project: "Project", base: str, version: str) -> dict[str, Any]:
    """Two stored versions: figures by split (test only where reported), changed dev records, texts, decision.

    Raises:
        InputError: they were evaluated on other data.
    """
    from caliber_pipeline.assets.ground_truth import GroundTruth
    from caliber_pipeline.core.alignment_metrics import SEALED
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.gate import compare_versions, pair_verdicts
    from caliber_pipeline.core.judge_scores import is_test_judged
    from caliber_pipeline.core.loop import data_fingerprint

    verdicts = {name: project.tables.require("judge_scores", name) for name in (base, version)}
    if len({data_fingerprint(frame.attrs) for frame in verdicts.values()}) > 1:
        raise InputError(f"'{base}' and '{version}' were evaluated on other data; run the job 'calibration' for both")
    truth = GroundTruth.load(project, verdicts[version])
    scored = {name: truth.join(frame) for name, frame in verdicts.items()}
    comparison = compare_versions(scored[base], scored[version], n_all_groups=truth.n_groups)
    paired = pair_verdicts(scored[base], scored[version])
    decided = load_decided(project)
    return {
        "base": base,
        "version": version,
        "comparison": vars(comparison),
        "decision_by_the_gate": _decide(project, comparison, base, version),
        "decision": {name: str(decided[name]["decision"].iloc[0]) for name in (base, version)},
        "figures": {name: _figures(scored[name], verdicts[name].attrs) for name in (base, version)},
        "test_is_null_because": {
            name: None if is_test_judged(frame.attrs) else SEALED for name, frame in verdicts.items()
        },
        "fixed": _changed(paired, is_fixed=True),
        "broken": _changed(paired, is_fixed=False),
        "texts": {name: project.criteria_files.load(name).full_text for name in (base, version)},
        "n_examples": {name: len(project.criteria_files.load(name).examples) for name in (base, version)},
    }


def _decide(project: "Project", comparison: "Comparison", base: str, version: str) -> str:
    from caliber_pipeline.core.gate import decide
    from caliber_pipeline.core.optimized_criteria import is_simpler

    files, loop = project.criteria_files, project.loop
    decision, reason = decide(
        comparison,
        max_rounds=loop.max_iterations,
        max_new_errors=loop.max_new_errors,
        is_simpler=is_simpler(files.load(version), files.load(base)),
    )
    return f"{decision}: {reason}"


def _figures(scored: "pd.DataFrame", attrs: "Mapping[Any, Any]") -> "dict[str, dict[str, float | int | None] | None]":
    from caliber_pipeline.core.judge_scores import is_test_judged
    from caliber_pipeline.core.optimized_criteria import count_cells

    found: dict[str, dict[str, float | int | None] | None] = {}
    for split in ("train", "dev", "test"):
        rows = scored[(scored["split"] == split) & scored["llm_score"].notna() & ~scored["is_example"].astype(bool)]
        cells = count_cells(rows)
        shown = {"n": cells.n, "accuracy": cells.accuracy, "cohen_kappa": cells.cohen_kappa}
        shown |= {"false_positives": cells.false_positives, "false_negatives": cells.false_negatives}
        found[split] = shown if split != "test" or is_test_judged(attrs) else None
    return found


def _changed(paired: "pd.DataFrame", *, is_fixed: bool) -> list[str]:
    both = paired[paired["llm_score"].notna() & paired["llm_score_base"].notna()]
    right, was_right = (both["human_score"] == both[name] for name in ("llm_score", "llm_score_base"))
    changed = right & ~was_right if is_fixed else was_right & ~right
    return [str(record_id) for record_id in both.loc[changed.astype(bool), "record_id"]]


def _print(result: dict[str, Any]) -> None:
    import difflib

    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    names = (result["base"], result["version"])
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in names:
        table.add_column(f"{name}, {result['decision'][name]}", justify="right")
    for split in ("train", "dev", "test"):
        for figure in ("n", "accuracy", "cohen_kappa", "false_positives", "false_negatives"):
            values = [result["figures"][name][split] for name in names]
            cells = ["sealed" if v is None else _number(v[figure]) for v in values]
            table.add_row(f"{split}: {figure.replace('_', ' ')}", *cells)
        if split != "test":
            table.add_row()
    console.print(table)
    console.print(f"The gate, {names[1]} over {names[0]}: {result['decision_by_the_gate']}", markup=False)
    for kind in ("fixed", "broken"):
        ids = result[kind]
        more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
        console.print(f"{kind} on dev ({len(ids)}): {', '.join(ids[:MAX_LISTED])}{more}", markup=False)
    before, after = (result["texts"][name].splitlines() for name in names)
    for line in difflib.unified_diff(before, after, *names, lineterm=""):
        console.print(line, markup=False)
    if before == after:
        console.print("the same criteria text")
    console.print(f"examples: {' → '.join(str(result['n_examples'][name]) for name in names)}", markup=False)


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
