"""`caliber plan` and `caliber estimate` on a small evaluated project with a recorded judge."""

import csv
import json
from collections.abc import Hashable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.champion import Champion, judge_others, load_champion
from caliber_pipeline.cli import main
from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics, metric_value
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.judge_scores import select_judged
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.optimized_criteria import build_row
from caliber_pipeline.core.stopping import Decision
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.judges.sharded import JUDGED_COLUMNS
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.ingest import load_annotations, load_records

N_LABELLED, N_OTHERS = 300, 100


def write_records(path: Path, prefix: str, n: int, n_labelled: int, seed: int = 0) -> None:
    """People accept 70 %; the judge is right on 85 %."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "query", "output", "human_score", "llm_score"])
        for i in range(n):
            human = int(rng.random() < 0.7)
            judge = human if rng.random() < 0.85 else 1 - human
            writer.writerow(
                [f"{prefix}{i}", f"{prefix} query {i}", f"output {i}", human if i < n_labelled else "", judge]
            )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output of a project whose v001 was evaluated."""
    write_records(tmp_path / "records.csv", "r", N_LABELLED + N_OTHERS, N_LABELLED)
    settings = Settings(output=tmp_path / "out", records=tmp_path / "records.csv", judge="recorded")
    project = Project.from_settings(settings)
    records = load_records(settings).table
    annotations = load_annotations(settings, records).table
    labels, criteria = resolve_labels(annotations), Criteria(criteria="Accept what is right")
    nothing = records.iloc[:0].assign(human_score=None, human_notes=None)
    verdicts = run_judge(RecordedJudge(), JudgeTask(select_judged(records, labels), criteria, nothing))
    decision = Decision("baseline", "the first version", None, "v001", None)
    decided = build_row("v001", criteria, decision, None, None, None, datetime.now(UTC))
    attrs: dict[Hashable | None, object] = {"records_fingerprint": "r", "annotations_fingerprint": "a"}
    for name, frame, version in (
        ("records", records, None),
        ("annotations", annotations, None),
        ("judge_scores", verdicts, "v001"),
        ("optimized_criteria", decided, "v001"),
    ):
        frame.attrs = {**attrs}
        project.tables.save(frame, project.tables.path(name, version), name)
    project.criteria_files.add_as("v001", criteria)
    return settings.local_output


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json", "--judge", "recorded"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_the_champions_held_out_rows_leave_out_train(output: Path) -> None:
    champion = load_champion(Project.from_settings(Settings(output=output, judge="recorded")))

    assert champion.version == "v001"
    assert set(champion.held_out["split"]) == {"dev", "test"}
    assert len(champion.records) == N_LABELLED  # of records that nobody labelled there may be millions


