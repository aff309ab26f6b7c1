"""From a plan to labels given on the annotation page, and to figures that weigh them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.annotate.app import create_app
from caliber_pipeline.annotate.records import Assets, Records
from caliber_pipeline.annotate.security import allowed_hosts
from caliber_pipeline.cli import main
from caliber_pipeline.core.alignment_metrics import metric_row
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.annotation_store import AnnotationStore
from caliber_pipeline_tests.annotate.test_app import Browser
from caliber_pipeline_tests.projects import PlantedProject, QuotingJudge, write_planted_input

N, N_LABELLED, BUDGET = 800, 600, 40


class DoubtingJudge(QuotingJudge):
    """Accepts everything, and is unsure of what has a flaw, which people reject."""

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        """Yield all verdicts at once, with a confidence."""
        is_plain = task.records["output"].str.contains("plain").to_numpy(dtype=bool)
        for verdicts in super().judge(task):
            yield verdicts.assign(confidence=np.where(is_plain, 0.95, 0.55))


def queue_of(records: Records, name: str) -> set[str]:
    return set(records.table.column("record_id").to_pandas()[records.queues[name].places >= 0])


def is_flawed(record_id: str) -> bool:
    return int(record_id[1:]) % 4 < 2


def write_input(folder: Path) -> list[str]:
    write_planted_input(folder, N)
    path = folder / "annotations.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: N_LABELLED + 1]))
    files = ["--records", str(folder / "records.csv"), "--annotations", str(path)]
    return [*files, "--output", str(folder / "out")]


@pytest.mark.slow
def test_planned_labels_are_given_on_the_page_and_weighed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Project, "build_judge", lambda *_, **__: DoubtingJudge())
    monkeypatch.setattr(Project, "build_encoder", PlantedProject.build_encoder)
    run, out = ["run", *write_input(tmp_path), "--max-iterations", "0"], tmp_path / "out"
    assert main(run) == 0

    # What the judge abstains on: it is right wherever it is sure, and wrong on every flaw.
    queue = pd.read_parquet(out / "relabel_queue" / "v001.parquet")
    judged = pd.read_parquet(out / "judge_scores" / "v001.parquet")
    unsure = set(judged.loc[judged["confidence"] < 0.9, "record_id"])
    assert set(queue.loc[queue["reason"] == "the judge abstains", "record_id"]) == unsure
    assert unsure == {record_id for record_id in judged["record_id"] if is_flawed(record_id)}
    assert queue_of(Assets(out).records(), "abstained") == unsure

    assert main(["plan", "--output", str(out), "--budget", str(BUDGET)]) == 0
    assert f"{BUDGET} of {N - N_LABELLED} unlabelled records" in capsys.readouterr().out
    plan = pd.read_parquet(out / "label_plan.parquet").set_index("record_id")["inclusion_probability"]
    assert len(plan) == BUDGET
    # 40 labels for 100 flawed and 100 plain: a fifth evenly, the rest in the ratio of 0.45 to 0.05
    by_flaw = plan.groupby([is_flawed(record_id) for record_id in plan.index]).first()
    assert by_flaw.tolist() == pytest.approx([(8 / 2 + 32 * 0.1) / 100, (8 / 2 + 32 * 0.9) / 100])

    label_on_the_page(out, list(plan.index))
    assert main(run) == 0

    annotations = pd.read_parquet(out / "annotations.parquet")
    given = annotations[annotations["annotator"] == "eve"].set_index("record_id")["inclusion_probability"]
    assert given.to_dict() == plan.to_dict()
    metrics = pd.read_parquet(out / "alignment_metrics" / "v001.parquet")
    record_ids = pd.read_parquet(out / "judge_scores" / "v001.parquet")["record_id"]
    weights = (1 / record_ids.map(plan)).fillna(1.0)
    expected = np.average([not is_flawed(str(record_id)) for record_id in record_ids], weights=weights)
    assert metric_row(metrics, "all", "accuracy")["value"] == pytest.approx(expected)
    # Half of all records have a flaw, four in five of the plan: each of its eight or so plain ones stands for fourteen.
    assert expected == pytest.approx(0.5, abs=0.06)

    check_estimate(tmp_path, out, capsys)


def label_on_the_page(out: Path, record_ids: list[str]) -> None:
    with AnnotationStore(str(out / "annotations.sqlite")) as store:
        assets = Assets(out)
        assert queue_of(assets.records(), "plan") == set(record_ids)
        app = create_app(assets, store, port=8765, hosts=allowed_hosts("127.0.0.1"))
        eve = Browser(app, base_url="http://127.0.0.1:8765")
        eve.sign_in("eve")
        for record_id in record_ids:
            assert eve.judge("eve", record_id, int(not is_flawed(record_id))).status_code == 200


def check_estimate(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of new records have a flaw: the estimate holds it, the sure ones are decided, the others left to people."""
    production = folder / "production.csv"
    with production.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "answer"])
        writer.writerows([f"p{i}", f"new question {i}", "plain" if i % 2 else "zebra"] for i in range(400))
    capsys.readouterr()
    arguments = ["estimate", "--output", str(out), "--unlabeled", str(production), "--random-sample", "--json"]
    left = folder / "left.csv"

    assert main([*arguments, "--abstained-to", str(left)]) == 0

    answer = json.loads(capsys.readouterr().out)
    assert answer["ci_low"] < 0.5 < answer["ci_high"]
    assert answer["abstention"]["threshold"] == 0.95
    assert set(pd.read_csv(left)["record_id"]) == {f"p{i}" for i in range(0, 400, 2)}
