import csv

import dagster as dg
import pandas as pd

from caliber_pipeline.core.annotator_agreement import describe_annotators
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.resources import Project


def widths(agreement: pd.DataFrame) -> dict[tuple[str, str], float]:
    named = zip(agreement["annotator"], agreement["metric"], strict=True)
    return dict(zip(named, agreement["ci_high"] - agreement["ci_low"], strict=True))


def test_the_agreement_of_people_goes_by_the_groups_of_the_records(
    planted: Project, instance: dg.DagsterInstance
) -> None:
    """Four records each of thirty questions, on which two people give the same verdicts whatever the answer."""
    records, annotations = planted.settings.records_file, planted.settings.annotations_file
    assert annotations is not None
    with records.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "question", "answer"], *([f"r{i}", f"question {i % 30}", f"answer {i}"] for i in range(120))]
        )
    with annotations.open("w", newline="") as file:
        rows = [[f"r{i}", name, int(i % 30 % k > 0)] for i in range(120) for name, k in (("ann", 3), ("ben", 4))]
        csv.writer(file).writerows([["record_id", "annotator", "score"], *rows])

    build_definitions(planted.settings, planted).resolve_job_def("ingest").execute_in_process(instance=instance)

    grouped = widths(planted.tables.require("annotator_agreement"))
    as_if_independent = widths(describe_annotators(planted.tables.require("annotations")))
    for place in (("(all)", "krippendorff_alpha"), ("ann", "agreement"), ("ann", "bias")):
        assert grouped[place] > 1.7 * as_if_independent[place]  # four records of a group tell what one does
