"""`caliber ablate`: what each clause and example of a version contributes, on train."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Final

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting
from caliber_pipeline.commands.stored import find_version, open_project

if TYPE_CHECKING:
    from caliber_pipeline.core.ablation import Contribution
    from caliber_pipeline.core.criteria import Criteria
    from caliber_pipeline.resources import Project

MAX_TEXT: Final = 90  # characters of a clause that does nothing: enough to find it by
_EXAMPLES = """\
# what each clause and example of the champion is worth
caliber ablate
# of another version
caliber ablate v003
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "ablate",
        execute,
        summary="leave out each clause and example of a version and see what it costs",
        description="Judge train again without each clause and each example: the change in kappa, with its interval. "
        "A record that is shown as an example is judged while a fifth of the examples, itself among them, is left out.",
        examples=_EXAMPLES,
    )
    parser.add_argument("version", metavar="VERSION", nargs="?", help="default: the champion")
    add_output(parser)
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Show the contributions.

    Raises:
        InputError: the version is not evaluated, or its verdicts are recorded ones.
    """
    from caliber_pipeline.core.errors import InputError

    project = open_project(arguments)
    version = find_version(project, arguments.version)
    if project.settings.judge == "recorded":
        raise InputError("recorded verdicts do not depend on the criteria; nothing can be left out")
    contributions = ablate(project, version)
    if arguments.json:
        content = {"criteria_version": version, "parts": [vars(item) for item in contributions]}
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        _print(version, contributions)


def ablate(project: "Project", version: str) -> "list[Contribution]":
    """The contribution of every clause and example; verdicts that are known cost nothing."""
    import pandas as pd

    from caliber_pipeline.assets.ground_truth import GroundTruth
    from caliber_pipeline.assets.proposing import open_train_judge
    from caliber_pipeline.core.ablation import hold_out, leave_out, list_parts, measure_contribution, select_ablated

    verdicts = project.tables.require("judge_scores", version)
    criteria, truth = project.criteria_files.load(version), GroundTruth.load(project, verdicts)
    scored, judge = select_ablated(truth.join(verdicts)), open_train_judge(project, truth)
    batches = hold_out(criteria, scored["record_id"].astype(str).tolist())

    def judge_all(criteria: "Criteria") -> pd.DataFrame:
        """record_id and llm_score."""
        given = [judge.judge(leave_out(criteria, left_out), record_ids) for record_ids, left_out in batches]
        return pd.concat(given, ignore_index=True)[["record_id", "llm_score"]]

    if not batches:
        return []
    full = scored.drop(columns="llm_score").merge(judge_all(criteria).dropna(), on="record_id")
    return [measure_contribution(part, full, judge_all(part.without)) for part in list_parts(criteria)]


def _print(version: str, contributions: "list[Contribution]") -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from caliber_pipeline.core.themes import shorten

    console = Console(highlight=False)
    if not contributions:
        console.print(f"{version} has neither clauses nor examples to leave out.", markup=False)
        return
    title = f"{version} without each part: change in kappa and verdicts changed, on {contributions[0].n} train records"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for name in ("part", "kappa", "95 % interval", "changed", "effect"):
        table.add_column(name, justify="left" if name in {"part", "effect"} else "right", no_wrap=True)
    for item in contributions:
        change = "n/a" if item.change is None else f"{item.change:+.3f}"
        interval = "" if item.ci_low is None else f"{item.ci_low:+.3f} to {item.ci_high:+.3f}"
        table.add_row(escape(item.name), change, interval, str(item.n_changed), item.effect)
    console.print(table)
    if any(item.effect == "too few records" for item in contributions):
        console.print("Train has too few groups of records to tell; label more.")
    idle = [item for item in contributions if item.effect == "does nothing"]
    console.print(f"Without any effect: {', '.join(item.name for item in idle) or 'none'}.", markup=False)
    for item in idle:
        if item.name.startswith("clause"):
            console.print(f"  {item.name}: {shorten(item.text, MAX_TEXT)}", markup=False, soft_wrap=True)
