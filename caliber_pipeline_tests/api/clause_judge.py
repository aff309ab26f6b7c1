"""A judge that accepts all but what a clause of its criteria speaks of, and records with that flaw."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline_tests.api.word_encoder import WordEncoder
from caliber_pipeline_tests.judges.scripted import ScriptedJudge, batch, verdict

FLAWS = ("date", "price")
NOTES = {"date": "date does not match our calendar at all", "price": "invents a price nobody ever quoted"}


class ClauseJudge(ScriptedJudge):
    """Rejects an output that names a flaw if one of its criteria's clauses names it too."""

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        told = [flaw for flaw in FLAWS if any(flaw in clause.text for clause in task.criteria.clauses)]
        for record_id, output in zip(task.records["record_id"], task.records["output"], strict=True):
            self.asked.append(record_id)
            score = int(not any(flaw in output for flaw in told))
            yield batch([verdict(record_id, llm_score=score)])


class BlindJudge(ScriptedJudge):
    """Accepts everything, whatever it is told."""


def make_flawed_rows(n: int = 200) -> list[dict[str, Any]]:
    """Every other record is good; of the rest half have a wrong date and half a wrong price, and notes say so."""
    rows = []
    for i in range(n):
        flaw = None if i % 2 else FLAWS[i // 2 % 2]
        output = f"answer number {i}" + (f" with a wrong {flaw}" if flaw else "")
        row = {"id": f"r{i:03d}", "query": f"question number {i}", "output": output}
        note = NOTES[flaw] + " really" * (i % 3) if flaw else None
        rows.append({**row, "judgment": int(flaw is None), "notes": note, "score": 1})
    return rows


def make_session(rows: list[dict[str, Any]] | None = None, judge: ScriptedJudge | None = None) -> CalibrationSession:
    """A session whose judge and encoder need no model."""
    session = CalibrationSession("s", judge=judge or ClauseJudge(), encoder=WordEncoder())
    session.upload_records(rows if rows is not None else make_flawed_rows(40))
    return session


def unlabelled(n: int = 3) -> list[dict[str, Any]]:
    """Records that nobody judged yet."""
    return [{"id": f"r{i}", "query": f"q{i}", "output": f"a{i}", "score": 1} for i in range(n)]
