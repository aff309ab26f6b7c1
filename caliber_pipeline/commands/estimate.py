"""`caliber estimate`: the accept rate in production, with an interval that holds under a stated assumption."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caliber_pipeline.commands.arguments import add_abstention, add_columns, add_command, add_output, add_reporting
from caliber_pipeline.settings import JUDGES

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.champion import Champion
    from caliber_pipeline.core.abstention import Abstention
    from caliber_pipeline.core.estimation import RateEstimate
    from caliber_pipeline.resources import Project

_NOTES = """\
which assumption:
  --random-sample  the labelled records were drawn at random from what FILE
                   holds: valid whatever the judge does
  --label-shift    FILE may hold more or fewer acceptable records than the
                   labelled ones, but the judge errs on each kind as often
  Nothing in the data can tell which of them holds; where neither does, label a
  random sample of FILE.

"""
_EXAMPLES = """\
# if the labels are a random sample of such weeks
caliber estimate --unlabeled week.csv --random-sample
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "estimate",
        execute,
        summary="the share of unlabelled records that people would accept, with an interval",
        description="Judge unlabelled records with the champion and estimate the share that people would accept.",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    add = parser.add_argument
    add("--unlabeled", type=Path, required=True, metavar="FILE", help="records to judge: CSV, JSONL or Parquet")
    assumption = parser.add_mutually_exclusive_group(required=True)
    assumption.add_argument("--random-sample", action="store_true", help="labels are a random sample (PPI++)")
    assumption.add_argument("--label-shift", action="store_true", help="the judge's rates carry over (Rogan-Gladen)")
    add_output(parser)
    add("--judge", choices=JUDGES, help="who judges; must be the champion's judge")
    add_columns(parser)
    add("--abstained-to", type=Path, metavar="FILE", help="write what the judge should leave to people, as CSV")
    add_abstention(parser)
    add_reporting(parser)


def execute(arguments: argparse.Namespace) -> None:
    """Estimate and show.

    Raises:
        InputError: the file, the judge or the labels cannot be used.
        MissingStepError: nothing was evaluated yet.
    """
    from caliber_pipeline.champion import judge_others, load_champion
    from caliber_pipeline.commands.run import build_settings
    from caliber_pipeline.core.abstention import learn_abstention
    from caliber_pipeline.resources import Project
    from caliber_pipeline.stores.forms import refuse_to_overwrite

    refuse_to_overwrite(arguments.abstained_to)
    project = Project.from_settings(build_settings(arguments))
    champion = load_champion(project)
    records, n_labelled, n_rejected = _load_unlabeled(project, arguments.unlabeled, champion)
    verdicts = judge_others(project, champion, records)
    judged = verdicts[verdicts["llm_score"].notna()]
    estimate = _estimate(champion, judged, is_random=arguments.random_sample)
    risks = {"alpha": project.settings.abstention_alpha, "delta": project.settings.abstention_delta}
    abstention = learn_abstention(champion.scored, **risks)
    n_abstained = _write_abstained(arguments.abstained_to, records, verdicts, abstention)
    result = {
        "criteria_version": champion.version,
        **vars(estimate),
        "n_groups": int(champion.held_out["group"].nunique()),
        "n_failed": len(verdicts) - len(judged),
        "n_labelled_rows": n_labelled,
        "n_rejected_rows": n_rejected,
        "abstention": {**vars(abstention), "n_abstained": n_abstained},
    }
    sys.stdout.write(json.dumps(result) + "\n" if arguments.json else _in_words(result, estimate, abstention))


