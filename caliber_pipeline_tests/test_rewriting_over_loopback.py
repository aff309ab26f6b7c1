"""The loop with an endpoint as judge and as language model: it reads the criteria, and finds the planted rules."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest

from caliber_pipeline_tests.projects import FLAWS
from caliber_pipeline_tests.scripted_endpoint import serve_chat
from caliber_pipeline_tests.test_endpoint_loop import N, make_project, run_loop


def answer(texts: Sequence[str]) -> dict[str, object]:
    """As a judge that rejects the flaws its criteria name, and as a language model that turns notes into clauses."""
    return rewrite(texts[-1]) if "kept_clauses" in texts[0] else judge(texts[0], texts[-1])


def judge(criteria: str, record: str) -> dict[str, object]:
    known = [flaw for flaw in FLAWS if flaw in criteria]
    return {"reasoning": f"looked for {known}", "score": int(not any(flaw in record for flaw in known))}


def rewrite(prompt: str) -> dict[str, object]:
    rows = [json.loads(line) for line in prompt.splitlines() if line.startswith('{"record_id"')]
    by_note: dict[str, list[str]] = {}
    for row in rows:
        if row["people"] != row["judge"]:
            by_note.setdefault(row["people_say"], []).append(row["record_id"])
    return {
        "suggestions": [],
        "criteria": prompt.split("The judge's criteria:\n", 1)[1].split("\n\n", 1)[0],
        "kept_clauses": [],
        "new_clauses": [
            {"text": f"Score 0 where {note}", "verdict": 0, "record_ids": ids} for note, ids in by_note.items()
        ],
    }


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serve_chat(answer, prompt_tokens=10, completion_tokens=5) as base_url:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("CALIBER_MODEL", "m")
        yield base_url


@pytest.mark.slow
@pytest.mark.usefixtures("endpoint")
def test_rewrites_find_the_planted_rules_and_test_is_judged_once_they_won(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, "rewrite", input_price=1.0, output_price=1.0)
    run_loop(project, instance)
    told = " ".join(clause.text for clause in project.criteria_files.load("v002").clauses)
    assert all(flaw in told for flaw in FLAWS)
    history = project.tables.require("calibration_history").set_index("criteria_version")
    assert history["decision"].to_dict() == {"v001": "baseline", "v002": "promoted"}
    assert history["dev_cohen_kappa"].tolist() == history["test_cohen_kappa"].tolist() == [0.0, 1.0]
    assert history["n_test_looks"].tolist() == [1, 2]
    # three rewrites of 15 tokens each, at 1 dollar a million
    assert history.loc["v001", "n_model_calls"] == 3
    assert history.loc["v001", "n_model_tokens"] == 45
    assert history.loc["v001", "model_cost_usd"] == pytest.approx(45e-6)
    # v002's calls hold those on test, which came after the decision; what the race asked is known already
    candidates = project.tables.require("optimized_criteria", "v001")["candidates"].iloc[0]
    (chosen,) = [candidate for candidate in candidates if candidate["outcome"] == "chosen"]
    assert history.loc["v002", "n_calls"] == N - chosen["n_screened"]
