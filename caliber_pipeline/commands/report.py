"""`caliber report`: one criteria version in one HTML file, to forward."""

import argparse
import sys
import webbrowser
from datetime import UTC, datetime
from pathlib import Path

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting

_EXAMPLES = """\
# on the champion, into a browser
caliber report --to report.html --open
# on another version
caliber report --output runs/answers --version v002 --to v002.html
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "report",
        execute,
        summary="write a report on a criteria version as one HTML file",
        description="Write what is known of a judge into one self-contained HTML file.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add_output(parser)
    add("--to", type=Path, metavar="FILE", required=True, help="the HTML file; replaced where it exists")
    add("--version", metavar="VERSION", help="the criteria version (default: the champion)")
    add("--open", action="store_true", help="open it in a browser")
    add_reporting(parser, has_json=False)


def execute(arguments: argparse.Namespace) -> None:
    """Write the report.

    Raises:
        MissingStepError: nothing was evaluated yet.
        InputError: this version was not evaluated, or the file cannot be written.
    """
    from caliber_pipeline.commands.stored import find_version, open_project
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.renderers.report import load_report_source, render_report

    project = open_project(arguments)
    source = load_report_source(
        project.tables,
        project.criteria_files,
        version=find_version(project, arguments.version),
        kappa_target=project.settings.kappa_target,
        max_rounds=project.settings.max_iterations,
    )
    html = render_report(source, made_at=datetime.now(UTC))
    try:
        arguments.to.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{arguments.to}: cannot be written ({error.strerror})") from error
    sys.stderr.write(f"report on {source.version}: {arguments.to} ({len(html.encode()) / 1024:.0f} KB)\n")
    if arguments.open:
        webbrowser.open(arguments.to.resolve().as_uri())
