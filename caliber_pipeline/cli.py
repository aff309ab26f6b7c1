"""The `caliber` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Final

from caliber_pipeline.core.errors import CaliberError, DriftAlarmError, InputError, SpendingCapError
from caliber_pipeline.interrupts import hear_interrupts

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_CAPPED: Final = 3
EXIT_DRIFT: Final = 4
_EXIT_CODES: Final = {InputError: EXIT_BAD_INPUT, SpendingCapError: EXIT_CAPPED, DriftAlarmError: EXIT_DRIFT}
_EPILOG: Final = """\
start with:
  caliber run                         the sample, with the embedded judge
  caliber report --to report.html     what came of it, to forward
  caliber COMMAND --help              options and examples

exit codes:
  0 success, 2 bad input or settings, 3 spending cap reached, 4 drift alarm,
  1 anything else
"""


def load_commands() -> tuple[ModuleType, ...]:
    """The modules of the commands; loaded only here, where an interrupt already ends in one line."""
    from caliber_pipeline.commands import (
        ablate,
        annotate,
        cache,
        check,
        compare,
        estimate,
        export,
        ingest,
        judge,
        plan,
        promote,
        report,
        run,
        score,
    )

    return run, ingest, judge, annotate, report, compare, promote, ablate, export, score, check, plan, estimate, cache


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    from caliber_pipeline.commands.arguments import CommandParser

    parser = CommandParser(
        prog="caliber",
        description="Calibrate an LLM judge against people.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"caliber {version('caliber-pipeline')}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in load_commands():
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 on success, 2 on bad input or settings, 3 where the spending cap ended the run, 4 on a drift alarm that was to
        end it so, 1 on anything else.
    """
    try:
        with hear_interrupts():
            return _execute(argv)
    except KeyboardInterrupt:
        sys.stderr.write("caliber: stopped; what was finished is kept\n")
        return EXIT_FAILED


def _execute(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        arguments.execute(arguments)
        sys.stdout.flush()
    except CaliberError as error:
        if arguments.verbose:
            raise
        sys.stderr.write(f"caliber: {error}\n")
        return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), EXIT_FAILED)
    except BrokenPipeError:  # who read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # the last resort: one line for a person, the traceback for who asks
        if arguments.verbose:
            raise
        sys.stderr.write(f"caliber: {type(error).__name__}: {error}; run again with --verbose to see where\n")
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
