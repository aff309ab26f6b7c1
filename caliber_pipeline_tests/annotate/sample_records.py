from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from caliber_pipeline.core.attribution import ABSTAINS
from caliber_pipeline.core.schemas import JUDGE_SCORES, PATTERNS, RECORDS

HOSTILE: Final = (
    "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\n\n"
    "**bold** <svg onload=window.ran=1> [link](javascript:window.ran=1) ![i](x onerror=window.ran=1)\n\n"
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>\n\n</textarea></div>{{ 7+7 }} ${7+7}"
)


def write_records(assets: Path, n: int = 30, texts: dict[str, dict[str, str | None]] | None = None) -> list[str]:
    """Writes records r00, r01, … into the folder; `texts` replaces texts of some of them."""
    ids = [f"r{i:02d}" for i in range(n)]
    rows = []
    for i, id_ in enumerate(ids):
        row: dict[str, Any] = {
            "record_id": id_, "query": f"Question number {i}?", "output": f"The answer to question {i} in a sentence.",
            "reference": None, "ratings": [], "metadata": [("topic", f"t{i % 3}")], "group": id_, "split": "dev",
            "line": i + 2,
        }  # fmt: skip
        rows.append(row | (texts or {}).get(id_, {}))
    assets.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=RECORDS), assets / "records.parquet")
    return ids


def write_judge_and_patterns(assets: Path, version: str = "v001") -> None:
    """A judge on r00, r01 and, in vain, r02; one pattern over r03 and r04; r05 and r06 to relabel."""
    base: dict[str, Any] = {"provider": "p", "model": "m", "n_attempts": 1, "is_cached": False, "is_example": False}
    base["fingerprint"] = "f"
    scores: list[dict[str, Any]] = [
        {"record_id": "r00", "status": "scored", "llm_score": 1, "llm_reasoning": "clear <b>answer</b>",
         "confidence": 0.9},
        {"record_id": "r01", "status": "scored", "llm_score": 0, "llm_reasoning": "vague"},
        {"record_id": "r02", "status": "unparseable"},
    ]  # fmt: skip
    pattern = {
        "pattern_id": "p1", "polarity": "reject", "name": "Too vague", "description": "d", "is_unclustered": False,
        "count": 2, "record_ids": ["r03", "r04"], "train_record_ids": [], "examples": [], "keywords": [],
        "method": "m", "notes_fingerprint": "f",
    }  # fmt: skip
    doubts = pa.table({"record_id": ["r05", "r06"], "reason": ["annotators tie", ABSTAINS]})
    for name, table in (
        ("relabel_queue", doubts),
        ("judge_scores", pa.Table.from_pylist([base | score for score in scores], schema=JUDGE_SCORES)),
        ("patterns", pa.Table.from_pylist([pattern], schema=PATTERNS)),
    ):
        (assets / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, assets / name / f"{version}.parquet")
