"""What the strategies are worth on real judgments with the embedded judge: kappa, calls, cost, time.

Run from the project's folder: `python -m caliber_pipeline_tests.benchmarks.strategies FOLDER [NAME …]`, where FOLDER
gets one output per data set and strategy. The language model behind `rewrite` and `gepa` is a script on the loopback
interface that turns the notes of the errors that it is shown into clauses; it stands in for an LLM, and is none.
"""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from caliber_pipeline.core.errors import CaliberError
from caliber_pipeline.instances import open_instance
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import JobRunner, seed_criteria
from caliber_pipeline.settings import Settings
from caliber_pipeline.summary import load_summary
from caliber_pipeline_tests.scripted_endpoint import serve_chat

STRATEGIES: Final = ("rules", "examples", "rewrite", "gepa")
DATA: Final[Mapping[str, dict[str, Any]]] = {
    "sample": {"records": Path("data/input/records.csv"), "annotations": Path("data/input/annotations.csv")},
    "openqa_eval_sample": {"records": Path("../shared/datasets/openqa_eval_sample.csv"), "group_by": "query"},
    "booookscore_sample": {"records": Path("../shared/datasets/booookscore_sample.csv"), "group_by": "book"},
}
MODEL: Final = "note-quoting-script"


def respond(messages: Sequence[str]) -> dict[str, Any]:
    """What the script says to a prompt of `rewrite`, or of GEPA."""
    return answer(messages[-1]) if "kept_clauses" in messages[0] else {"text": reflect(messages[-1])}


def answer(prompt: str) -> dict[str, Any]:
    """A clause for each pattern among the shown errors, and the main text as it is."""
    rows = [json.loads(line) for line in prompt.splitlines() if line.startswith('{"record_id"')]
    errors: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["people"] != row["judge"]:
            errors.setdefault(str(row.get("pattern", "no pattern")), []).append(row)
    clauses = [
        {
            "text": f"Score {found[0]['people']} where people's reason is: {name}",
            "verdict": found[0]["people"],
            "record_ids": [row["record_id"] for row in found],
        }
        for name, found in errors.items()
    ]
    text = prompt.split("The judge's criteria:\n", 1)[1].split("\n\n", 1)[0]
    numbered = [line for line in prompt.splitlines() if line.split(". ", 1)[0].isdigit()]
    return {
        "suggestions": [],
        "criteria": text,
        "kept_clauses": list(range(1, len(numbered) + 1)),
        "new_clauses": clauses,
    }


def reflect(prompt: str) -> str:
    """A main text that asks for more care, in the form that GEPA reads."""
    return f"```\nScore 1 if the output answers the query rightly and completely, otherwise 0 ({len(prompt) % 97})\n```"


def run(name: str, strategy: str, folder: Path, base_url: str) -> str:
    """One line of the table."""
    output = folder / f"{name}-{strategy}"
    shutil.rmtree(output, ignore_errors=True)
    embeddings = folder / f"{name}.sqlite"
    (output / ".cache").mkdir(parents=True)
    if embeddings.exists():
        shutil.copyfile(embeddings, output / ".cache" / "embeddings.sqlite")
    options = {"provider": "custom", "base_url": base_url, "model": MODEL}
    settings = Settings.checked({**DATA[name], "output": output, "strategies": (strategy,), "judge_options": options})
    project = Project.from_settings(settings)
    seed_criteria(project, None)
    started = time.perf_counter()
    with open_instance(settings) as instance:
        JobRunner(settings, instance, report=lambda line: None).run_loop()
    took = time.perf_counter() - started
    shutil.copyfile(output / ".cache" / "embeddings.sqlite", embeddings)
    summary = load_summary(project)
    by_version = {version["criteria_version"]: version for version in summary.versions}
    first, last = by_version["v001"], by_version[summary.champion]
    history = project.tables.require("calibration_history")
    figures = [_kappa(version["splits"][split]) for split in ("dev", "test") for version in (first, last)]
    dev, test = f"{figures[0]} → {figures[1]}", f"{figures[2]} → {figures[3]}"
    decisions = ", ".join(f"{v['criteria_version']} {v['decision']}" for v in summary.versions[1:]) or "none proposed"
    cost = history["cost_usd"].fillna(0).sum()
    effort = f"{history['n_calls'].sum()} | {cost:.2f} | {took:.0f}"
    return f"| {name} | {strategy} | {dev} | {test} | {decisions} | {effort} | {summary.stop_reason} |"


def _kappa(figures: Mapping[str, Any] | None) -> str:
    value = (figures or {}).get("cohen_kappa")
    return "n/a" if value is None else f"{value:.3f}"


def main(folder: Path, names: list[str]) -> None:
    """Print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = [
        "data",
        "strategy",
        "kappa on dev",
        "kappa on test",
        "decisions",
        "calls",
        "cost, USD",
        "s",
        "why it ended",
    ]
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    sys.stdout.write("\n".join(lines) + "\n")
    with serve_chat(respond, prompt_tokens=1, completion_tokens=1) as base_url:
        for name in names or list(DATA):
            for strategy in STRATEGIES if name != "booookscore_sample" else ("rules",):
                try:
                    line = run(name, strategy, folder, base_url)
                except CaliberError as error:
                    line = f"| {name} | {strategy} | failed: {error} |"
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
