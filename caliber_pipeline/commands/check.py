"""`caliber check`: whether an exported judge is good enough, for continuous integration."""

import argparse
import sys
import warnings
from pathlib import Path

from caliber_pipeline.commands.arguments import add_command, add_reporting, number

_EXAMPLES = """\
# in continuous integration, before the judge is deployed
caliber check --judge judge.json --min-kappa 0.6
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "check",
        execute,
        summary="fail where an exported judge's certificate does not support a kappa",
        description="Exit 0 where the lower end of the 95 % interval of kappa on test reaches the minimum, else 1: "
        "so too where criteria, examples, model or template are not those that the certificate was issued for.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("--judge", type=Path, metavar="FILE", required=True, help="what `caliber export` wrote")
    add("--min-kappa", type=number, metavar="K", required=True, help="what the lower bound on test has to reach")
    add_reporting(parser, has_json=False)


def execute(arguments: argparse.Namespace) -> None:
    """Check the certificate.

    Raises:
        InputError: the file is no exported judge, or the minimum no kappa.
        CaliberError: the certificate does not support the minimum, or is not of this judge.
    """
    from caliber_pipeline.api.calibrated_judge import CalibratedJudge
    from caliber_pipeline.core.calibrated_judge import check_kappa
    from caliber_pipeline.core.errors import CaliberError, InputError

    if not -1 <= arguments.min_kappa <= 1:
        raise InputError(f"--min-kappa is {arguments.min_kappa:g}; give a kappa from -1 to 1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        judge = CalibratedJudge.load(arguments.judge)
    version = judge.document.criteria_version
    if judge.differences:
        raise CaliberError(f"{version}: the certificate does not hold: {'; '.join(judge.differences)}")
    is_supported, reason = check_kappa(judge.document, arguments.min_kappa)
    if not is_supported:
        raise CaliberError(reason)
    sys.stdout.write(f"{reason}\n")
