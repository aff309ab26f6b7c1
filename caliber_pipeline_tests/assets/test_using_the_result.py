"""What a finished loop is good for: ablation and the exported judge, on the project with planted rules."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline.api.calibrated_judge import CalibratedJudge
from caliber_pipeline.assets.exporting import export_judge
from caliber_pipeline.commands.ablate import ablate
from caliber_pipeline.core.calibrated_judge import parse_document, render_card, render_document
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.resources import Project
from caliber_pipeline_tests.projects import QuotingJudge
from caliber_pipeline_tests.test_automation import obey, tick

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def aligned(planted: Project, instance: dg.DagsterInstance) -> Project:
    """The planted project, whose v002 quotes both rules and shows four examples."""
    while isinstance(outcome := tick(planted, instance), dg.SensorResult):
        assert all(result.success for result in obey(planted, instance, outcome))
    return planted


@pytest.mark.slow
def test_the_clauses_help_the_examples_do_nothing_and_the_export_scores_as_certified(
    aligned: Project, instance: dg.DagsterInstance
) -> None:
    effects = {item.name: item.effect for item in ablate(aligned, "v002")}
    assert effects.pop("clause 1") == effects.pop("clause 2") == "helps"
    assert len(effects) == 4
    assert set(effects.values()) == {"does nothing"}  # the quoting judge reads no examples

    full = export_judge(aligned, "v002", NOW)
    assert len(full.examples) == 4
    test = full.certificate["test"]["cohen_kappa"]
    assert test["value"] == 1.0
    assert 0 < test["ci_low"] < 1.0
    assert full.certificate["issued_at"] == NOW.isoformat()
    assert parse_document(render_document(full), source="x") == full
    assert "| test | cohen kappa | 1.000 (almost perfect) |" in render_card(full)

    judge = CalibratedJudge(full, judge=QuotingJudge())
    records = aligned.tables.require("records")
    scored = judge.score(records)
    stored = aligned.tables.require("judge_scores", "v002").set_index("record_id")["llm_score"]
    pd.testing.assert_series_equal(
        scored.set_index("record_id")["llm_score"].sort_index(), stored.sort_index(), check_dtype=False
    )

    redacted = export_judge(aligned, "v002", NOW, example_texts="redacted")
    assert redacted.examples == full.examples  # there is nothing private in them
    assert redacted.certificate["examples"] == "redacted, 0 changed"
    bare = export_judge(aligned, "v002", NOW, example_texts="none")
    assert bare.examples == []
    with pytest.warns(UserWarning, match="4 examples were left out"):
        CalibratedJudge(bare, judge=QuotingJudge())
    other = full.model_copy(update={"certificate": {**full.certificate, "model": "older"}})
    with pytest.warns(UserWarning, match="model 'quoting' instead of 'older'"):
        CalibratedJudge(other, judge=QuotingJudge())

    history = build_definitions(aligned.settings, aligned).resolve_job_def("history")
    result = history.execute_in_process(instance=instance)
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey("calibrated_judge")]
    metadata = event.materialization.metadata
    assert metadata["criteria_version"].value == "v002"
    assert "# Calibrated judge v002" in str(metadata["model_card"].value)
    text = (aligned.settings.output / "calibrated_judge.json").read_text(encoding="utf-8")
    assert parse_document(text, source="x").criteria == full.criteria
