"""`caliber ingest`: records of any number from a file to Parquet, and the rows that are none."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from caliber_pipeline.commands.arguments import add_columns, add_command, add_output, add_reporting

if TYPE_CHECKING:
    from caliber_pipeline.stores.ingest_records import Ingested

_REPORT_EVERY_S: Final = 2.0
_EXAMPLES = """\
# millions of records, for `caliber judge`
caliber ingest --records answers.csv --output runs/answers
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "ingest",
        execute,
        summary="turn a file of records into Parquet, in memory that does not grow with it",
        description="Read the records file a batch at a time: records.parquet, and rejected_records.parquet with the "
        "line, the reason and the text of every row that is no record.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add(
        "--records",
        type=Path,
        metavar="FILE",
        help="CSV, JSONL, either also gzipped, or Parquet (default: data/input/records.*)",
    )
    add_output(parser, "where the Parquet goes")
    add("--group-by", metavar="COLUMN", help="rows with the same value stay together in train, dev or test")
    add_columns(parser)
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Read, store, and tell what came of it.

    Raises:
        InputError: the file as a whole cannot be used, or no row of it.
        CaliberError: another command is at work on the output.
    """
    from caliber_pipeline.commands.run import build_settings, hold_output
    from caliber_pipeline.stores.ingest import describe_lost_labels, labelled_texts, refuse_forgotten_options
    from caliber_pipeline.stores.ingest_records import ingest_records
    from caliber_pipeline.stores.tables import TableStore

    settings = build_settings(arguments)
    tables = TableStore(str(settings.output))
    started = time.monotonic()
    with hold_output(settings):
        refuse_forgotten_options(settings, tables)
        before = labelled_texts(tables)
        ingested = ingest_records(settings, tables, _reporter(started))
        ingested.place(tables)
        if lost := describe_lost_labels(before, tables):
            sys.stderr.write(f"warning: {lost}\n")
    _show(ingested, time.monotonic() - started, as_json=arguments.json)


def _show(ingested: "Ingested", seconds: float, *, as_json: bool) -> None:
    figures = {
        "n_records": ingested.records.n_rows,
        "n_rejected": ingested.rejected.n_rows,
        "n_groups": ingested.n_groups,
        "n_files": ingested.records.n_shards,
        **{f"n_{split}": n for split, n in ingested.n_by_split.items()},
        "seconds": round(seconds, 2),
    }
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    splits = ", ".join(f"{split} {n}" for split, n in ingested.n_by_split.items())
    records, groups = _count(ingested.records.n_rows, "record"), _count(ingested.n_groups, "group")
    sys.stdout.write(f"{records} ({splits}) in {groups}, {seconds:.1f} s\n")
    if ingested.rejected.n_rows:
        reason = ingested.rejected.preview.iloc[0]
        sys.stdout.write(
            f"{_count(ingested.rejected.n_rows, 'row')} rejected, see rejected_records.parquet; "
            f"the first, line {reason['line']}: {reason['reason']}\n"
        )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _reporter(started: float) -> Callable[[int], None]:
    last, n_last = started, 0

    def report(n_rows: int) -> None:
        nonlocal last, n_last, started
        now = time.monotonic()
        if n_rows < n_last:
            sys.stderr.write("reading the file again: ids repeat in it, or later lines have more columns\n")
            started = last = now
        n_last = n_rows
        if now - last >= _REPORT_EVERY_S:
            last = now
            sys.stderr.write(f"{n_rows:,} rows read ({n_rows / (now - started):,.0f}/s)\n")

    return report
