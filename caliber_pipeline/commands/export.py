"""`caliber export`: a version as one file, to be scored with elsewhere."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from caliber_pipeline.commands.arguments import add_abstention, add_command, add_output, add_reporting
from caliber_pipeline.commands.stored import find_version, open_project

_EXAMPLES = """\
# the champion, with a card for people to read
caliber export --to judge.json --card card.md
# to give away: no e-mail addresses, numbers or tokens in it
caliber export --to judge.json --examples redacted
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "export",
        execute,
        summary="write the champion as one file: criteria, examples, model, thresholds, certificate",
        description="Write an evaluated version as one JSON file that `caliber score` and CalibratedJudge load.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("--to", type=Path, metavar="FILE", required=True, help="the JSON file; replaced where it exists")
    add("--card", type=Path, metavar="FILE", help="write the certificate as a Markdown model card too")
    add("--version", metavar="VERSION", help="the criteria version (default: the champion)")
    add(
        "--examples",
        choices=("full", "redacted", "none"),
        default="full",
        help="the texts of the examples: as they are, without private data, or left out (default: full)",
    )
    add_abstention(parser)
    add_output(parser)
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Write the file.

    Raises:
        InputError: the version is not evaluated, or a file cannot be written.
    """
    from caliber_pipeline.assets.exporting import export_judge
    from caliber_pipeline.core.calibrated_judge import render_card, render_document
    from caliber_pipeline.core.errors import InputError

    project = open_project(arguments)
    version = find_version(project, arguments.version)
    document = export_judge(project, version, datetime.now(UTC), example_texts=arguments.examples)
    written = [(arguments.to, render_document(document))]
    written += [(arguments.card, render_card(document))] if arguments.card else []
    for path, text in written:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    if arguments.json:
        sys.stdout.write(json.dumps({"criteria_version": version, "to": str(arguments.to)}) + "\n")
    else:
        sys.stdout.write(f"{version}: {', '.join(str(path) for path, _ in written)}\n")
