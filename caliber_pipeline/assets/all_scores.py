"""`all_scores`: verdicts on every stored record, labelled or not, in shards; materialized when somebody asks for it."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pandas as pd
from upath import UPath

from caliber_pipeline.assets.batches import observe_batches
from caliber_pipeline.assets.definition import OWNERS, criteria_versions, log_progress, one_line_failures
from caliber_pipeline.assets.judge_scores import load_unchanged
from caliber_pipeline.core.conforming import empty_frame
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.judge_scores import resolve_examples
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.judges.batch_judge import StillUnderWayError
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_annotated
from caliber_pipeline.stores.shards import open_dataset


@dg.asset(
    partitions_def=criteria_versions,
    deps=["criteria", "records"],
    group_name="evaluation",
    kinds={"parquet", "openai"},
    owners=OWNERS,
    code_version="1",
    description="The verdict on every stored record, labelled or not, a file per shard; on Ray where the backend is.",
    output_required=False,
)
def all_scores(
    context: dg.AssetExecutionContext, project: Project
) -> Iterator[dg.MaterializeResult[None] | dg.AssetObservation]:
    """Judge all records under one criteria version, going on where an earlier run ended."""
    version = context.partition_key
    report = log_progress(context, "shards judged")
    with one_line_failures():
        criteria = load_unchanged(project, version)
        examples = load_examples(project, criteria)
        try:
            folder = project.judge_all(
                version, criteria, examples, lambda done: report(done.n_done, done.n_shards), tell=context.log.info
            )
        except StillUnderWayError:
            yield observe_batches(context, project)
            return
    counts = count_statuses(folder)
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(counts.values()),
            "folder": dg.MetadataValue.path(str(folder)),
            "backend": project.settings.backend,
            **{f"n_{status}": n for status, n in counts.items()},
        }
    )


def load_examples(project: Project, criteria: Criteria) -> pd.DataFrame:
    """The records that the criteria show, the other records never in memory.

    Raises:
        CriteriaError: one of them is no labelled record any more, or changed.
        MissingStepError: there are examples, and no annotations.
    """
    if not criteria.examples:
        return resolve_examples(criteria, empty_frame("records"), resolve_labels(empty_frame("annotations")))
    labels = resolve_labels(project.tables.require("annotations"))
    return resolve_examples(criteria, load_annotated(project.tables), labels)


def count_statuses(folder: UPath) -> dict[str, int]:
    """How many verdicts of each status lie in a folder of them."""
    counts: Counter[str] = Counter()
    for batch in open_dataset(folder).to_batches(columns=["status"]):
        counts.update({entry["values"]: entry["counts"] for entry in batch.column(0).value_counts().to_pylist()})
    return dict(counts)
