"""Settings: from the environment, with one line for what is wrong, and where things lie."""

import traceback
from pathlib import Path

import pytest

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.instances import instance_folder, open_instance
from caliber_pipeline.settings import Settings, parse_columns
from caliber_pipeline.stores.ingest import find_missing_input


def test_the_environment_sets_everything() -> None:
    environ = {"CALIBER_OUTPUT": "out", "CALIBER_COLUMNS": "output=reply, query=ask", "CALIBER_KAPPA_TARGET": "0.7"}
    settings = Settings.from_env({**environ, "CALIBER_RECORDS": "", "OTHER": "x"})
    assert settings.output == Path("out")
    assert settings.columns == {"output": "reply", "query": "ask"}
    assert settings.kappa_target == 0.7
    assert settings.records is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CALIBER_MAX_ITERATIONS", "many", "CALIBER_MAX_ITERATIONS is many: Input should be a valid integer"),
        ("CALIBER_JUDGE", "oracle", "CALIBER_JUDGE is oracle: Input should be 'local', 'recorded'"),
        ("CALIBER_ABSTENTION_ALPHA", "0", "CALIBER_ABSTENTION_ALPHA is 0: Input should be greater than 0"),
        ("CALIBER_ABSTENTION_DELTA", "nan", "CALIBER_ABSTENTION_DELTA is nan: Input should be"),
        ("CALIBER_COLUMNS", "output", "column mapping 'output' is not NAME=COLUMN"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings.from_env({name: value})


def test_an_endpoint_s_url_with_a_password_is_refused_and_not_shown() -> None:
    for url in ("https://u:canary@h/v1", "https://canary@h/v1"):
        with pytest.raises(InputError, match="put the key into CALIBER_API_KEY") as caught:
            Settings.checked({"judge": "openai", "judge_options": {"base_url": url}})
        shown = "".join(traceback.format_exception(caught.value))
        assert "canary" not in shown
    assert Settings(judge_options={"base_url": "https://h/v1"}).judge_options == {"base_url": "https://h/v1"}


def test_columns_are_pairs() -> None:
    assert parse_columns(["output=a=b"]) == {"output": "a=b"}


def test_the_project_s_own_output_has_its_criteria_and_its_instance_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    own = Settings()
    assert own.criteria_folder == Path("data/criteria")
    assert instance_folder(own) == tmp_path / ".dagster"
    monkeypatch.setenv("DAGSTER_HOME", "/srv/dagster")
    assert instance_folder(own) == Path("/srv/dagster")
    (tmp_path / ".env").write_text("DAGSTER_HOME=/here\n")  # what dagster's own commands take first
    assert instance_folder(own) == Path("/here")


def test_another_output_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/srv/dagster")
    other = Settings(output=tmp_path / "out")
    assert other.criteria_folder == tmp_path / "out" / "criteria"
    assert instance_folder(other) == tmp_path / "out" / ".dagster"
    with open_instance(other) as instance:
        assert instance.root_directory == str(tmp_path / "out" / ".dagster")
    config = tmp_path / "out" / ".dagster" / "dagster.yaml"
    assert "nux" in config.read_text()
    config.write_text("telemetry: {enabled: false}")
    with open_instance(other):
        assert config.read_text() == "telemetry: {enabled: false}"


def test_input_is_found_in_its_folder_in_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "input").mkdir(parents=True)
    assert Settings().records_file == Path("data/input/records.csv")
    assert Settings().annotations_file is None
    for name in ("records.jsonl", "annotations.parquet"):
        (tmp_path / "data" / "input" / name).touch()
    assert Settings().records_file == Path("data/input/records.jsonl")
    assert Settings().annotations_file == Path("data/input/annotations.parquet")
    assert Settings(records=Path("mine.csv")).annotations_file is None
    assert Settings(records=Path("mine.csv"), annotations=Path("a.csv")).annotations_file == Path("a.csv")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "parquet", "csv.gz", "tsv.gz", "jsonl.gz"])
def test_input_that_can_be_read_is_found_in_its_folder(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "input").mkdir(parents=True)
    (tmp_path / "data" / "input" / f"records.{suffix}").touch()
    (tmp_path / "data" / "input" / "records.parquet.gz").touch()  # is not read
    assert Settings().records_file == Path(f"data/input/records.{suffix}")


def test_two_files_of_which_either_may_be_meant_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "input").mkdir(parents=True)
    for name in ("records.csv", "records.jsonl.gz", "annotations.csv", "annotations.tsv"):
        (tmp_path / "data" / "input" / name).touch()
    with pytest.raises(InputError, match=r"data/input/records\.csv and data/input/records\.jsonl\.gz .* --records"):
        _ = Settings().records_file
    with pytest.raises(InputError, match=r"input/annotations\.csv and data/input/annotations\.tsv .* --annotations"):
        _ = Settings().annotations_file
    assert "data/input/records.csv and data/input/records.jsonl.gz" in str(find_missing_input(Settings()))
    named = Settings(records=Path("data/input/records.csv"))
    assert named.records_file == Path("data/input/records.csv")
    assert named.annotations_file is None
    assert named.uses_own_input
