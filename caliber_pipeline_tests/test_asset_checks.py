"""The checks on a planted project after one evaluation, and on what goes wrong."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from caliber_pipeline.asset_checks import (
    INPUT_TABLES,
    VERSION_TABLES,
    annotations_are_fresh,
    compare_with_champion,
    compare_with_target,
    find_unstable,
)
from caliber_pipeline.core.column_lineage import COLUMN_LINEAGE
from caliber_pipeline.core.conforming import find_schema_faults
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.schemas import SCHEMAS
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import seed_criteria
from caliber_pipeline.settings import Settings
from caliber_pipeline_tests.projects import PlantedProject, write_planted_input
from caliber_pipeline_tests.renderers.shown import SHOWN_AT_ONCE

MAX_IMAGE_BYTES = 200_000


class Evaluated:
    """A planted project after `ingest` and the calibration of v001 and v002, with what the runs reported."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        settings = Settings(
            output=folder / "out",
            records=folder / "records.csv",
            annotations=folder / "annotations.csv",
            kappa_target=0.9,
        )
        write_planted_input(folder)
        self.project: Project = PlantedProject.from_settings(settings)
        seed_criteria(self.project, Criteria(criteria="Score 1 if the answer is fine, otherwise 0"))
        definitions = build_definitions(settings, self.project)
        self.checks: dict[tuple[str, str, str | None], dg.AssetCheckEvaluation] = {}
        self.metadata: dict[tuple[str, str | None], Mapping[str, Any]] = {}
        for job, version in (("ingest", None), ("calibration", "v001"), ("calibration", "v002"), ("history", None)):
            if version is not None:
                instance.add_dynamic_partitions("criteria_version", [version])
            result = definitions.resolve_job_def(job).execute_in_process(instance=instance, partition_key=version)
            for check in result.get_asset_check_evaluations():
                self.checks[check.asset_key.path[-1], check.check_name, version] = check
            for event in result.get_asset_materialization_events():
                materialization = event.step_materialization_data.materialization
                self.metadata[materialization.asset_key.path[-1], version] = materialization.metadata


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    with dg.instance_for_test() as instance:
        yield Evaluated(tmp_path_factory.mktemp("checked"), instance)


def images(metadata: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: value.value for key, value in metadata.items() if isinstance(value, dg.MarkdownMetadataValue)}
    found = {key: re.findall(r"\(<data:image/svg\+xml,([^>]*)>\)", text) for key, text in texts.items()}
    return {key: data[0] for key, data in found.items() if data}


def test_every_table_is_held_against_its_schema(evaluated: Evaluated) -> None:
    held = {(table, version) for table, name, version in evaluated.checks if name == "schema"}
    assert held == {
        *((table, None) for table in INPUT_TABLES),
        *((table, version) for table in VERSION_TABLES for version in ("v001", "v002")),
        ("calibration_history", None),
    }
    assert {t for t, _ in held} == SCHEMAS.keys()
    assert [check for key, check in evaluated.checks.items() if key[1] == "schema" and not check.passed] == []


def test_a_version_that_misses_the_target_warns_and_stops_nothing(evaluated: Evaluated) -> None:
    first = evaluated.checks["alignment_metrics", "kappa_reaches_target", "v001"]
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.WARN
    # v001 quotes no flaw, so the judge accepts all: kappa is 0
    assert first.description == "kappa on dev 0.000 misses the target 0.9"
    second = evaluated.checks["alignment_metrics", "kappa_reaches_target", "v002"]
    assert second.passed
    assert second.metadata["dev_cohen_kappa"].value == 1.0


def test_the_champion_is_not_behind_itself_and_who_is_behind_is_told(evaluated: Evaluated) -> None:
    assert evaluated.checks["optimized_criteria", "kappa_against_champion", "v002"].passed
    behind = compare_with_champion(evaluated.project, "v001")
    assert not behind.passed
    assert behind.description == "v001 against the champion v002: kappa on dev 0.000 against 1.000"


def test_annotations_of_unknown_age_warn(evaluated: Evaluated) -> None:
    check = evaluated.checks["annotations", "annotations_are_fresh", None]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert "none of the annotations carries a time" in str(check.description)


@pytest.mark.parametrize(("age_days", "passed"), [(10, True), (91, False)])
def test_old_annotations_warn(evaluated: Evaluated, tmp_path: Path, age_days: int, passed: bool) -> None:
    annotations = evaluated.project.tables.require("annotations")
    created = datetime.now(UTC) - timedelta(days=age_days)
    annotations["created_at"] = pd.Series([created] * len(annotations), dtype="timestamp[us, tz=UTC][pyarrow]")
    project = PlantedProject.from_settings(Settings(output=tmp_path))
    project.tables.save(annotations, project.tables.path("annotations"), "annotations")
    result = annotations_are_fresh(project)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed is passed
    assert f"{age_days} days ago" in str(result.description)


