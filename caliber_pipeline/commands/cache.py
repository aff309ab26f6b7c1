"""`caliber cache`: what the verdict cache holds, and how to make it smaller."""

import argparse
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting, amount

if TYPE_CHECKING:
    from caliber_pipeline.stores.verdict_cache import CacheStats

_EXAMPLES = """\
# how many verdicts of which model, and how large
caliber cache
# drop those stored more than 90 days ago
caliber cache --prune --older-than 90
# have refused records judged again
caliber cache --prune --status refused
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "cache",
        execute,
        summary="show the size of the verdict cache, or prune it",
        description="The verdicts that endpoints gave, kept so that none is paid for twice.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add_output(parser)
    add("--prune", action="store_true", help="remove verdicts: all, or those that the next two options choose")
    add("--older-than", type=_days_ago, metavar="DAYS", help="only verdicts stored before that many days")
    add("--status", action="append", default=[], choices=("scored", "unparseable", "refused"), help="only these")
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Prune where asked to, and show what the cache holds.

    Raises:
        InputError: there is no cache, or the arguments do not go together.
        CaliberError: verdicts are to be removed, and another command is at work on the output.
    """
    from caliber_pipeline.commands.run import build_settings, hold_output
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.stores.verdict_cache import VerdictCache

    if not arguments.prune and (arguments.status or arguments.older_than is not None):
        raise InputError("--older-than and --status choose what --prune removes; add --prune")
    settings = build_settings(arguments)
    path = settings.verdict_cache_file
    if not path.exists():
        raise InputError(f"{path}: there is no verdict cache; name the --output of a run that asked an endpoint")
    n_removed = None
    with VerdictCache(path) as cache:
        if arguments.prune:
            with hold_output(settings, writes_tables=False):
                n_removed = cache.prune(before=arguments.older_than, statuses=arguments.status)
        stats = cache.stats()
    text = _as_json(stats, n_removed) if arguments.json else _as_text(stats, n_removed)
    sys.stdout.write(f"{text}\n")


def _days_ago(text: str) -> datetime:
    """The moment so many days before now, for an option's type.

    Raises:
        ArgumentTypeError: it is no number of days, or more than there are since the year 1.
    """
    days = amount(text)
    with suppress(OverflowError):
        return datetime.now(UTC) - timedelta(days=days)
    raise argparse.ArgumentTypeError(f"'{text}' days are more than the calendar goes back")


def _as_json(stats: "CacheStats", n_removed: int | None) -> str:
    return json.dumps({**asdict(stats), "n_removed": n_removed}, default=str)


def _as_text(stats: "CacheStats", n_removed: int | None) -> str:
    lines = [] if n_removed is None else [f"removed {n_removed:,} verdicts"]
    lines.append(f"{stats.path}: {stats.n_verdicts:,} verdicts, {stats.n_bytes / 1024:,.0f} KB")
    lines += [f"  {name}: {n:,}" for name, n in stats.n_by_model.items()]
    if stats.oldest is not None and stats.newest is not None:
        lines.append(f"  stored between {stats.oldest:%Y-%m-%d %H:%M} and {stats.newest:%Y-%m-%d %H:%M} UTC")
    return "\n".join(lines)