def test_a_plan_names_labels_for_an_interval_and_for_a_gain(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = run_json(capsys, "plan", "--output", str(output), "--half-width", "0.1", "--gain", "0.1")

    assert plan["prevalence"] == pytest.approx(0.7, abs=0.1)
    # kappa between 0.5 and 0.8: its variance is between 0.4 and 0.9 at this prevalence, times (1.96 / 0.1) squared
    assert 150 < float(str(plan["n_dev_for_half_width"])) < 400
    assert float(str(plan["n_labels_for_half_width"])) == pytest.approx(
        float(str(plan["n_dev_for_half_width"])) / 0.4, abs=1
    )
    assert float(str(plan["n_dev_for_gain"])) > 0


def test_a_plan_shows_the_figures_that_were_observed(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored = load_champion(Project.from_settings(Settings(output=output, judge="recorded"))).scored
    metrics = compute_alignment_metrics(scored)

    plan = run_json(capsys, "plan", "--output", str(output))

    for name in ("prevalence", "recall", "specificity", "cohen_kappa"):
        assert plan[name] == metric_value(metrics, "dev", name)


def test_a_plan_shows_what_is_undefined_as_such(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project.from_settings(Settings(output=output, judge="recorded"))
    found = load_champion(project)
    all_accepted = replace(found, scored=found.scored.assign(human_score=1, llm_score=1))
    monkeypatch.setattr("caliber_pipeline.champion.load_champion", lambda _: all_accepted)

    plan = run_json(capsys, "plan", "--output", str(output))
    assert main(["plan", "--output", str(output), "--judge", "recorded"]) == 0

    assert [plan[name] for name in ("prevalence", "recall", "specificity", "cohen_kappa")] == [1.0, 1.0, None, None]
    said = capsys.readouterr().out
    assert "people accept 100%; the judge accepts 100% of those and rejects n/a of the others (kappa n/a).\n" in said
    assert "with half a record added to each of the four outcomes" in said


def test_a_plan_chooses_unlabelled_records_with_their_probability(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "next.csv"

    plan = run_json(capsys, "plan", "--output", str(output), "--budget", "20", "--to", str(to))

    form = pd.read_csv(to)
    assert len(form) == 20
    assert set(form["record_id"].str[1:].astype(int)) <= set(range(N_LABELLED, N_LABELLED + N_OTHERS))
    assert form["inclusion_probability"].tolist() == pytest.approx([0.2] * 20)  # no confidences: all as unsure
    assert isinstance(plan["chosen"], dict)
    assert plan["chosen"]["n_candidates"] == N_OTHERS


@pytest.mark.parametrize("assumption", ["--random-sample", "--label-shift"])
def test_the_production_rate_is_estimated_under_the_stated_assumption(
    assumption: str, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabeled = tmp_path / "production.csv"
    write_records(unlabeled, "p", 2000, 0, seed=1)

    answer = run_json(capsys, "estimate", "--output", str(output), "--unlabeled", str(unlabeled), assumption)

    assert answer["assumption"] == assumption[2:].replace("-", "_")
    assert float(str(answer["ci_low"])) < 0.7 < float(str(answer["ci_high"]))
    assert answer["n_unlabeled"] == 2000
    assert isinstance(answer["abstention"], dict)
    assert answer["abstention"]["reason"] == "the judge gives no confidences; ask it for one, or take several votes"


def test_an_estimate_holds_of_a_file_what_the_judge_reads(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabeled = tmp_path / "production.csv"
    seen: list[str] = []
    write_records(unlabeled, "p", 30, 0, seed=1)
    pd.read_csv(unlabeled).assign(trace="what nobody asks for").to_csv(unlabeled, index=False)

    def judge(project: Project, champion: Champion, records: pd.DataFrame) -> pd.DataFrame:
        seen.extend(records.columns)
        return judge_others(project, champion, records)

    monkeypatch.setattr("caliber_pipeline.champion.judge_others", judge)
    answer = run_json(capsys, "estimate", "--output", str(output), "--unlabeled", str(unlabeled), "--random-sample")
    assert answer["n_unlabeled"] == 30
    assert tuple(seen) == JUDGED_COLUMNS


def test_an_assumption_must_be_stated(output: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", "--output", str(output), "--unlabeled", str(tmp_path / "records.csv")])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["estimate", "--label-shift", "--unlabeled", "{records}"], "give others"),
        (["estimate", "--label-shift", "--unlabeled", "{records}", "--judge", "local"], "give others"),
        (["plan", "--half-width", "0"], "--half-width is 0; give one between 0 and 1"),
        (["plan", "--gain", "0.3", "--discordance", "0.1"], "a gain of 0.3 at a discordance of 0.1 is impossible"),
        (["plan", "--discordance", "0"], "a gain of 0.05 at a discordance of 0.0 is impossible"),
        (["plan", "--power", "1"], "power is 1.0; give a share between 0 and 1"),
        (["plan", "--to", "x.csv"], "--to needs --budget"),
        (["plan", "--budget", "0"], "the budget is 0; give the number of records that can be labelled"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line(
    arguments: list[str], message: str, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "labelled.csv", "r", 10, 0)
    filled = [argument.format(records=tmp_path / "labelled.csv") for argument in arguments]

    assert main([*filled, "--output", str(output), *([] if "--judge" in filled else ["--judge", "recorded"])]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nothing_evaluated_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--output", str(tmp_path / "empty")]) == 1
    assert "nothing was evaluated yet; run `caliber run` first" in capsys.readouterr().err


def test_text_output_states_the_assumption(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabeled, abstained = tmp_path / "production.csv", tmp_path / "people" / "abstained.csv"
    write_records(unlabeled, "p", 50, 0, seed=1)
    common = ["--output", str(output), "--judge", "recorded"]

    assert (
        main(["estimate", *common, "--unlabeled", str(unlabeled), "--random-sample", "--abstained-to", str(abstained)])
        == 0
    )
    assert main(["plan", *common]) == 0

    text = capsys.readouterr().out
    assert "if the labels are a random sample of these records." in text
    assert "Kappa to ±0.1" in text
    assert len(pd.read_csv(abstained)) == 50


def test_another_weeks_records_that_count_from_one_again_are_no_labelled_ones(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "same.csv", "r", N_LABELLED + N_OTHERS, 0)
    other = pd.read_csv(tmp_path / "same.csv", dtype=str)
    other.assign(query="this week: " + other["query"]).to_csv(tmp_path / "week.csv", index=False)
    at = ("estimate", "--output", str(output), "--random-sample", "--unlabeled")

    week = run_json(capsys, *at, str(tmp_path / "week.csv"))
    same = run_json(capsys, *at, str(tmp_path / "same.csv"))

    assert (week["n_unlabeled"], week["n_labelled_rows"]) == (N_LABELLED + N_OTHERS, 0)
    assert (same["n_unlabeled"], same["n_labelled_rows"]) == (N_OTHERS, N_LABELLED)
    assert main([*at, str(tmp_path / "same.csv"), "--judge", "recorded"]) == 0
    assert f"Left out: {N_LABELLED} that are labelled, 0 without a verdict" in capsys.readouterr().out


def test_a_form_that_somebody_has_begun_to_fill_in_is_not_overwritten(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = tmp_path / "plan.csv"
    plan = ("plan", "--output", str(output), "--judge", "recorded", "--budget", "5", "--to", str(form))
    assert main(plan) == 0
    assert main(plan) == 0  # nobody had filled in anything
    begun = pd.read_csv(form, dtype=str)
    begun.loc[0, ["annotator", "score"]] = ["ann", "1"]
    begun.to_csv(form, index=False)
    capsys.readouterr()

    assert main(plan) == 2
    others = ["--unlabeled", str(tmp_path / "records.csv"), "--abstained-to", str(form)]
    assert main(["estimate", "--random-sample", "--output", str(output), "--judge", "recorded", *others]) == 2

    told = capsys.readouterr().err
    assert told.count("1 of its rows are filled in; take them in with `caliber run --annotations") == 2
    pd.testing.assert_frame_equal(pd.read_csv(form, dtype=str), begun)


@pytest.mark.parametrize(("there", "fault"), [("records.csv", "no form to fill in"), ("", "is a folder")])
def test_a_form_is_written_over_nothing_else(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str, fault: str
) -> None:
    before = (tmp_path / "records.csv").read_bytes()

    to = str(tmp_path / there)
    assert main(["plan", "--output", str(output), "--judge", "recorded", "--budget", "5", "--to", to]) == 2

    assert fault in capsys.readouterr().err
    assert (tmp_path / "records.csv").read_bytes() == before
    assert not (output / "label_plan.parquet").exists()
