"""`caliber plan`: how many labels the next statement needs, and which records to label."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caliber_pipeline.commands.arguments import add_command, add_output, add_reporting, number
from caliber_pipeline.settings import JUDGES

if TYPE_CHECKING:
    from caliber_pipeline.champion import Champion
    from caliber_pipeline.resources import Project

_EXAMPLES = """\
# labels needed for kappa to ±0.1, and to see a gain of 5 %
caliber plan
# choose 200 records for `caliber annotate`
caliber plan --budget 200
# the same as a file to fill in
caliber plan --budget 200 --to next.csv
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "plan",
        execute,
        summary="labels needed for an interval or a gain, and which records to label next",
        description="Plan labels from the champion's own prevalence and rates on dev.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("--half-width", type=number, default=0.1, metavar="H", help="of the 95 %% interval of kappa (default: 0.1)")
    add("--gain", type=number, default=0.05, metavar="D", help="gain in accuracy to confirm (default: 0.05)")
    add("--discordance", type=number, metavar="R", help="share of records that only one version gets right")
    add("--power", type=number, default=0.8, metavar="P", help="probability to confirm the gain (default: 0.8)")
    add("--budget", type=int, metavar="N", help="choose about N records to label next, for `caliber annotate`")
    add("--to", type=Path, metavar="FILE", help="write them as CSV too, to be filled in as annotations")
    add("--seed", type=int, default=0, help="of the choice (default: 0)")
    add_output(parser)
    add("--judge", choices=JUDGES, help="who judges the candidates; must be the champion's judge")
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Plan and show.

    Raises:
        InputError: a number does not fit, or nothing is left to label.
        MissingStepError: nothing was evaluated yet.
        CaliberError: records are to be chosen, and another command is at work on the output.
    """
    from caliber_pipeline.champion import load_champion
    from caliber_pipeline.commands.run import build_settings, hold_output
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.resources import Project
    from caliber_pipeline.stores.forms import refuse_to_overwrite

    if arguments.to is not None and arguments.budget is None:
        raise InputError("--to needs --budget, the number of records to choose")
    refuse_to_overwrite(arguments.to)
    if arguments.budget is not None and arguments.budget < 1:
        raise InputError(
            f"the budget is {arguments.budget}; give the number of records that can be labelled, at least 1"
        )
    if not 0 < arguments.half_width < 1:
        raise InputError(f"--half-width is {arguments.half_width:g}; give one between 0 and 1")
    project = Project.from_settings(build_settings(arguments))
    champion = load_champion(project)
    plan = _plan(project, champion, arguments)
    if arguments.budget is not None:
        with hold_output(project.settings):
            plan["chosen"] = _choose(project, champion, arguments)
    sys.stdout.write(json.dumps(plan) + "\n" if arguments.json else _in_words(plan))


def _plan(project: "Project", champion: "Champion", arguments: argparse.Namespace) -> dict[str, Any]:
    from caliber_pipeline.core.agreement import point_metrics, to_optional
    from caliber_pipeline.core.alignment_metrics import cell_sample
    from caliber_pipeline.core.gate import ALPHA
    from caliber_pipeline.core.planning import (
        labels_for_gain,
        labels_for_half_width,
        plausible_shares,
        power_of_gain,
    )
    from caliber_pipeline.core.splits import DEV_SHARE

    sample = cell_sample(champion.scored, "dev")
    observed = {name: to_optional(float(value)) for name, value in point_metrics(sample.cells).items()}
    shares = plausible_shares(sample.cells)
    n = int((champion.held_out["split"] == "dev").sum())
    wrong = float(shares[2] + shares[3])
    discordance = max(wrong, arguments.gain) if arguments.discordance is None else arguments.discordance
    alpha = ALPHA / max(project.settings.max_iterations, 1)
    effect = sample.planned_effect
    for_interval = labels_for_half_width(shares, arguments.half_width, design_effect=effect)
    for_gain = labels_for_gain(arguments.gain, discordance, power=arguments.power, alpha=alpha)
    return {
        "criteria_version": champion.version,
        "n_dev": n,
        **{name: observed[name] for name in ("prevalence", "recall", "specificity", "cohen_kappa")},
        "design_effect": effect,
        "half_width": arguments.half_width,
        "n_dev_for_half_width": for_interval,
        "n_labels_for_half_width": round(for_interval / DEV_SHARE),
        "gain": arguments.gain,
        "discordance": discordance,
        "alpha": alpha,
        "power": arguments.power,
        "power_now": power_of_gain(n, arguments.gain, discordance, alpha=alpha),
        "n_dev_for_gain": for_gain,
        "n_labels_for_gain": None if for_gain is None else round(for_gain / DEV_SHARE),
    }


def _choose(project: "Project", champion: "Champion", arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw among the unlabelled records by what the judge is unsure of; the annotation page reads the stored plan."""
    from caliber_pipeline.champion import judge_others
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.planning import plan_labels
    from caliber_pipeline.judges.sharded import JUDGED_COLUMNS
    from caliber_pipeline.stores.forms import write_form

    tables = project.tables
    earlier = tables.load("label_plan")
    n_open = 0 if earlier is None else int((~earlier["record_id"].isin(champion.labels["record_id"])).sum())
    candidates = tables.select("records", columns=JUDGED_COLUMNS, where=champion.is_unlabelled)
    candidates = candidates.sort_values("record_id", ignore_index=True)
    if candidates.empty:
        raise InputError("every record is labelled; add records first")
    verdicts = judge_others(project, champion, candidates)
    plan = plan_labels(
        verdicts["record_id"].tolist(),
        verdicts["confidence"].to_numpy(dtype=float, na_value=float("nan")),
        arguments.budget,
        criteria_version=champion.version,
        seed=arguments.seed,
    )
    tables.save_plan(plan)
    if arguments.to is not None:
        form = plan.merge(candidates[["record_id", "query", "output", "reference"]], on="record_id")
        write_form(arguments.to, form.drop(columns="criteria_version"))
    record_ids = [str(record_id) for record_id in plan["record_id"]]
    return {"n": len(plan), "n_candidates": len(candidates), "n_left_of_earlier": n_open, "record_ids": record_ids}


