"""`all_scores`: every record of a project judged from Dagster, here and, by a resource setting, on Ray."""

import importlib.util
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline.assets.all_scores import all_scores
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.ingest_records import ingest_records

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])])
def test_every_record_is_judged_on_the_backend_of_the_settings(tmp_path: Path, backend: str) -> None:
    rows = [{"id": f"r{i}", "query": f"q{i}", "output": "o", "score": i % 2} for i in range(40)]
    pd.DataFrame(rows).to_csv(tmp_path / "r.csv", index=False)
    output = tmp_path / "out"
    settings = Settings.checked(
        {"output": output, "records": tmp_path / "r.csv", "judge": "recorded", "backend": backend, "ray_workers": 1}
    )
    project = Project.from_settings(settings)
    ingest_records(settings, project.tables).place(project.tables)
    (output / "criteria").mkdir()
    (output / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("criteria_version", ["v001"])
        done = dg.materialize(
            [all_scores],
            partition_key="v001",
            instance=instance,
            resources={"project": project},
            selection=[all_scores],
        )
    (materialized,) = done.asset_materializations_for_node("all_scores")
    assert materialized.metadata["n_scored"].value == 40
    found = pd.read_parquet(str(materialized.metadata["folder"].value))
    assert found["llm_score"].sum() == 20
