"""`caliber judge`: verdicts on every stored record, labelled or not, in shards."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting, amount, count
from caliber_pipeline.settings import JUDGES

if TYPE_CHECKING:
    from caliber_pipeline.resources import Project
    from caliber_pipeline.stores.sharded_work import ShardProgress

_EXAMPLES = """\
# all records that `caliber ingest` or `caliber run` stored there
caliber judge --output runs/answers --judge openai --model gpt-4o-mini
# at half the price: send now, run again tomorrow to take the verdicts
caliber judge --judge openai --model gpt-4o-mini --mode batch --no-wait
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "judge",
        execute,
        summary="verdicts on every stored record, labelled or not",
        description="Have every stored record judged under one criteria version, in shards: a run that was interrupted "
        "goes on where it ended. The verdicts are the Parquet files of one folder below OUTPUT/all_scores.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add_output(parser, "where the records are stored")
    add("--version", metavar="VERSION", help="the criteria version (default: the champion)")
    add("--judge", choices=JUDGES, help="who judges (default: local, the embedded one)")
    add("--mode", choices=("live", "batch"), help="of --judge openai: batch costs half, and takes up to a day")
    add(
        "--no-wait",
        action="store_true",
        help="of --mode batch: send, take what has ended, and leave the rest to another run",
    )
    add("--provider", metavar="NAME", help="of --judge openai: openai, azure, anthropic, gemini, ollama, … or custom")
    add("--model", metavar="NAME", help="of --judge openai, for criteria that name none")
    add("--base-url", metavar="URL", help="of --judge openai: any OpenAI-compatible endpoint")
    add("--max-concurrency", type=count, metavar="N", help="calls under way at once (default: 32)")
    add("--max-cost-usd", type=amount, metavar="USD", help="spending cap of the run; exit code 3 if reached")
    add("--backend", choices=("local", "ray"), help="where the shards are judged: here, or on a Ray cluster")
    add("--ray-address", metavar="ADDRESS", help="of the cluster, as ray.init takes it (default: one on this machine)")
    add("--ray-workers", type=int, metavar="N", help="actors, each with a judge of its own (default: 2)")
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Judge and tell what came of it.

    Raises:
        InputError: no version can be used.
        MissingStepError: no records are stored.
        JudgeError: the judge as a whole cannot work, or no record got a verdict.
        SpendingCapError: the spending cap was reached.
        CaliberError: another command is at work on the output.
    """
    from caliber_pipeline.assets.all_scores import count_statuses, load_examples
    from caliber_pipeline.commands.run import build_settings, hold_output
    from caliber_pipeline.core.errors import JudgeError
    from caliber_pipeline.judges.batch_judge import StillUnderWayError
    from caliber_pipeline.resources import Project

    project = Project.from_settings(build_settings(arguments))
    version = arguments.version or _champion(project)
    criteria = project.criteria_files.load(version)
    try:
        with hold_output(project.settings):
            folder = project.judge_all(
                version,
                criteria,
                load_examples(project, criteria),
                _reporter(),
                waits=not arguments.no_wait,
                tell=lambda line: sys.stderr.write(f"{line}\n"),
            )
    except StillUnderWayError as under_way:
        sys.stdout.write(
            json.dumps({"version": version, "under_way": str(under_way)}) if arguments.json else str(under_way)
        )
        sys.stdout.write("\n")
        return
    counts = count_statuses(folder)
    shown = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    if arguments.json:
        sys.stdout.write(json.dumps({"version": version, "folder": str(folder), "n_by_status": counts}) + "\n")
    else:
        sys.stdout.write(f"{version}: {shown}; {folder}\n")
    if not counts.get("scored"):
        raise JudgeError(f"{version}: no record got a verdict ({shown}); {folder} has the reasons")
    if counts.get("failed") and not arguments.json:
        sys.stdout.write("run again to have the failed ones asked again\n")


def _champion(project: "Project") -> str:
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.optimized_criteria import current_champion

    champion = current_champion(project.tables.load_versions("optimized_criteria"))
    if champion is None:
        raise InputError(f"{project.settings.output}: no version is champion yet; name one with --version")
    return champion


def _reporter() -> "Callable[[ShardProgress], None]":
    started = time.monotonic()
    n_before: int | None = None

    def report(progress: "ShardProgress") -> None:
        nonlocal n_before
        n_before = progress.n_done - 1 if n_before is None else n_before
        left = (progress.n_shards - progress.n_done) * (time.monotonic() - started) / (progress.n_done - n_before)
        sys.stderr.write(
            f"shard {progress.n_done} of {progress.n_shards}, {progress.n_rows} records judged, {left:.0f} s left\n"
        )

    return report
