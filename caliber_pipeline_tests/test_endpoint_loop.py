"""The whole loop with a judge behind an endpoint: by the command, and through Dagster with settings from variables."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline import cli
from caliber_pipeline.commands.run import with_bar
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, JudgeSettingsError, SpendingCapError
from caliber_pipeline.core.pricing import pico
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import JobRunner, seed_criteria
from caliber_pipeline.settings import Settings
from caliber_pipeline_tests.benchmarks.loopback_server import Loopback, LoopbackConfig, loopback
from caliber_pipeline_tests.projects import WordProject, open_project, write_planted_input

KEY = "sk-canary-77c2"
N = 200


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """An endpoint that rejects one of the two flaws, named by the environment alone."""
    with loopback(LoopbackConfig(reject_if="zebra", api_key=KEY)) as running:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("CALIBER_MODEL", "m")
        yield running


def make_project(folder: Path, *strategies: str, **options: str | float) -> WordProject:
    write_planted_input(folder, N)
    return open_project(folder, judge_options=options, strategies=strategies, max_iterations=1)


def run_loop(project: Project, instance: dg.DagsterInstance) -> None:
    JobRunner(project.settings, instance, report=lambda _: None, project=project).run_loop()


def texts_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_loop_runs_through_dagster_configured_by_the_environment(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path)
    run_loop(project, instance)
    verdicts = project.tables.require("judge_scores", "v001")
    assert verdicts["status"].unique().tolist() == ["scored"]
    assert (verdicts["llm_score"] == 0).sum() == N / 4
    history = project.tables.require("calibration_history")
    assert history["criteria_version"].tolist() == ["v001", "v002"]
    assert project.tables.require("judge_scores", "v002")["model"].unique().tolist() == ["m"]
    # three rewrites are asked for and once more each, as the server knows nothing but verdicts; v002 wins nothing, so
    # that it is not judged on test
    n_test = int((project.tables.require("records")["split"] == "test").sum())
    assert 0 < n_test < N
    assert server.stats()["calls"] == 2 * N - n_test + 6
    assert len(project.tables.require("judge_scores", "v002")) == N - n_test
    event = instance.get_latest_materialization_event(dg.AssetKey("judge_scores"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert (metadata["n_calls"], metadata["n_cached"], metadata["coverage"]) == (N - n_test, 0, 1.0)
    assert (metadata["prompt_tokens"], metadata["judge"]) == ((N - n_test) * 300, "custom/m")
    assert metadata["cost_usd"] is None  # of a model whose price is not known
    # the key is in no table, cache, event, run or log
    assert KEY.encode() not in texts_in(tmp_path)
    assert KEY not in repr(project)
    assert KEY not in "".join(
        run.dagster_run.job_name + str(run.dagster_run.run_config) for run in instance.get_run_records()
    )
    logs = [str(log) for run in instance.get_run_records() for log in instance.all_logs(run.dagster_run.run_id)]
    assert not [log for log in logs if KEY in log]
    runner = JobRunner(project.settings, instance, report=lambda _: None, project=project)
    assert runner.estimate_next() == "nothing to judge: every version is evaluated"


@pytest.mark.slow
def test_a_version_keeps_the_model_of_its_first_evaluation(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path)
    run_loop(project, instance)
    monkeypatch.setenv("CALIBER_MODEL", "another")
    later = WordProject.from_settings(project.settings)
    criteria = Criteria(criteria="c", base="v001")
    assert later.build_judge(criteria=criteria, version="v003").model == "m"
    assert later.build_judge(criteria=Criteria(criteria="c"), version="v003").model == "another"
    assert later.build_judge(criteria=Criteria(criteria="c", model="own", base="v001"), version="v003").model == "own"
    options = {**project.settings.judge_options, "model": "another"}
    named = WordProject.from_settings(project.settings.model_copy(update={"judge_options": options}))
    with pytest.raises(InputError, match="were judged by m and keep that model; leave out --model another"):
        named.build_judge(criteria=criteria, version="v003")


@pytest.mark.slow
def test_a_spending_cap_ends_the_run_with_what_was_judged_kept_and_a_higher_one_goes_on(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # 300 tokens at 100 and 20 at 1,000 dollars a million: 0.05 dollars a call
    prices = {"input_price": 100.0, "output_price": 1000.0, "max_output_tokens": 20}
    project = make_project(tmp_path, **prices, max_cost_usd=5.0)
    with pytest.raises(SpendingCapError, match=r"the spending cap was reached: 9\d of 200 records judged under 'v001'"):
        run_loop(project, instance)
    calls = server.stats()["calls"]
    with project.open_verdict_cache() as cache:
        assert cache.stats().n_verdicts == calls
    run_loop(make_project(tmp_path, **prices, max_cost_usd=100.0), instance)
    n_test = int((project.tables.require("records")["split"] == "test").sum())
    assert server.stats()["calls"] == 2 * N - n_test + 6  # as above


@pytest.mark.slow
def test_a_cap_holds_for_the_whole_run_and_not_for_each_version(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # v001 costs 200 * 0.05 = 10 dollars: 5 are left for v002
    project = make_project(tmp_path, input_price=100.0, output_price=1000.0, max_output_tokens=20, max_cost_usd=15.0)
    with pytest.raises(SpendingCapError, match="under 'v002'"):
        run_loop(project, instance)
    assert server.stats()["calls"] * 0.05 <= 15.0


def test_a_cap_holds_for_the_proposals_that_are_tried_too(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # v001 costs 200 * 0.05 = 10 dollars: 2 are left for the race of two proposals on train, which would take about 6
    prices = {"input_price": 100.0, "output_price": 1000.0, "max_output_tokens": 20}
    project = make_project(tmp_path, "rules", "examples", **prices, max_cost_usd=12.0)
    with pytest.raises(SpendingCapError, match="records judged while a proposal was tried"):
        run_loop(project, instance)
    calls = server.stats()["calls"]
    assert N < calls <= 12.0 / 0.05
    assert project.budget.spent == pico(calls * 0.05)
    with project.open_verdict_cache() as cache:
        assert cache.stats().n_verdicts == calls


def test_a_wrong_key_fails_the_run_in_one_line(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with pytest.raises(JudgeSettingsError, match="HTTP 401: Incorrect API key provided"):
        run_loop(make_project(tmp_path), instance)
    assert server.stats()["calls"] == 1


def test_the_definitions_hold_names_of_variables_and_not_their_values(server: Loopback, tmp_path: Path) -> None:
    settings = make_project(tmp_path).settings
    definitions = build_definitions(settings)
    assert definitions.resources is not None
    project = definitions.resources["project"]
    assert KEY not in repr(project)
    assert KEY not in str(project._resolved_config_dict)
    assert "OPENAI_API_KEY" in str(project._resolved_config_dict)


def test_the_next_versions_calls_tokens_and_cost_are_shown_before_it_is_judged(
    server: Loopback, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, input_price=1.0, output_price=1.0)
    runner = JobRunner(project.settings, instance, report=lambda _: None, project=project)
    before = runner.estimate_next()
    assert before.startswith(f"v001: custom/m, {N} records (0 known already), {N} calls, about ")
    assert "USD" in before
    assert server.stats().get("calls", 0) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m"], "no key for provider 'openai'; set OPENAI_API_KEY or CALIBER_API_KEY"),
        (["--model", "m", "--dry-run"], "no key for provider 'openai'"),
        (["--provider", "ollama"], "no model is set for provider 'ollama'"),
        (["--provider", "nobody", "--model", "m"], "unknown provider 'nobody'; known are openai, azure"),
        (["--model", "m", "--base-url", "http://u:canary@h/v1"], "put the key into CALIBER_API_KEY"),
        (
            ["--model", "odd", "--base-url", "http://h/v1", "--max-cost-usd", "1"],
            "no price is known for model 'odd'",
        ),
    ],
)
def test_what_an_endpoint_needs_is_told_before_anything_is_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    for name in OpenAIJudgeSettings.variables():
        monkeypatch.delenv(name, raising=False)
    records, out = tmp_path / "records.csv", tmp_path / "out"
    records.write_text("no,such,columns\n")  # reading it would be another error
    command = ["run", "--records", str(records), "--output", str(out), "--judge", "openai", *arguments]
    assert cli.main(command) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert b"canary" not in shown.encode() + texts_in(tmp_path)


def test_an_endpoint_that_is_not_there_is_a_setting_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_planted_input(tmp_path, 10)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        files = ["--records", str(tmp_path / "records.csv"), "--annotations", str(tmp_path / "annotations.csv")]
        endpoint = ["--judge", "openai", "--model", "m", "--base-url", url, "--output", str(tmp_path / "out")]
        assert cli.main(["run", *files, *endpoint]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("caliber: ")]
    assert lines == [f"caliber: custom at {url}, model 'm': Connection refused"]


def test_a_strategy_that_needs_a_language_model_needs_its_key_before_anything_is_read(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = Settings(output=tmp_path, records=tmp_path / "none.csv", judge="recorded", strategies=("rewrite",))
    project = WordProject.from_settings(settings)
    seed_criteria(project, Criteria(criteria="c"))
    with pytest.raises(JudgeSettingsError, match="no model is set for provider 'openai'"):
        run_loop(project, instance)


@pytest.mark.slow
def test_the_command_runs_the_whole_loop_and_shows_and_prunes_its_cache(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_planted_input(tmp_path, N)
    out = tmp_path / "out"
    arguments = ["--records", str(tmp_path / "records.csv"), "--annotations", str(tmp_path / "annotations.csv")]
    arguments += ["--judge", "openai", "--model", "m", "--base-url", server.base_url, "--output", str(out)]
    assert cli.main(["run", *arguments, "--max-iterations", "0", "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["versions"][0]["n"] == N
    assert server.stats()["calls"] == N
    assert pd.read_parquet(out / "judge_scores" / "v001.parquet")["n_attempts"].unique().tolist() == [1]
    assert cli.main(["cache", "--output", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_by_model"] == {"custom/m": N}
    assert cli.main(["cache", "--output", str(out), "--prune", "--older-than", "1"]) == 0
    assert f"removed 0 verdicts\n{out / '.cache' / 'verdicts.sqlite'}: {N} verdicts" in capsys.readouterr().out
    assert cli.main(["cache", "--output", str(out), "--prune"]) == 0
    assert f"removed {N} verdicts" in capsys.readouterr().out


def test_the_cache_command_says_what_it_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "--output", str(tmp_path)]) == 2
    assert "there is no verdict cache" in capsys.readouterr().err
    assert cli.main(["cache", "--output", str(tmp_path), "--status", "refused"]) == 2
    assert "add --prune" in capsys.readouterr().err


def test_a_line_of_progress_gets_a_bar_on_a_terminal() -> None:
    assert with_bar("records judged: 10 of 40 (5/s)", width=8) == "━━╌╌╌╌╌╌ records judged: 10 of 40 (5/s)"
    assert with_bar("evaluating v001") == "evaluating v001"
