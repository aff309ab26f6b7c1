"""The production instance: Dagster accepts its file, and a run is kept in a real PostgreSQL."""

import shutil
from importlib.resources import files
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from caliber_pipeline.io_managers import ParquetIOManager
from caliber_pipeline_tests.stores.conftest import postgres_server

__all__ = ["postgres_server"]

DEPLOY = Path(str(files("caliber_pipeline"))) / "deploy"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_runs_are_kept_in_postgresql(postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dagster_postgres", reason="the extra `deploy` is not installed")
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    monkeypatch.setenv("CALIBER_DAGSTER_POSTGRES_URL", f"{postgres_server}/postgres".replace("://", "+psycopg2://"))

    @dg.asset(name="rejected_records", pool="promotion")
    def kept() -> None:
        return None

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        result = dg.materialize([kept], instance=instance, resources={"io_manager": ParquetIOManager(output_dir="x")})
        assert result.success
        assert instance.run_retries_enabled
        assert not instance.get_settings("run_retries")["retry_on_asset_or_op_failure"]
        assert instance.run_monitoring_enabled
        limits = instance.get_concurrency_config()
        assert limits.pool_config.default_pool_limit == 1
        assert limits.run_queue_config is not None
        assert limits.run_queue_config.max_concurrent_runs == 4
    engine = sa.create_engine(postgres_server.replace("postgresql", "postgresql+psycopg") + "/postgres")
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT status FROM runs")).scalars().all() == ["SUCCESS"]
    engine.dispose()
    assert not list(tmp_path.rglob("*.db"))


def test_the_image_installs_what_the_project_declares() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    root = DEPLOY.parents[1]
    assert [name for name in copied if not (root / name).exists()] == []
    assert lines.index("USER 1000") < next(i for i, line in enumerate(lines) if line.startswith("CMD"))
    assert any('".[deploy,postgres,ray,s3]"' in line for line in lines)
