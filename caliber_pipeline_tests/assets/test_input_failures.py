"""What a run in Dagster says of input that it cannot read."""

import dagster as dg
import pytest

from caliber_pipeline.assets.definition import one_line_failures
from caliber_pipeline.core.annotations import resolve_annotation_columns
from caliber_pipeline.core.records import RecordParser


def test_missing_columns_are_named_by_the_variables_that_dagster_reads() -> None:
    records = "CALIBER_COLUMNS=query=COLUMN,output=COLUMN"
    with pytest.raises(dg.Failure, match=f"among id, text; name them with {records}$"), one_line_failures():
        RecordParser(["id", "text"], source="records.csv")
    annotations = "CALIBER_ANNOTATION_COLUMNS=score=COLUMN"
    with pytest.raises(dg.Failure, match=f"among id, ok; name it with {annotations}$"), one_line_failures():
        resolve_annotation_columns(["id", "ok"], {}, source="labels.csv")
