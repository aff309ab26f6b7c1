"""`caliber promote`: a person makes a version champion, or goes back to one, and says why."""

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting
from caliber_pipeline.commands.stored import find_version, load_decided, open_project

if TYPE_CHECKING:
    from caliber_pipeline.resources import Project

_EXAMPLES = """\
# go back to v001
caliber promote v001 --reason "v002 is too strict on returns"
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "promote",
        execute,
        summary="make a version champion by hand, or roll back to one",
        description="Make an evaluated version champion, whatever the gate said; the history records it as by hand.",
        examples=_EXAMPLES,
    )
    parser.add_argument("version", metavar="VERSION", help="an evaluated criteria version")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the history")
    add_output(parser)
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Promote, and tell what came of it.

    Raises:
        InputError: the version is not evaluated, is champion already, or the reason is blank.
        RunFailedError: the version could not be evaluated on the data as they are now; nothing was promoted.
        JudgeError: test has to be judged, and the judge cannot be had; nothing was promoted.
        CaliberError: another command is at work on the output.
    """
    from caliber_pipeline.commands.run import hold_output
    from caliber_pipeline.core.errors import InputError

    project = open_project(arguments)
    if not (reason := arguments.reason.strip()):
        raise InputError("the reason is blank; say why, in a few words")
    with hold_output(project.settings):
        outcome = _promote(project, find_version(project, arguments.version), reason)
    if arguments.json:
        sys.stdout.write(json.dumps(outcome) + "\n")
    else:
        sys.stdout.write("champion: {champion} (before: {previous_champion}); {decision_reason}\n".format(**outcome))


def _promote(project: "Project", version: str, reason: str) -> "dict[str, str | None]":
    """Promote, tell Dagster, judge test where that is not done yet, and write the history.

    A version that was evaluated before new data were read is evaluated on these first.
    """
    import dagster as dg

    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.judge_scores import is_test_judged
    from caliber_pipeline.core.loop import data_fingerprint
    from caliber_pipeline.core.optimized_criteria import count_test_looks, current_champion, promote_by_hand
    from caliber_pipeline.instances import open_instance
    from caliber_pipeline.runs import JobRunner

    before = current_champion(load_decided(project))
    if before == version:
        raise InputError(f"'{version}' is champion already")
    tables = project.tables
    if not is_test_judged(tables.load_attrs("judge_scores", version) or {}):
        # test will be judged: a judge that cannot be had must not leave half a promotion
        project.build_judge(criteria=project.criteria_files.load(version), version=version)
    with open_instance(project.settings) as instance:
        runner = JobRunner(project.settings, instance, report=lambda _: None)
        runner.evaluate_on_stored(version)
        decided = load_decided(project)
        others = {name: frame for name, frame in decided.items() if name != version}
        n_looks = count_test_looks(others, data_fingerprint(decided[version].attrs)) + 1
        row = promote_by_hand(decided[version], reason, datetime.now(UTC), n_looks)
        tables.save(row, tables.path("optimized_criteria", version), "optimized_criteria")
        decision_reason = str(row["decision_reason"].iloc[0])
        event = dg.AssetMaterialization(
            "optimized_criteria",
            partition=version,
            description=f"{version} promoted by hand",
            metadata={
                "decision": "promoted",
                "decision_reason": decision_reason,
                "champion": version,
                "is_by_hand": True,
            },
        )
        instance.report_runless_asset_event(event)
        runner.update_history()
    return {"champion": version, "previous_champion": before, "decision_reason": decision_reason}
