"""Ctrl-C ends the command with one line and no traceback, wherever it arrives."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._utils.interrupts import capture_interrupts

from caliber_pipeline import cli
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import JobRunner

STOPPED = "caliber: stopped; what was finished is kept\n"
WAIT_S = 10.0
COMMAND = """
import logging, os, signal, sys, time
from caliber_pipeline import cli
from caliber_pipeline.commands import run
class Finalized:
    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)
def finalize(_): Finalized(); time.sleep(10)
def log(_):
    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(10)
    except BaseException: logging.getLogger("other").error("Exception closing", exc_info=True); raise
run.execute = globals()[sys.argv.pop()]
sys.exit(cli.main())
"""


def heard() -> None:
    """A process started in the background of a shell ignores the signal, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("place", ["finalize", "log"])
def test_an_interrupt_that_a_package_swallows_or_logs_ends_the_command_in_one_line(place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "run", place], capture_output=True, text=True, check=False, preexec_fn=heard
    )
    assert (done.returncode, done.stderr) == (cli.EXIT_FAILED, STOPPED)


def test_other_errors_that_nobody_hears_are_still_told(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[object] = []

    class Finalized:
        def __del__(self) -> None:
            raise ValueError("of a finalizer")

    def execute(_: object) -> None:
        Finalized()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caliber_pipeline.commands.run.execute", execute)
        patch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
        assert cli.main(["run"]) == 0
    assert [str(error) for error in told] == ["of a finalizer"]
    assert capsys.readouterr().err == ""


def test_an_interrupt_that_dagster_drops_after_the_last_step_ends_the_run(
    planted: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = dg.JobDefinition.execute_in_process

    def execute_and_drop(*arguments: object, **settings: object) -> object:
        result = execute(*arguments, **settings)  # type: ignore[arg-type]
        with capture_interrupts():
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(dg.JobDefinition, "execute_in_process", execute_and_drop)
    runner = JobRunner(planted.settings, instance, report=lambda _: None, log_level=logging.ERROR, project=planted)
    with pytest.raises(KeyboardInterrupt):
        runner._run("ingest")
    assert planted.tables.load_attrs("annotations") is not None


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.2, 0.6, 1.5, 2.5, 3.5, 4.0, 4.5, 5.0])
def test_an_interrupt_at_any_time_of_a_run_ends_it_in_one_line(tmp_path: Path, after_s: float) -> None:
    rows = "".join(f"r{i},question {i},answer {i},{i % 2},{(i // 2) % 2}\n" for i in range(40))
    (tmp_path / "records.csv").write_text(f"id,query,output,score,human_score\n{rows}")
    command = ["caliber_pipeline.cli", "run", "--records", "records.csv", "--judge", "recorded", "--output", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heard,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_S)
    # CPython ends itself by the signal where it came while a text was executed, as it is for each dataclass
    assert process.returncode in {cli.EXIT_FAILED, -signal.SIGINT}
    assert said.endswith(STOPPED)
    assert "Traceback" not in said
