import csv
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.api.analysis import MisalignmentAnalyzer
from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.fields import read_field, read_id, read_text
from caliber_pipeline.api.hq import CaliberHQ, CaliberMetric, WebCaliberHQ
from caliber_pipeline.api.selection import ExampleSelector
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.renderers.json_renderer import JsonCaliberRenderer

METRIC = CaliberMetric("be right", llm_provider="recorded")
# r0 and r2 are rejected and accepted by the judge, r1 is accepted by both, r3 has no label, r4 no verdict
FRAME = pd.DataFrame(
    {
        "id": [0, 1, 2, 3, 4],
        "question": ["q0", "q1", "q2", "q3", "q4"],
        "answer": ["a0", "a1", "a2", "a3", "a4"],
        "expected": [np.nan] * 5,
        "judgment": [0, 1, 0, np.nan, 1],
        "notes": ["wrong date", np.nan, "wrong date", np.nan, np.nan],
        "score": [1, 1, 1, 1, np.nan],
    }
)


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", "  "])
def test_what_is_missing_is_no_value(missing: object) -> None:
    assert read_field({"judgment": missing}, "human_score") is None
    assert read_field({"human_score": missing, "judgment": 1}, "human_score") == 1
    assert read_text({"notes": missing}, "human_notes") is None


@pytest.mark.parametrize("value", [0, False, [], np.array([]), np.array([1, 2]), pd.Series([1, 2]), {}])
def test_what_is_empty_is_a_value(value: object) -> None:
    assert read_field({"extra": value}, "extra") is value


@pytest.mark.parametrize(
    ("value", "expected"), [(1, "1"), (1.0, "1"), (np.float64(2), "2"), (1.5, "1.5"), (" a ", "a")]
)
def test_ids_are_text(value: object, expected: str) -> None:
    assert read_id({"id": value}) == expected


def forms() -> dict[str, Any]:
    """The same records as a frame, as its rows, and as the rows of a CSV file."""
    return {
        "frame": FRAME,
        "arrow": FRAME.convert_dtypes(dtype_backend="pyarrow"),
        "rows": FRAME.to_dict("records"),
        "csv": list(csv.DictReader(io.StringIO(FRAME.to_csv(index=False)))),
    }


@pytest.mark.parametrize("form", forms())
def test_gaps_of_frames_and_files_are_no_values(form: str) -> None:
    items = forms()[form]

    state = AnnotationManager(items).get_state()
    selection = ExampleSelector().select(items, eval_results=items, count=3)
    analysis = MisalignmentAnalyzer(llm_provider="local").analyze_sync(items, "c", patterns=())
    with pytest.raises(MissingStepError, match=r"1 items have no judgment: \['3'\]"):
        WebCaliberHQ.from_records(items, METRIC).execute()

    assert (state.total, state.annotated, state.accepts) == (5, 4, 2)
    assert selection.metadata["total_fp_available"] == 2
    assert (analysis.total, [error.record_id for error in analysis.false_positives]) == (3, ["0", "2"])


def test_what_execute_returns_can_be_analysed() -> None:
    labelled = FRAME[FRAME["judgment"].notna()]
    hq = CaliberHQ(WebCaliberHQ.from_records(labelled, METRIC).dataset, METRIC, JsonCaliberRenderer())

    analysis = MisalignmentAnalyzer(llm_provider="local").analyze_sync(hq.execute(), "c", patterns=())

    assert (analysis.total, len(analysis.false_positives)) == (3, 2)
