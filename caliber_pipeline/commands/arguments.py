"""How the commands declare themselves: help that fits 80 columns, with examples, and the options that all share."""

import argparse
import math
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from caliber_pipeline.settings import DEFAULT_OUTPUT

_WIDTH: Final = 78  # of 80 columns, as argparse itself takes


class CommandParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, an option that is given twice among it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 those of ArgumentParser
        """Take what `ArgumentParser` takes."""
        super().__init__(*arguments, **options)
        for name in (None, "store"):
            self.register("action", name, StoreOnce)

    def error(self, message: str) -> NoReturn:
        """Leave with one line and the exit code of bad input."""
        self.exit(2, f"caliber: {message}; see `{self.prog} --help`\n")


class StoreOnce(argparse.Action):
    """An option that is refused when given again: all but the last value would be lost without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Take the value, the first time."""
        if option_string is not None and getattr(namespace, self.dest) is not self.default:
            parser.error(f"{option_string} is given more than once and takes one value")
        setattr(namespace, self.dest, values)


def number(text: str) -> float:
    """A finite number, for an option's type.

    Raises:
        ArgumentTypeError: it is none.
    """
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is no number")


def amount(text: str) -> float:
    """A finite number that is not negative, for an option's type.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is below 0")
    return value


def count(text: str) -> int:
    """A whole number of at least one, for an option's type.

    Raises:
        ArgumentTypeError: it is none.
    """
    with suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")


def add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    execute: Callable[[argparse.Namespace], None],
    *,
    summary: str,
    description: str,
    examples: str,
    notes: str = "",
) -> argparse.ArgumentParser:
    """Declare a command.

    Args:
        subparsers: Those of `caliber`.
        name: The command.
        execute: Runs it.
        summary: What it does, in the list of commands.
        description: The same in a sentence or two.
        examples: Command lines, each under a line that tells what it does.
        notes: What else there is to say, as it shall stand.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, _WIDTH),
        epilog=f"{notes}examples:\n{textwrap.indent(examples, '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)
    return parser


def add_output(parser: argparse.ArgumentParser, what: str = "the output folder of `caliber run`") -> None:
    """Declare --output; --assets is the same."""
    parser.add_argument(
        "--output", "--assets", metavar="DIR", dest="output", help=f"{what} (default: {DEFAULT_OUTPUT})"
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Declare --column, for a file of records."""
    _add_pairs(parser, "--column", "the records file's column for one of our names: output=bot_reply")


def add_annotation_columns(parser: argparse.ArgumentParser) -> None:
    """Declare --annotation-column, for a file of annotations."""
    _add_pairs(parser, "--annotation-column", "the same for the annotations file: score=ok")


def add_abstention(parser: argparse.ArgumentParser) -> None:
    """Declare how far the guarantee of what the judge decides alone goes."""
    add = parser.add_argument
    add("--abstention-alpha", type=number, metavar="A", help="disagreement with what the judge decides (default: 0.1)")
    add("--abstention-delta", type=number, metavar="D", help="risk that this guarantee fails (default: 0.1)")


def add_reporting(parser: argparse.ArgumentParser, *, has_json: bool = True) -> None:
    """Declare --json, where there is one, and --verbose."""
    if has_json:
        parser.add_argument("--json", action="store_true", help="end with one JSON object on stdout")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")


def _add_pairs(parser: argparse.ArgumentParser, flag: str, help_: str) -> None:
    parser.add_argument(flag, action="append", default=[], metavar="NAME=COLUMN", help=help_)
