"""`caliber score`: has an exported judge score a file of records."""

import argparse
import json
import sys
import warnings
from pathlib import Path

from caliber_pipeline.settings import parse_columns


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "score",
        help="score a file of records with an exported judge",
        description="Give a verdict, or the reason for having none, on every record of a file.",
    )
    add = parser.add_argument
    add("--judge", type=Path, metavar="FILE", required=True, help="what `caliber export` wrote")
    add("--records", type=Path, metavar="FILE", required=True, help="CSV, JSONL or Parquet with query and output")
    add("--to", type=Path, metavar="FILE", help="a CSV or Parquet file for the verdicts (default: CSV on stdout)")
    add("--column", action="append", default=[], metavar="NAME=COLUMN", help="our name of a column and the file's")
    add("--json", action="store_true", help="end with one JSON object on stdout; needs --to")
    add("--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    """Score the file.

    Raises:
        InputError: a file cannot be used.
        JudgeError: the judge cannot work.
    """
    from caliber_pipeline.api.calibrated_judge import CalibratedJudge
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.records import parse_records
    from caliber_pipeline.stores.input_files import load_rows

    if arguments.json and arguments.to is None:
        raise InputError("--json needs --to: the verdicts and the summary cannot both go to stdout")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        judge = CalibratedJudge.load(arguments.judge)
    for warning in caught:
        sys.stderr.write(f"caliber: warning: {warning.message}\n")
    rows = load_rows(arguments.records)
    mapping = parse_columns(arguments.column)
    parsed = parse_records(rows.table, rows.lines, source=rows.source, mapping=mapping)
    n_rejected = rows.broken.num_rows + parsed.is_rejected.to_pylist().count(True)
    verdicts = judge.score(parsed.table)
    if arguments.to is None:
        verdicts.to_csv(sys.stdout, index=False)
    else:
        try:
            if arguments.to.suffix == ".parquet":
                verdicts.to_parquet(arguments.to, index=False)
            else:
                verdicts.to_csv(arguments.to, index=False)
        except OSError as error:
            raise InputError(f"{arguments.to}: cannot be written ({error.strerror})") from error
    counts = {
        "n_records": len(verdicts),
        "n_rejected_records": n_rejected,
        "n_accepted": int((verdicts["llm_score"] == 1).sum()),
        "n_rejected": int((verdicts["llm_score"] == 0).sum()),
        "n_failed": int((verdicts["status"] != "scored").sum()),
        "n_for_people": int(verdicts["is_abstained"].sum()),
    }
    if arguments.json:
        sys.stdout.write(json.dumps(counts) + "\n")
    else:
        sys.stderr.write(", ".join(f"{name[2:].replace('_', ' ')}: {n}" for name, n in counts.items()) + "\n")
