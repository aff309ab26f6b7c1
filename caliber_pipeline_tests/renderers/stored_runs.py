"""Two evaluated versions in a folder, as the pipeline stores them, without running it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.calibration_history import append_evaluations
from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.criteria import Clause, Criteria, Evidence, render_criteria
from caliber_pipeline.core.schemas import SCHEMAS
from caliber_pipeline.stores.tables import TableStore

HOSTILE: Final = "<script>window.ran=1</script><img src=x onerror=window.ran=1>\"'&{{ 7+7 }}</style></textarea>"
BASE: Final = Criteria(criteria="Score 1 if the answer is helpful and polite, otherwise 0.")


def frame(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows in the schema of a table; what is missing is null, or empty where the schema allows no null."""
    schema = SCHEMAS[name]
    blank = {field.name: None if field.nullable else _empty(field.type) for field in schema}
    return frame_from_arrow(pa.Table.from_pylist([blank | row for row in rows], schema=schema))


def _empty(type_: pa.DataType) -> object:
    if pa.types.is_nested(type_):
        return []
    if pa.types.is_timestamp(type_):
        return datetime(2030, 1, 1, tzinfo=UTC)
    if pa.types.is_string(type_):
        return ""
    return False if pa.types.is_boolean(type_) else 0


def next_criteria(text: str = "Score 1 if the answer is correct and polite, otherwise 0.") -> Criteria:
    """A version that the optimizer wrote on top of BASE."""
    evidence = Evidence(pattern_id="p1", pattern=f"Made up {HOSTILE}", record_ids=("r1", "r2"), quotes=(HOSTILE,))
    clause = Clause(text=f"Reject what is made up. {HOSTILE}", evidence=evidence)
    return Criteria(criteria=text, clauses=(clause,), base="v001", round=1, author="optimizer")


def store_run(folder: Path, *, n: int = 200, errors: float = 0.15, output: str = "An answer.", seed: int = 0) -> None:
    """Store two versions over n records; v001 errs twice as often as v002, which is champion."""
    rng = np.random.default_rng(seed)
    tables = TableStore(UPath(folder))
    ids = [f"r{i}" for i in range(n)]
    splits = np.array(["train", "train", "dev", "dev", "test"])[np.arange(n) % 5]
    human = rng.integers(0, 2, n)
    records = [
        {"record_id": id_, "query": "q", "output": output, "ratings": [], "metadata": [], "group": id_,
         "split": str(split), "line": i}
        for i, (id_, split) in enumerate(zip(ids, splits, strict=True))
    ]  # fmt: skip
    labels = [
        {"record_id": id_, "annotator": "ada", "score": int(score), "is_gold": False}
        for id_, score in zip(ids, human, strict=True)
    ]
    save(tables, "records", frame("records", records))
    save(tables, "annotations", frame("annotations", labels))
    metrics, decided = {}, {}
    for place, (version, share) in enumerate((("v001", 2 * errors), ("v002", errors))):
        judge = np.where(rng.random(n) < share, 1 - human, human)
        scored = pd.DataFrame({"split": splits, "human_score": human, "llm_score": judge, "is_example": False})
        metrics[version] = compute_alignment_metrics(scored)
        metrics[version].attrs.update(_fingerprints(), evaluated_at=f"2030-01-0{place + 1}T00:00:00+00:00")
        decided[version] = _decision(version, metrics[version])
        is_wrong = judge != human
        save(tables, "alignment_metrics", metrics[version], version)
        verdicts = [_verdict(id_, int(score)) for id_, score in zip(ids, judge, strict=True)]
        save(tables, "judge_scores", frame("judge_scores", verdicts), version)
        save(tables, "optimized_criteria", decided[version], version)
        save(tables, "patterns", frame("patterns", [_pattern("p1", "Made up"), _pattern("p2", HOSTILE)]), version)
        cases = [_case(ids[i], str(splits[i]), int(human[i]), output) for i in np.flatnonzero(is_wrong)]
        save(tables, "misalignments", frame("misalignments", cases), version)
    save(tables, "calibration_history", append_evaluations(None, metrics, decided))
    (folder / "criteria").mkdir(exist_ok=True)
    for version, criteria in (("v001", BASE), ("v002", next_criteria())):
        (folder / "criteria" / f"{version}.yaml").write_text(render_criteria(criteria), encoding="utf-8")


def save(tables: TableStore, name: str, table: pd.DataFrame, version: str | None = None) -> None:
    """Store a table where the pipeline would."""
    tables.save(table, tables.path(name, version), name)


def _fingerprints() -> dict[str, str]:
    names = ("records_fingerprint", "annotations_fingerprint", "criteria_fingerprint")
    return {name: f"{name[:3]}4e5f" * 8 for name in names}


def _decision(version: str, metrics: pd.DataFrame) -> pd.DataFrame:
    row: dict[str, Any] = {
        "criteria_version": version, "base": "v001" if version == "v002" else None, "round": int(version == "v002"),
        "decision": "promoted" if version == "v002" else "baseline", "decision_reason": f"because {HOSTILE}",
        "champion": version, "n_compared": 80, "n_groups": 80, "is_proposed": False, "proposal_reason": "none",
        "suggestions": [], "example_ids": [],
    }  # fmt: skip
    table = frame("optimized_criteria", [row])
    table.attrs = dict(metrics.attrs)
    return table


def _verdict(record_id: str, score: int) -> dict[str, Any]:
    return {
        "record_id": record_id, "status": "scored", "llm_score": score, "provider": "scripted", "model": f"m {HOSTILE}",
        "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.001, "latency_s": 0.5, "n_attempts": 1,
        "is_cached": False, "is_example": False, "fingerprint": "f",
    }  # fmt: skip


def _pattern(id_: str, name: str) -> dict[str, Any]:
    return {
        "pattern_id": id_, "polarity": "reject", "name": name, "description": "d", "is_unclustered": False,
        "count": 12, "record_ids": ["r1"], "train_record_ids": [], "examples": [HOSTILE, "not true at all"],
        "keywords": ["made", "up"], "stability": 0.8, "method": "m", "notes_fingerprint": "f",
    }  # fmt: skip


def _case(record_id: str, split: str, human: int, output: str) -> dict[str, Any]:
    return {
        "record_id": record_id, "split": split, "kind": "false_negative" if human else "false_positive",
        "query": f"How? {HOSTILE}", "output": output, "human_score": human, "llm_score": 1 - human,
        "human_notes": f"note on {record_id}", "llm_reasoning": "מנומק היטב",
        "severity": 2.0 if record_id == "r7" else None,
        "pattern_id": "p1", "pattern_name": "Made up", "attribution": "judge_error_unverified",
        "attribution_reason": "one label",
    }  # fmt: skip