def _load_unlabeled(project: "Project", path: Path, champion: "Champion") -> "tuple[pd.DataFrame, int, int]":
    """What a judge reads of the records without a label, the rest never in memory; how many have one or were rejected.

    A record has one where its text does: a new export may count its ids from 1 again.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.judges.sharded import JUDGED_COLUMNS
    from caliber_pipeline.stores.ingest_records import ingest_records
    from caliber_pipeline.stores.tables import TableStore

    settings = project.settings.model_copy(update={"records": path, "group_by": None})
    with tempfile.TemporaryDirectory(prefix="caliber-") as folder:
        tables = TableStore(folder)
        ingested = ingest_records(settings, tables)
        ingested.place(tables)
        of_known_ids = tables.select("records", columns=JUDGED_COLUMNS, where=~champion.is_unlabelled)
        labelled = pa.array(champion.labelled_among(of_known_ids), pa.string())
        records = tables.select("records", columns=JUDGED_COLUMNS, where=~pc.field("record_id").isin(labelled))
    if records.empty:
        raise InputError(f"{path}: all of its {ingested.records.n_rows} records are labelled; give others")
    return records, len(labelled), ingested.rejected.n_rows


def _estimate(champion: "Champion", judged: "pd.DataFrame", *, is_random: bool) -> "RateEstimate":
    from caliber_pipeline.core.estimation import estimate_from_random_sample, estimate_under_label_shift

    labelled = champion.held_out
    estimator = estimate_from_random_sample if is_random else estimate_under_label_shift
    human, llm = (labelled[name].to_numpy(dtype=float) for name in ("human_score", "llm_score"))
    groups, others = labelled["group"].to_numpy(dtype=object), judged["llm_score"].to_numpy(dtype=float)
    return estimator(human, llm, others, groups, weights=labelled["weight"].to_numpy(dtype=float, na_value=1.0))


def _write_abstained(
    path: Path | None, records: "pd.DataFrame", verdicts: "pd.DataFrame", abstention: "Abstention"
) -> int:
    from caliber_pipeline.core.abstention import select_abstained
    from caliber_pipeline.stores.forms import write_form

    is_abstained = select_abstained(verdicts["confidence"].to_numpy(dtype=float, na_value=float("nan")), abstention)
    if path is not None:
        is_listed = records["record_id"].isin(verdicts.loc[is_abstained, "record_id"])
        write_form(path, records.loc[is_listed, ["record_id", "query", "output", "reference"]])
    return int(is_abstained.sum())


def _in_words(result: dict[str, Any], estimate: "RateEstimate", abstention: "Abstention") -> str:
    from caliber_pipeline.core.intervals import MIN_GROUPS

    assumptions = {
        "random_sample": "if the labels are a random sample of these records",
        "label_shift": "if the judge errs on each kind as often as on the labels",
    }
    lines = [
        f"People would accept {estimate.value:.1%} ({estimate.ci_low:.1%} to {estimate.ci_high:.1%}, 95 % interval),",
        f"{assumptions[estimate.assumption]}.",
        f"The judge ({result['criteria_version']}) accepts {estimate.judge_rate:.1%} of the {estimate.n_unlabeled} "
        f"records; {estimate.n_labels} labels of dev and test correct it. Labels alone would take "
        f"{estimate.n_equivalent:.0f} for as short an interval.",
    ]
    if estimate.caution is not None:
        lines.append(f"{estimate.caution[0].upper()}{estimate.caution[1:]}.")
    if result["n_groups"] < MIN_GROUPS:
        lines.append(f"The labels are of only {result['n_groups']} groups: the interval may be too narrow.")
    if result["n_failed"] or result["n_labelled_rows"] or result["n_rejected_rows"]:
        lines.append(
            f"Left out: {result['n_labelled_rows']} that are labelled, {result['n_failed']} without a verdict, "
            f"{result['n_rejected_rows']} rejected rows."
        )
    if abstention.threshold is None:
        lines.append(f"The judge may decide nothing alone: {abstention.reason}.")
    else:
        lines.append(
            f"From a confidence of {abstention.threshold:g} the judge may decide alone: {abstention.guarantee}; "
            f"it leaves {result['abstention']['n_abstained']} records to people."
        )
    return "\n".join(lines) + "\n"