def test_unstable_patterns_are_named(evaluated: Evaluated) -> None:
    patterns = evaluated.project.tables.require("patterns", "v001")
    is_theme = ~patterns["is_unclustered"].astype(bool)
    patterns.loc[is_theme, "stability"] = 0.3
    result = find_unstable(patterns)
    assert not result.passed
    assert all(f"'{name}'" in str(result.description) for name in patterns.loc[is_theme, "name"])


def test_an_undefined_kappa_is_no_success(evaluated: Evaluated, tmp_path: Path) -> None:
    metrics = evaluated.project.tables.require("alignment_metrics", "v001")
    metrics.loc[metrics["metric"] == "cohen_kappa", "value"] = None
    project = PlantedProject.from_settings(Settings(output=tmp_path))
    project.tables.save(metrics, project.tables.path("alignment_metrics", "v001"), "alignment_metrics")
    result = compare_with_target(project, "v001")
    assert not result.passed
    assert "annotate more records" in str(result.description)


def test_a_file_of_another_schema_is_told_column_by_column() -> None:
    declared = SCHEMAS["rejected_records"]
    stored = declared.remove(0).append(declared.field("reason").with_name("extra"))
    assert find_schema_faults(stored, declared) == ["column 'source' is missing", "column 'extra' is not declared"]
    loose = declared.set(1, pa.field("line", pa.string())).set(2, pa.field("reason", pa.string(), nullable=True))
    assert find_schema_faults(loose, declared) == ["column 'line' is string, not int64", "column 'reason' allows nulls"]


def test_each_materialization_shows_where_its_columns_come_from(evaluated: Evaluated) -> None:
    for (table, _), metadata in evaluated.metadata.items():
        if table not in SCHEMAS:
            continue
        assert ("dagster/column_lineage" in metadata) == (table in COLUMN_LINEAGE), table
        assert metadata["dagster/row_count"].value >= 0


def test_pictures_are_light_and_there_where_promised(evaluated: Evaluated) -> None:
    promised = {
        "alignment_metrics": {"plot_of_confusion_matrix", "plot_of_kappa_by_version", "plot_of_kappa_over_time"},
        "patterns": {"map_of_rejects"},
    }
    for table, names in promised.items():
        assert names <= images(evaluated.metadata[table, "v001"]).keys()
    for metadata in evaluated.metadata.values():
        assert all(len(image) < MAX_IMAGE_BYTES for image in images(metadata).values())
    plots = images(evaluated.metadata["alignment_metrics", "v002"])
    assert "v001" in plots["plot_of_kappa_by_version"]
    assert max(map(len, plots.values())) < SHOWN_AT_ONCE - 100  # the UI puts longer Markdown behind a click


def test_numbers_that_dagster_plots_keep_their_names(evaluated: Evaluated) -> None:
    stable = {
        "records": {"n_records", "n_rejected", "n_groups", "n_train", "n_dev", "n_test"},
        "annotations": {"n_annotations", "n_labelled_records", "labelled_share", "accept_rate"},
        "judge_scores": {"n_judged", "coverage", "n_cached", "cached_share", "records_per_s", "n_without_verdict"},
        "alignment_metrics": {"dev_cohen_kappa", "dev_accuracy", "all_cohen_kappa"},
        "patterns": {"n_notes", "n_patterns", "n_unclustered", "n_unstable_patterns"},
        "misalignments": {"n_false_positives", "n_false_negatives"},
        "optimized_criteria": {"kappa", "base_kappa", "p_value", "n_fixed", "n_broken"},
    }
    for table, names in stable.items():
        metadata = evaluated.metadata.get((table, "v002")) or evaluated.metadata[table, None]
        assert names <= metadata.keys(), table
        assert all(isinstance(metadata[n], dg.IntMetadataValue | dg.FloatMetadataValue) for n in names), table


def test_the_worst_cases_show_both_sides_and_none_of_test(evaluated: Evaluated) -> None:
    misalignments = evaluated.project.tables.require("misalignments", "v001")
    in_full = str(evaluated.metadata["misalignments", "v001"]["worst_cases_in_full"].value)
    shown = set(re.findall(r"\*\*(r\d+)\*\*: the judge accepts, people reject", in_full))
    assert len(shown) == 10
    assert not shown & set(misalignments.loc[misalignments["split"] == "test", "record_id"])
    assert "looked for \\[]" in in_full


def test_the_criteria_are_shown_against_their_base(evaluated: Evaluated) -> None:
    diff = str(evaluated.metadata["optimized_criteria", "v002"]["criteria_against_base"].value)
    assert diff.startswith("```diff\n--- v001\n+++ v002")
    proposal = str(evaluated.metadata["optimized_criteria", "v001"]["proposal_against_champion"].value)
    assert "+++ v002" in proposal
    assert "n/a, the first" in str(evaluated.metadata["optimized_criteria", "v001"]["gate"].value)
