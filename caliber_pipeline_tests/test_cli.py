"""The command: real data, bad input in one line, the same table again for free."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline import cli
from caliber_pipeline.commands.run import hold_output
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import JobRunner
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline.stores.verdict_cache import VerdictCache

RECORDED = "id,query,output,score,human_score,human_notes\n" + "".join(
    f"r{i},question {i},answer {i},{i % 2},{(i // 2) % 2},\n" for i in range(40)
)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["run", *arguments, "--json"]) == 0, capsys.readouterr().err
    summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary


# The figures of shared/datasets/README.md: accuracy, kappa, TN, FP, FN, TP, n.
FIGURES = {
    "booookscore_sample.csv": ("book", 0.7108, 0.1578, 21, 52, 31, 183, 287),
    "openqa_eval_sample.csv": ("query", 0.8433, 0.6805, 105, 18, 29, 148, 300),
}


@pytest.mark.parametrize("name", FIGURES)
def test_recorded_verdicts_on_real_judgments_give_the_published_figures(
    name: str, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group, accuracy, kappa, tn, fp, fn, tp, n = FIGURES[name]
    options = ["--judge", "recorded", "--group-by", group, "--max-iterations", "0", "--output", str(tmp_path / "out")]
    summary = run_json(capsys, "--records", str(real_data / name), *options)
    (version,) = summary["versions"]
    assert round(version["accuracy"], 4) == accuracy
    assert round(version["cohen_kappa"], 4) == kappa
    cells = [version[c] for c in ("true_negatives", "false_positives", "false_negatives", "true_positives")]
    assert cells == [tn, fp, fn, tp]
    assert (version["n"], version["n_failed"], version["n_examples"]) == (n, 0, 0)
    assert summary["champion"] == "v001"
    assert summary["n_records"] == n
    row = pd.read_parquet(tmp_path / "out" / "optimized_criteria" / "v001.parquet").iloc[0]
    assert not row["is_proposed"]
    assert row["proposal_reason"] == "proposals are switched off (max_iterations is 0)"
    assert [path.name for path in (tmp_path / "out" / "criteria").iterdir()] == ["v001.yaml"]


@pytest.fixture(scope="module")
def evaluated_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recorded verdicts, which no test changes, and the output of a run over them."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "records.csv").write_text(RECORDED)
    assert cli.main(["run", *recorded_arguments(folder, folder), "--max-iterations", "0", "--json"]) == 0
    return folder


def recorded_arguments(folder: Path, output: Path) -> list[str]:
    return ["--records", str(folder / "records.csv"), "--judge", "recorded", "--output", str(output / "out")]


@pytest.fixture
def recorded(tmp_path: Path) -> list[str]:
    """Arguments for a run over recorded verdicts into a new output."""
    (tmp_path / "records.csv").write_text(RECORDED)
    return recorded_arguments(tmp_path, tmp_path)


@pytest.fixture
def evaluated(evaluated_once: Path, tmp_path: Path) -> list[str]:
    """Arguments for another run, over the same records into a copy of the output of before."""
    shutil.copytree(evaluated_once / "out", tmp_path / "out")
    return recorded_arguments(evaluated_once, tmp_path)


def test_every_table_opens_with_plain_pandas(evaluated: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = ("records", "rejected_records", "annotations", "rejected_annotations", "calibration_history")
    versioned = ("judge_scores", "alignment_metrics", "patterns", "misalignments", "optimized_criteria")
    for path in [*(out / f"{name}.parquet" for name in whole), *(out / name / "v001.parquet" for name in versioned)]:
        assert pd.read_parquet(path) is not None
    assert len(pd.read_parquet(out / "judge_scores" / "v001.parquet")) == 40


def test_the_table_and_the_patterns_are_shown(recorded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *recorded]) == 0
    shown = capsys.readouterr()
    assert "Criteria versions" in shown.out
    assert "baseline" in shown.out
    assert "tables: " in shown.out
    assert "In plain words:" in shown.out
    assert "caliber run --records …" in shown.out  # every record is labelled already: more have to come
    assert "caliber report --output" in shown.out.split("Next:")[1]
    assert "evaluating v001" in shown.err


def test_running_again_is_quick_costs_nothing_and_says_the_same(
    recorded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    first = run_json(capsys, *recorded)
    first_s = time.monotonic() - started
    assert cli.main(["run", *recorded, "--json"]) == 0
    again = capsys.readouterr()
    assert time.monotonic() - started < 2 * first_s
    assert json.loads(again.out.splitlines()[-1]) == first
    assert "evaluating" not in again.err
    assert "reading" not in again.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--judge", "local"], "'v001' was judged by recorded, and the settings name the judge 'local'; give --judge"),
        (["--judge", "recorded", "--group-by", "score"], "its versions were evaluated with no --group-by, and other"),
    ],
    ids=["another judge", "other groups"],
)
def test_an_output_is_not_gone_on_with_otherwise_than_it_was_begun(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    (tmp_path / "records.csv").write_text(RECORDED + "new,another question,another answer,1,1,\n")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")}
    assert cli.main(["run", "--records", str(tmp_path / "records.csv"), *evaluated[-2:], *changes]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert {path: path.read_bytes() for path in before} == before


def test_annotations_stay_where_their_file_is_not_named_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records.csv").write_text("id,query,output,score\n" + "".join(f"r{i},q{i},a,1\n" for i in range(9)))
    (tmp_path / "people.csv").write_text("id,score\n" + "".join(f"r{i},{i % 2}\n" for i in range(9)))
    run = ["run", *recorded_arguments(tmp_path, tmp_path), "--max-iterations", "0"]
    assert cli.main([*run, "--annotations", str(tmp_path / "people.csv")]) == 0
    capsys.readouterr()
    assert cli.main(run) == 2
    assert "the 9 annotations in " in capsys.readouterr().err
    assert len(pd.read_parquet(tmp_path / "out" / "annotations.parquet")) == 9


def test_the_champion_is_measured_by_a_column_that_is_named_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = RECORDED.splitlines()
    lines = [f"{header},lang", *(f"{row},{'de' if i % 4 < 2 else 'en'}" for i, row in enumerate(rows))]
    (tmp_path / "records.csv").write_text("\n".join(lines))
    run = [*recorded_arguments(tmp_path, tmp_path), "--max-iterations", "0"]
    first = run_json(capsys, *run)
    again = run_json(capsys, *run, "--slice-by", "lang")
    metrics = pd.read_parquet(tmp_path / "out" / "alignment_metrics" / "v001.parquet")
    assert set(metrics["slice_value"].dropna()) == {"de", "en"}
    assert [version["cohen_kappa"] for version in again["versions"]] == [
        version["cohen_kappa"] for version in first["versions"]
    ]
    assert cli.main(["run", *run, "--slice-by", "nope"]) == 2
    assert "no record has the metadata column ['nope']" in capsys.readouterr().err


def test_new_annotations_have_the_champion_evaluated_again(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = ["--records", str(tmp_path / "records.csv"), *evaluated[2:], "--max-iterations", "0"]
    (tmp_path / "records.csv").write_text(RECORDED + "new,another question,another answer,1,1,\n")
    again = run_json(capsys, *changed)
    assert again["versions"][0]["n"] == 41
    history = pd.read_parquet(tmp_path / "out" / "calibration_history.parquet")
    assert history["all_n"].tolist() == [40, 41]


def test_columns_of_both_files_can_be_named(
    recorded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text("ticket,ok,query\nr0,yes,question 0\nr1,no,another question\nr2,no,\n")
    labels = ["--annotations", str(tmp_path / "labels.csv"), "--max-iterations", "0"]
    assert cli.main(["run", *recorded, *labels]) == 2
    said = capsys.readouterr().err
    assert "name them with --annotation-column record_id=COLUMN --annotation-column score=COLUMN\n" in said
    named = ["--annotation-column", "record_id=ticket", "--annotation-column", "score=ok"]
    assert run_json(capsys, *recorded, *labels, *named)["n_rejected_annotations"] == 1
    (rejected,) = pd.read_parquet(tmp_path / "out" / "rejected_annotations.parquet").itertuples()
    assert (rejected.line, rejected.reason) == (3, "record 'r1' had another text when it was judged; judge it again")


def test_files_given_for_each_other_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers, labels = tmp_path / "answers.csv", tmp_path / "labels.csv"
    answers.write_text(RECORDED)
    labels.write_text("record_id,annotator,score,notes\nr1,ann,1,\n")
    swapped = ["--records", str(labels), "--annotations", str(answers), "--output", str(tmp_path / "out")]
    assert cli.main(["run", *swapped]) == 2
    said = capsys.readouterr().err
    assert f"{labels} looks like annotations and {answers} like records; give each as the other\n" in said


def test_odd_columns_are_no_swap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers, labels = tmp_path / "answers.csv", tmp_path / "labels.csv"
    answers.write_text("id,asked,said\nr1,q,a\n")
    labels.write_text("record_id,score\nr1,1\n")
    files = ["--records", str(answers), "--annotations", str(labels), "--output", str(tmp_path / "out")]
    assert cli.main(["run", *files]) == 2
    assert "name them with --column query=COLUMN --column output=COLUMN\n" in capsys.readouterr().err


def test_help_fits_a_terminal_and_ends_with_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in cli.load_commands():
        name = command.__name__.rsplit(".", 1)[-1]
        with pytest.raises(SystemExit, match="0"):
            cli.main([name, "--help"])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80
        assert f"  caliber {name}" in shown.split("examples:\n")[1]


@pytest.mark.slow
def test_outputs_do_not_see_each_other(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    criteria = tmp_path / "mine.yaml"
    criteria.write_text("criteria: Score 1 if it is mine, otherwise 0\n")
    other = [*evaluated[:-1], str(tmp_path / "other"), "--criteria", str(criteria), "--max-iterations", "0"]
    summary = run_json(capsys, *other)
    assert len(summary["versions"]) == 1
    assert "it is mine" in (tmp_path / "other" / "criteria" / "v001.yaml").read_text()
    assert "accurate, complete and helpful" in (tmp_path / "out" / "criteria" / "v001.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "records.csv: no such file"),
        ("", [], "records.csv: the file is empty"),
        ("id,text\n1,a\n", [], "no column for query and output among id, text; name them with --column query=COLUMN"),
        ("query,output\n,\n , \n", [], "none of its 1 rows is a record; the first: query is blank; output is blank"),
        ("id,text\n1,a\n", [], "name them with --column query=COLUMN --column output=COLUMN\n"),
        (RECORDED, ["--column", "output"], "column mapping 'output' is not NAME=COLUMN"),
        (RECORDED, ["--column", "output=a", "--column", "output=b"], "'output=b': 'output' is mapped already"),
        (RECORDED, ["--column", "output=nope"], "has no column 'nope' for 'output'"),
        (RECORDED, ["--group-by", "book"], "no column 'book' to group by"),
        (RECORDED, ["--annotations", "nowhere.csv"], "nowhere.csv: no such file"),
        (RECORDED, ["--criteria", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (RECORDED, ["--max-iterations", "-1"], "--max-iterations is -1: Input should be greater than or equal to 0"),
        (
            "id,query,output,score\n1,q,o,1\n",
            [],
            "holds no verdict of people on a record; name their column with --column",
        ),
        (RECORDED, ["--judge", "local", "--model", "m"], "--model is for --judge openai, and the judge is 'local'"),
        (RECORDED, ["--mode", "batch"], "--mode is for --judge openai, and the judge is 'recorded'"),
        ("query,output,human_score\nq,o,1\n", [], "no record brings a verdict; the recorded judge needs a column"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(
    content: str | None, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "records.csv").write_text(content)
    judge = [] if "--judge" in options else ["--judge", "recorded"]
    arguments = ["--records", str(tmp_path / "records.csv"), *judge, "--output", str(tmp_path / "out")]
    assert cli.main(["run", *arguments, *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines(keepends=True) if line.startswith("caliber: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("base", ["nope", "v001"])
def test_criteria_that_cannot_be_used_are_one_line(
    base: str, recorded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    criteria = tmp_path / "mine.yaml"
    criteria.write_text(f"criteria: x\nbase: {base}\n")
    assert cli.main(["run", *recorded, "--criteria", str(criteria)]) == 2
    assert f"criteria 'v001' name the base '{base}', which is no other version" in capsys.readouterr().err


def test_annotations_of_which_none_counts_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records.csv").write_text("id,query,output,score\nr1,q,o,1\n")
    (tmp_path / "labels.csv").write_text("id,score\nx1,1\nx2,0\n")
    files = ["--records", str(tmp_path / "records.csv"), "--annotations", str(tmp_path / "labels.csv")]
    assert cli.main(["run", *files, "--judge", "recorded", "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "labels.csv: holds no verdict of people on a record (2 rows rejected, the first: record_id 'x1'" in said
    assert not (tmp_path / "out" / "judge_scores").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rn"], "argument COMMAND: invalid choice: 'rn'"),
        (["run", "--judge", "gpt"], "argument --judge: invalid choice: 'gpt'"),
        (["run", "--annotations", "a.csv", "--annotations", "b.csv"], "--annotations is given more than once"),
        (["ingest", "--records", "a.csv", "--records", "b.csv"], "--records is given more than once"),
        (["score", "--judge", "j.json", "--records", "a.csv", "--records", "b.csv"], "--records is given more than"),
        (["judge", "--max-cost-usd", "nan"], "argument --max-cost-usd: 'nan' is no number"),
        (["check", "--judge", "j.json", "--min-kappa", "nan"], "argument --min-kappa: 'nan' is no number"),
        (["judge", "--max-cost-usd", "-1"], "argument --max-cost-usd: '-1' is below 0"),
        (["run", "--max-concurrency", "0"], "argument --max-concurrency: '0' is no whole number of at least 1"),
        (["cache", "--prune", "--older-than", "1e6"], "argument --older-than: '1e6' days are more than the calendar"),
        (["cache", "--prune", "--older-than", "1e9"], "argument --older-than: '1e9' days are more than the calendar"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"caliber: {message}")
    assert "--help`" in line


def test_what_writes_is_refused_while_another_command_is_at_work_on_the_output(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = evaluated[-2:]
    with VerdictCache(tmp_path / "out" / ".cache" / "verdicts.sqlite"):
        """There is one."""
    writing = [
        ["run", *evaluated],
        ["ingest", *evaluated[:2], *output],
        ["judge", "--judge", "recorded", *output],
        ["promote", "v001", "--reason", "better", *output],
        ["cache", "--prune", *output],
    ]
    settings = Settings(output=tmp_path / "out")
    with hold_output(settings):
        for command in writing:
            assert cli.main(command) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line == (
                f"caliber: {settings.output}: another `caliber` command is at work on it; wait for it, or name another "
                "--output"
            )
        assert cli.main(["report", "--to", str(tmp_path / "report.html"), *output]) == 0
    run_json(capsys, *evaluated, "--max-iterations", "0")


def test_a_drift_alarm_is_told(evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, *evaluated, "--max-iterations", "0")["drift_alarm"] is None
    tables = TableStore(str(tmp_path / "out"))
    drift = tables.require("drift", "v001")
    tables.save(drift.assign(is_alarm=True, summary="agreement fell"), tables.path("drift", "v001"), "drift")
    assert cli.main(["run", *evaluated, "--max-iterations", "0"]) == 0
    assert "Drift alarm: agreement fell" in capsys.readouterr().out
    assert cli.main(["run", *evaluated, "--max-iterations", "0", "--fail-on-drift", "--json"]) == 4
    shown = capsys.readouterr()
    assert shown.err.endswith("caliber: drift alarm: agreement fell\n")
    assert json.loads(shown.out)["drift_alarm"] == "agreement fell"


def test_a_bad_file_leaves_what_was_stored(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tmp_path / "out" / "records.parquet").read_bytes()
    (tmp_path / "records.csv").write_text("nothing,useful\n1,2\n")
    assert cli.main(["run", "--records", str(tmp_path / "records.csv"), *evaluated[2:]]) == 2
    assert (tmp_path / "out" / "records.parquet").read_bytes() == before


@pytest.mark.parametrize(
    "command", [pytest.param(["run", "--max-iterations", "0"], marks=pytest.mark.slow), ["ingest"]]
)
def test_other_data_in_an_old_output_are_told(
    command: list[str], evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.csv").write_text(RECORDED.replace("question", "another question"))  # under the same ids
    other = ["--records", str(tmp_path / "other.csv"), *evaluated[2 if command[0] == "run" else 4 :]]
    assert cli.main([*command, *other]) == 0
    said = capsys.readouterr().err
    told = "warning: these are other data: none of the 40 records that were labelled before is among them; the criteria"
    assert said.count(told) == 1
    assert cli.main([*command, *other]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.slow
def test_labels_that_are_gone_are_told(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = ["--records", str(tmp_path / "records.csv"), *evaluated[2:], "--max-iterations", "0"]
    (tmp_path / "records.csv").write_text(RECORDED.replace("r1,question 1,answer 1,1,0,", "r1,question 1,answer 1,1,,"))
    assert cli.main(["run", *changed]) == 0
    told = "warning: of {} labelled records {} are gone, have another text, or have no label any more\n"
    assert told.format(40, 1) in capsys.readouterr().err
    (tmp_path / "records.csv").write_text(RECORDED.replace("human_score", "ignored"))  # the records are still the same
    assert cli.main(["run", *changed]) == 2
    assert f"the 39 annotations in {tmp_path / 'out'} stay" in capsys.readouterr().err
    assert len(pd.read_parquet(tmp_path / "out" / "annotations.parquet")) == 39


@pytest.mark.parametrize("command", ["run", "ingest"])
def test_records_that_are_not_named_again_are_not_replaced_by_the_projects_own(
    command: str, recorded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ingest", *recorded[:2], *recorded[4:]]) == 0
    stored = (tmp_path / "out" / "records.parquet").read_bytes()
    assert cli.main([command, *recorded[-2:]]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'}: holds the records of {tmp_path / 'records.csv'}, and data/input/records.csv" in said
    assert "name the file with --records, or another --output" in said
    assert (tmp_path / "out" / "records.parquet").read_bytes() == stored


def test_rejected_rows_are_counted_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records.csv").write_text(RECORDED + "r0,again,answer,1,1,\nr99,,answer,1,1,\nx,y\n")
    (tmp_path / "notes.csv").write_text("record_id,score\nr1,1\nnobody,1\n")
    files = ["--records", str(tmp_path / "records.csv"), "--annotations", str(tmp_path / "notes.csv")]
    summary = run_json(
        capsys, *files, "--judge", "recorded", "--output", str(tmp_path / "out"), "--max-iterations", "0"
    )
    assert (summary["n_records"], summary["n_rejected_records"], summary["n_rejected_annotations"]) == (40, 3, 1)
    assert summary["first_rejections"] == {
        "rejected_records": "line 42: record_id 'r0' repeats that of line 2",
        "rejected_annotations": "line 3: record_id 'nobody' is not among the records",
    }
    rejected = pd.read_parquet(tmp_path / "out" / "rejected_records.parquet")
    assert rejected["line"].tolist() == [42, 43, 44]
    assert rejected["raw"].tolist() == ["r0,again,answer,1,1,", "r99,,answer,1,1,", "x,y"]
    assert "record_id 'r0' repeats that of line 2" in rejected["reason"].tolist()


def test_too_few_verdicts_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = RECORDED.splitlines()
    lines[1:11] = [f"r{i},question {i},answer {i},,{(i // 2) % 2}," for i in range(10)]
    (tmp_path / "records.csv").write_text("\n".join(lines) + "\n")
    arguments = ["--records", str(tmp_path / "records.csv"), "--judge", "recorded", "--output", str(tmp_path / "out")]
    assert cli.main(["run", *arguments]) == 1
    error = capsys.readouterr().err
    assert "75.0% of 40 records judged; 10 of: the records file has no verdict here" in error
    assert not (tmp_path / "out" / "alignment_metrics").exists()
    assert (tmp_path / "out" / "judge_scores" / "v001.parquet").exists()


@pytest.mark.slow
def test_each_verdict_is_paid_once(planted: Project) -> None:
    with dg.instance_for_test() as instance:
        JobRunner(planted.settings, instance, report=lambda _: None, project=planted).run_loop()
    with VerdictCache(planted.cache_folder / "verdicts.sqlite") as cache:
        n_verdicts = cache.stats().n_verdicts
    versions = planted.tables.versions("judge_scores")
    assert n_verdicts == sum(planted.tables.count("judge_scores", version) for version in versions)


def test_importing_the_package_is_quick_and_loads_nothing_heavy() -> None:
    heavy = ("dagster", "torch", "sklearn", "pandas")
    code = f"import sys, caliber_pipeline; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    (line,) = [line for line in done.stderr.splitlines() if line.endswith("| caliber_pipeline")]
    assert int(line.split("|")[1]) < 500_000  # microseconds, with all that it imports
