import io
import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caliber_pipeline
from caliber_pipeline.core.annotation_formats import (
    detect_format,
    parse_argilla,
    parse_label_studio,
    render_argilla,
    render_csv,
    render_label_studio,
)
from caliber_pipeline.core.annotations import parse_annotations
from caliber_pipeline.core.conforming import arrow_from_frame, conform_frame, frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.schemas import ANNOTATIONS, RECORDS

NOON = datetime(2030, 1, 1, 12, 0, 0, 5, tzinfo=UTC)
RECORD_TABLE = pa.Table.from_pylist(
    [
        {
            "record_id": f"r{i}", "query": "q?", "output": f"<b>out</b> {i}", "reference": "ref" if i else None,
            "ratings": [], "metadata": [], "group": "g", "split": "dev", "line": i,
        }
        for i in range(3)
    ],
    schema=RECORDS,
)  # fmt: skip
RECORD_FRAME = frame_from_arrow(RECORD_TABLE)


def annotations(*rows: dict[str, Any]) -> pd.DataFrame:
    blank = dict.fromkeys(ANNOTATIONS.names) | {"is_gold": False}
    return frame_from_arrow(pa.Table.from_pylist([blank | row for row in rows], schema=ANNOTATIONS))


FULL = annotations(
    {"record_id": "r0", "annotator": "ada", "score": 1, "created_at": NOON, "severity": 2.0},
    {"record_id": "r0", "annotator": "Ben O.", "score": 0, "notes": 'two\nlines, "quoted" שלום', "created_at": NOON},
    {"record_id": "r2", "annotator": "ada", "score": 0, "notes": "no"},
)


def parsed(rows: tuple[pa.Table, pa.Array]) -> pd.DataFrame:
    result = parse_annotations(*rows, RECORD_FRAME["record_id"], source="export.json")
    assert result.reasons.to_pylist() == []
    return result.table


def same(left: pd.DataFrame, right: pd.DataFrame, without: tuple[str, ...] = ()) -> bool:
    names = [name for name in ANNOTATIONS.names if name not in without]
    tables = [arrow_from_frame(frame, "annotations").select(names) for frame in (left, right)]
    return bool(tables[0].equals(tables[1]))


def test_label_studio_tasks_come_back_as_they_went() -> None:
    tasks = json.loads(json.dumps(render_label_studio(RECORD_FRAME, FULL)))
    assert [task["data"]["record_id"] for task in tasks] == ["r0", "r1", "r2"]
    assert detect_format(tasks, source="export.json") == "label-studio"
    assert same(parsed(parse_label_studio(tasks)), FULL)


def test_label_studio_tasks_use_the_controls_of_the_interface_in_the_documentation() -> None:
    page = (Path(caliber_pipeline.__file__).parent / "docs" / "data.md").read_text(encoding="utf-8")
    (interface,) = re.findall(r"^```xml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    root = ET.fromstring(interface)  # noqa: S314 our own text
    controls = {node.get("name"): node.tag.lower() for node in root.iter() if node.get("toName")}
    tasks = render_label_studio(RECORD_FRAME, FULL)
    used = {r["from_name"]: r["type"] for t in tasks for a in t["annotations"] for r in a["result"]}
    assert used == controls
    assert {node.get("value", "")[1:] for node in root.iter("Text")} < tasks[0]["data"].keys()


def test_argilla_records_come_back_but_for_what_argilla_cannot_hold() -> None:
    records = json.loads(json.dumps(render_argilla(RECORD_FRAME, FULL)))
    assert records[0]["fields"] == {"query": "q?", "output": "<b>out</b> 0"}
    assert detect_format(records, source="export.json") == "argilla"
    assert same(parsed(parse_argilla(records)).assign(created_at=None), FULL.assign(created_at=None))


def test_argilla_responses_belong_to_the_users_that_it_knows() -> None:
    records = render_argilla(RECORD_FRAME, FULL, {"ada": "11111111-1111-1111-1111-111111111111"})
    assert records[2]["responses"]["verdict"] == [
        {"value": "reject", "user_id": "11111111-1111-1111-1111-111111111111"}
    ]


@pytest.mark.parametrize("note", ['two\nlines, "quoted" שלום', "a\rb", "a\r\nb\n", "null", " =1+1 "])
def test_csv_comes_back_complete(note: str) -> None:
    full = FULL.assign(notes=pd.Series([None, note, "no"], dtype="string[pyarrow]"))
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(ANNOTATIONS.names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    text = render_csv(full).encode()
    table = pyarrow.csv.read_csv(
        io.BytesIO(text), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), convert_options=options
    )
    assert same(parsed((table, pa.array(range(table.num_rows)))), full)


def test_an_export_of_label_studio_itself_is_read() -> None:
    # the shape that Label Studio's documentation gives for an annotated task, with the controls of this project's user
    tasks = [
        {
            "id": 1,
            "data": {"id": "r1", "text": "x"},
            "annotations": [
                {
                    "completed_by": {"id": 4, "email": "cy@example.org"},
                    "created_at": "2021-03-09T22:16:08.728353Z",
                    "was_cancelled": False,
                    "result": [
                        {"from_name": "quality", "to_name": "t", "type": "choices", "value": {"choices": ["Fail"]}},
                        {"from_name": "why", "to_name": "t", "type": "textarea", "value": {"text": ["a", "b"]}},
                        {"from_name": "box", "to_name": "t", "type": "rectanglelabels", "value": {"x": 1}},
                    ],
                },
                {"completed_by": 5, "was_cancelled": True, "result": []},
            ],
        },
        {"id": 2, "data": {"id": "r2"}, "annotations": []},
    ]
    rows, tasks_of_rows = parse_label_studio(tasks)
    assert rows.select(["record_id", "annotator", "score", "notes"]).to_pylist() == [
        {"record_id": "r1", "annotator": "cy@example.org", "score": "Fail", "notes": "a\nb"},
        {"record_id": "r1", "annotator": "5", "score": None, "notes": None},
    ]
    assert tasks_of_rows.to_pylist() == [1, 1]


def test_an_export_of_argilla_itself_is_read() -> None:
    records = [
        {
            "id": "r1",
            "fields": {"text": "x"},
            "metadata": {},
            "responses": {
                "label": [
                    {"value": "yes", "user_id": "u1"},
                    {"value": "no", "user_id": "u2", "status": "discarded"},
                ]
            },
        },
        {"id": "r2", "fields": {}, "responses": {}},
    ]
    rows, _ = parse_argilla(records)
    assert rows.select(["record_id", "annotator", "score"]).to_pylist() == [
        {"record_id": "r1", "annotator": "u1", "score": "yes"}
    ]


@pytest.mark.parametrize("content", [[], {}, "text", [1, 2], [{"data": {}}], [{"fields": {}}]])
def test_json_of_neither_tool_is_refused(content: object) -> None:
    with pytest.raises(InputError, match="neither a Label Studio export"):
        detect_format(content, source="x.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "annotations", "result", "value", "choices", "type", "from_name", "responses",
                             "verdict", "user_id", "metadata", "annotators", "id", "record_id", "completed_by"]),
            inner, max_size=5,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(JSON, max_size=4))
def test_whatever_json_comes_every_row_is_an_annotation_or_a_rejection(content: list[Any]) -> None:
    for rows, numbers in (parse_label_studio(content), parse_argilla(content)):
        result = parse_annotations(rows, numbers, RECORD_FRAME["record_id"], source="x.json")
        assert len(result.table) + len(result.reasons) == rows.num_rows
        assert conform_frame(result.table, "annotations") is not None
