"""The Parquet IO manager: schemas, atomic writes, one and several partitions."""

from pathlib import Path
from unittest import mock

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest

from caliber_pipeline.core.conforming import empty_frame
from caliber_pipeline.io_managers import ParquetIOManager, render_preview

VERSIONS = dg.StaticPartitionsDefinition(["v001", "v002"])


def rejected(reason: str) -> pd.DataFrame:
    return pd.DataFrame({"source": ["f.csv"], "line": [2], "reason": [reason], "raw": [None]})


@dg.asset(name="rejected_records")
def unpartitioned() -> pd.DataFrame:
    return rejected("blank")


def materialize(assets: list[dg.AssetsDefinition], folder: Path, **options: object) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": ParquetIOManager(output_dir=str(folder))}
    return dg.materialize(assets, resources=resources, **options)  # type: ignore[arg-type]


def test_an_asset_is_a_file_that_plain_pandas_reads(tmp_path: Path) -> None:
    materialize([unpartitioned], tmp_path)
    stored = pd.read_parquet(tmp_path / "rejected_records.parquet")
    assert stored["reason"].tolist() == ["blank"]
    assert list(stored.columns) == ["source", "line", "reason", "raw"]


def test_what_a_table_was_made_from_survives_storage(tmp_path: Path) -> None:
    @dg.asset(name="rejected_records")
    def with_attrs() -> pd.DataFrame:
        frame = rejected("blank")
        frame.attrs = {"records_fingerprint": "abc"}
        return frame

    result = materialize([with_attrs], tmp_path)
    assert pd.read_parquet(tmp_path / "rejected_records.parquet").attrs == {"records_fingerprint": "abc"}
    metadata = result.asset_materializations_for_node("rejected_records")[0].metadata
    assert metadata["records_fingerprint"].value == "abc"
    assert metadata["dagster/row_count"].value == 1
    assert "blank" in str(metadata["preview"].value)
    assert metadata["dagster/column_schema"].value.columns[2].description.startswith("Why the row was rejected")  # type: ignore[union-attr]


@dg.asset(name="optimized_criteria", partitions_def=VERSIONS)
def partitioned(context: dg.AssetExecutionContext) -> pd.DataFrame:
    frame = empty_frame("optimized_criteria")
    frame.attrs = {"version": context.partition_key}
    return frame


SEEN: list[object] = []


@dg.asset(
    name="rejected_annotations",
    ins={
        "optimized_criteria": dg.AssetIn(
            partition_mapping=dg.AllPartitionMapping(), metadata={"allow_missing_partitions": True}
        )
    },
)
def of_all_versions(optimized_criteria: dict[str, pd.DataFrame]) -> pd.DataFrame:
    SEEN.append({version: frame.attrs for version, frame in optimized_criteria.items()})
    return empty_frame("rejected_annotations")


@pytest.mark.filterwarnings("ignore:.*partition.*")
@pytest.mark.parametrize("versions", [["v001"], ["v001", "v002"]])
def test_all_partitions_come_as_a_dict_however_many_there_are(tmp_path: Path, versions: list[str]) -> None:
    with dg.instance_for_test() as instance:
        for version in versions:
            materialize([partitioned], tmp_path, partition_key=version, instance=instance)
            assert (tmp_path / "optimized_criteria" / f"{version}.parquet").exists()
        materialize([partitioned, of_all_versions], tmp_path, selection=[of_all_versions], instance=instance)
    assert SEEN.pop() == {version: {"version": version} for version in versions}


@dg.asset(name="patterns", partitions_def=VERSIONS)
def downstream(optimized_criteria: pd.DataFrame) -> pd.DataFrame:
    SEEN.append(optimized_criteria.attrs["version"])
    return empty_frame("patterns")


def test_a_partition_reads_the_same_partition_upstream(tmp_path: Path) -> None:
    for version in ("v001", "v002"):
        materialize([partitioned, downstream], tmp_path, partition_key=version)
        assert SEEN.pop() == version


def test_a_table_that_breaks_its_schema_fails_the_run_and_leaves_what_was_stored(tmp_path: Path) -> None:
    materialize([unpartitioned], tmp_path)

    @dg.asset(name="rejected_records")
    def broken() -> pd.DataFrame:
        return rejected("x").drop(columns="raw").assign(extra=1, line=["not a number"])

    with pytest.raises(dg.Failure) as failure:
        materialize([broken], tmp_path)
    assert failure.value.allow_retries is False
    message = str(failure.value.description)
    assert "column 'raw' is missing" in message
    assert "column 'extra' is not in the schema" in message
    assert "column 'line' is not int64" in message
    assert pd.read_parquet(tmp_path / "rejected_records.parquet")["reason"].tolist() == ["blank"]


def test_a_null_in_a_required_column_is_named(tmp_path: Path) -> None:
    @dg.asset(name="rejected_records")
    def broken() -> pd.DataFrame:
        return rejected("x").assign(reason=None)

    with pytest.raises(dg.Failure, match="column 'reason' has 1 nulls and allows none"):
        materialize([broken], tmp_path)


def test_a_write_that_fails_midway_leaves_the_old_table_and_no_rubbish(tmp_path: Path) -> None:
    materialize([unpartitioned], tmp_path)
    with (
        mock.patch.object(pq.ParquetWriter, "write_table", side_effect=OSError("No space left on device")),
        pytest.raises(OSError, match="No space left"),
    ):
        materialize([unpartitioned], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rejected_records.parquet"]
    assert pd.read_parquet(tmp_path / "rejected_records.parquet")["reason"].tolist() == ["blank"]


def test_the_preview_shows_text_from_the_data_as_text() -> None:
    hostile = pd.DataFrame({"text": ["<script>alert(1)</script> | [x](javascript:y) `z`\n# h", None, "a" * 500]})
    preview = render_preview(hostile)
    assert "<" not in preview
    assert "\\|" in preview
    assert "\\[x](javascript" in preview
    assert len(preview.splitlines()) == 2 + 1
    assert "a" * 161 not in preview


def test_the_preview_has_a_line_per_column_and_nothing_for_a_null() -> None:
    frame = pd.DataFrame({"id": ["a", "b", "c", "d"], "score": pd.array([1, None, 0, 1], dtype="Int8")})
    assert render_preview(frame).splitlines() == [
        "| column | row 1 | row 2 | row 3 |",
        "| --- | --- | --- | --- |",
        "| id | a | b | c |",
        "| score | 1 |  | 0 |",
    ]