def _in_words(plan: dict[str, Any]) -> str:
    prevalence, recall, specificity = (_share(plan[name]) for name in ("prevalence", "recall", "specificity"))
    kappa = "n/a" if plan["cohen_kappa"] is None else f"{plan['cohen_kappa']:.2f}"
    lines = [
        f"{plan['criteria_version']} on dev: {plan['n_dev']} labels, people accept {prevalence}; the judge accepts "
        f"{recall} of those and rejects {specificity} of the others (kappa {kappa}).",
        "The plan reckons with half a record added to each of the four outcomes, as none of them is impossible.",
        f"Kappa to ±{plan['half_width']:g}: {plan['n_dev_for_half_width']} labels on dev, "
        f"{plan['n_labels_for_half_width']} in all.",
    ]
    what = f"A gain of {plan['gain']:.0%} where {plan['discordance']:.0%} of verdicts differ in being right"
    if plan["n_dev_for_gain"] is None:
        lines.append(f"{what}: more than 100,000 labels on dev.")
    else:
        lines.append(
            f"{what}: {plan['n_dev_for_gain']} labels on dev, {plan['n_labels_for_gain']} in all, for a power of "
            f"{plan['power']:.0%}; with the labels there are it is {plan['power_now']:.0%}."
        )
    if chosen := plan.get("chosen"):
        lines.append(
            f"To label next: {chosen['n']} of {chosen['n_candidates']} unlabelled records, the unsure ones more often; "
            "`caliber annotate` shows them ('To label next').\nEach carries the probability with which it was chosen, "
            "and counts for as many. Label all: until then figures lean towards the labels that were there before."
        )
        if chosen["n_left_of_earlier"]:
            lines.append(f"{chosen['n_left_of_earlier']} records of the plan before were not labelled; it is replaced.")
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"
