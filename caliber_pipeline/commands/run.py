"""`caliber run`: the whole calibration loop, on the Dagster instance that `dagster dev` shows."""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from caliber_pipeline.commands.arguments import (
    add_abstention,
    add_annotation_columns,
    add_columns,
    add_command,
    add_output,
    amount,
    count,
    number,
)
from caliber_pipeline.settings import JUDGES, STRATEGIES, Settings, parse_columns

if TYPE_CHECKING:
    from rich.console import Console

    from caliber_pipeline.runs import Report

_JUDGE_OPTIONS = ("provider", "model", "base_url", "max_concurrency", "max_cost_usd")
_EXAMPLES = """\
# the sample, with the embedded judge
caliber run
# your own files, into a folder of their own
caliber run --records answers.csv --annotations labels.csv --output runs/a
# verdicts that came with the records (llm_score)
caliber run --records judged.csv --judge recorded --output runs/judged
# what a judge would cost; then without --dry-run
caliber run --judge openai --model gpt-4o-mini --dry-run
# a model on this machine
caliber run --judge openai --provider ollama --model llama3.1 --output runs/b
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "run",
        execute,
        summary="ingest, judge, measure, find patterns, optimize, and round again until aligned",
        description="Run the calibration loop until judge and people agree, or nothing improves any more.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add(
        "--records",
        type=Path,
        metavar="FILE",
        help="CSV, JSONL or Parquet (default: data/input/records.*)",
    )
    add(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="people's verdicts, where they are not in the records file; of several people in one file, with a column "
        "'annotator'",
    )
    add("--criteria", type=Path, metavar="FILE", help="the first criteria version, for an output without any")
    add_output(parser, "where the Parquet goes")
    add("--judge", choices=JUDGES, help="who judges (default: local, the embedded one)")
    add("--mode", choices=("live", "batch"), help="of --judge openai: batch costs half, and takes up to a day")
    add("--provider", metavar="NAME", help="of --judge openai: openai, azure, anthropic, gemini, ollama, … or custom")
    add("--model", metavar="NAME", help="of --judge openai, for criteria that name none")
    add("--base-url", metavar="URL", help="of --judge openai: any OpenAI-compatible endpoint")
    add("--max-concurrency", type=count, metavar="N", help="calls under way at once (default: 32)")
    add(
        "--max-cost-usd",
        type=amount,
        metavar="USD",
        help="spending cap of the whole run, proposals and language model included; exit code 3 if reached",
    )
    add("--dry-run", action="store_true", help="show what the next version and the loop would cost, and judge nothing")
    add("--group-by", metavar="COLUMN", help="rows with the same value stay together in train, dev or test")
    add_columns(parser)
    add_annotation_columns(parser)
    add("--slice-by", action="append", default=[], metavar="COLUMN", help="a column for whose values to show figures")
    add("--max-iterations", type=int, metavar="N", help="proposals since a person's criteria (default: 3)")
    add("--kappa-target", type=number, metavar="K", help="kappa on dev that counts as aligned (default: 0.6)")
    add(
        "--strategy",
        action="append",
        default=[],
        choices=STRATEGIES,
        help="who proposes the next version; several race on train (default: rules, or rewrite with --judge openai)",
    )
    add_abstention(parser)
    add("--fail-on-drift", action="store_true", help="end with exit code 4 where the champion raises a drift alarm")
    add("--json", action="store_true", help="end with one JSON object on stdout")
    add("--verbose", action="store_true", help="show the runs' logs, and tracebacks")


def execute(arguments: argparse.Namespace) -> None:
    """Run the loop and show what came of it.

    Raises:
        InputError: input, criteria or a setting cannot be used.
        JudgeError: the judge or the language model cannot be had.
        SpendingCapError: the spending cap ended the run, whatever the coverage.
        DriftAlarmError: the champion raises a drift alarm, and that was to end the run so.
        RunFailedError: a run failed for another reason.
    """
    settings = build_settings(arguments)
    console = _console()
    with console.status("starting") as status:
        report = _reporter(console, status.update)
        with hold_output(settings):
            estimate = _run_loop(settings, arguments, report)
    if estimate is not None:
        sys.stdout.write((json.dumps({"estimate": estimate}) if arguments.json else estimate) + "\n")
        return
    alarm = _show(settings, as_json=arguments.json)
    if alarm is not None and arguments.fail_on_drift:
        from caliber_pipeline.core.errors import DriftAlarmError

        raise DriftAlarmError(f"drift alarm: {alarm}")


def build_settings(arguments: argparse.Namespace) -> Settings:
    """The settings of the environment, overridden by those of the command line that the command knows.

    Raises:
        InputError: a value does not fit.
    """
    values = Settings.from_env(os.environ).model_dump()
    names = (
        *("records", "annotations", "output", "group_by", "max_iterations", "kappa_target"),
        *("judge", "mode", "backend", "ray_address", "ray_workers", "abstention_alpha", "abstention_delta"),
    )
    given = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    _refuse_idle_options(arguments, str(given.get("judge", values["judge"])))
    options = {name: value for name in _JUDGE_OPTIONS if (value := getattr(arguments, name, None)) is not None}
    if options:
        given["judge_options"] = options
    if slices := getattr(arguments, "slice_by", None):
        given["slice_columns"] = tuple(slices)
    if strategies := getattr(arguments, "strategy", None):
        given["strategies"] = tuple(strategies)
    if getattr(arguments, "column", None):
        given["columns"] = parse_columns(arguments.column)
    if getattr(arguments, "annotation_column", None):
        given["annotation_columns"] = parse_columns(arguments.annotation_column)
    return Settings.checked(values | given)


def _refuse_idle_options(arguments: argparse.Namespace, judge: str) -> None:
    """Refuse what names an endpoint for a judge that asks none: verdicts would be of another judge than was meant.

    Raises:
        InputError: such an option is given.
    """
    from caliber_pipeline.core.errors import InputError

    strategies = getattr(arguments, "strategy", None) or ()
    if judge == "openai" or not {"rewrite", "gepa"}.isdisjoint(strategies):
        return
    named = [name for name in ("provider", "model", "base_url") if getattr(arguments, name, None) is not None]
    named += ["mode"] if getattr(arguments, "mode", None) == "batch" else []
    if named:
        option = f"--{named[0].replace('_', '-')}"
        raise InputError(f"{option} is for --judge openai, and the judge is '{judge}'; add --judge openai")


@contextmanager
def hold_output(settings: Settings, *, writes_tables: bool = True) -> Iterator[None]:
    """Keep other commands that write off this output until this one has ended, however it ends.

    What cannot be written is said at the start. Who writes no tables needs no object store to answer.

    Raises:
        InputError: the output cannot be made or written.
        CaliberError: another command is at work on it.
    """
    from filelock import FileLock, Timeout

    from caliber_pipeline.core.errors import CaliberError
    from caliber_pipeline.stores.shards import require_writable

    if not settings.is_remote:
        _make_output(settings.local_output)
    elif writes_tables:
        require_writable(settings.output)
    settings.cache_folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.cache_folder / "run.lock", timeout=0):
            yield
    except Timeout as error:
        raise CaliberError(
            f"{settings.output}: another `caliber` command is at work on it; wait for it, or name another --output"
        ) from error


def _make_output(folder: Path) -> None:
    """Make the output folder, where it is a local one.

    Raises:
        InputError: it cannot be made or written.
    """
    from caliber_pipeline.core.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be the output folder ({error.strerror}); name another --output") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written; name another --output")


def _run_loop(settings: Settings, arguments: argparse.Namespace, report: "Report") -> str | None:
    """Run the loop, or only estimate its next evaluation, and return what to say of it."""
    from caliber_pipeline.core.criteria import parse_criteria
    from caliber_pipeline.core.errors import InputError, describe_read_error
    from caliber_pipeline.instances import open_instance
    from caliber_pipeline.resources import Project
    from caliber_pipeline.runs import JobRunner, seed_criteria
    from caliber_pipeline.stores.ingest import find_missing_input, refuse_forgotten_options

    project = Project.from_settings(settings)
    refuse_forgotten_options(settings, project.tables)
    if (missing := find_missing_input(settings)) is not None:
        raise InputError(missing)
    first = None
    if arguments.criteria is not None:
        try:
            text = arguments.criteria.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{arguments.criteria}: cannot be read ({describe_read_error(error)})") from error
        first = parse_criteria(text, source=str(arguments.criteria))
    seed_criteria(project, first)
    with open_instance(settings) as instance:
        level = logging.DEBUG if arguments.verbose else logging.INFO
        runner = JobRunner(settings, instance, report=report, log_level=level)
        if arguments.dry_run:
            return runner.estimate_next()
        runner.run_loop()
    return None


def _show(settings: Settings, *, as_json: bool) -> str | None:
    """Show what came of the loop, and return the drift alarm where there is one."""
    from caliber_pipeline.renderers.calibration import print_summary
    from caliber_pipeline.resources import Project
    from caliber_pipeline.summary import load_summary

    summary = load_summary(Project.from_settings(settings))
    if as_json:
        sys.stdout.write(json.dumps(summary.to_dict()) + "\n")
    else:
        print_summary(summary)
    return summary.drift_alarm


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _reporter(console: "Console", update: "Report") -> "Report":
    """Progress: one changing line with a bar on a terminal, a line each elsewhere."""
    from rich.markup import escape

    if console.is_terminal:
        return lambda line: update(escape(with_bar(line)))
    return lambda line: console.print(line, markup=False, soft_wrap=True)


def with_bar(line: str, width: int = 30) -> str:
    """The line with a bar in front, where it says "12 of 40"."""
    found = re.search(r"\b(\d+) of (\d+)\b", line)
    if found is None or not int(found[2]):
        return line
    n_full = min(width, width * int(found[1]) // int(found[2]))
    return f"{'━' * n_full}{'╌' * (width - n_full)} {line}"
