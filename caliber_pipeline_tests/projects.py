"""A small project with planted rules: what people reject is known, and so is what the judge overlooks."""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.verdicts import VERDICTS
from caliber_pipeline.encoders import CachedEncoder
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import seed_criteria
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.embedding_cache import EmbeddingCache

FLAWS = {"zebra": "the zebra has no place here", "quasar": "nobody asked about a quasar"}


class WordEncoder:
    """Sums a random direction per word: texts that share words are near, and no model is loaded."""

    name = "words-32"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of 32 dimensions."""
        return np.array([self._encode(text) for text in texts], dtype=np.float32).reshape(len(texts), 32)

    @staticmethod
    def _encode(text: str) -> NDArray[np.float64]:
        words = text.lower().split() or [""]
        seeds = (int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") for word in words)
        total = sum((np.random.default_rng(seed).normal(size=32) for seed in seeds), start=np.zeros(32))
        unit: NDArray[np.float64] = total / np.linalg.norm(total)
        return unit


class QuotingJudge:
    """Rejects an output that has one of the flaws which its clauses quote, accepts every other."""

    provider = "scripted"
    model = "quoting"
    is_cacheable = True
    max_examples = 4

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        """Nothing but the criteria counts."""
        return {"provider": self.provider}

    def knows(self, criteria: Criteria) -> list[str]:
        """The flaws that the criteria quote."""
        quotes = " ".join(quote for clause in criteria.clauses for quote in clause.evidence.quotes)
        return [flaw for flaw in FLAWS if flaw in quotes]

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        """Yield all verdicts at once."""
        known = self.knows(task.criteria)
        scores = [int(not any(flaw in output for flaw in known)) for output in task.records["output"]]
        verdicts = pd.DataFrame(index=range(len(scores)), columns=VERDICTS.names, dtype=object)
        verdicts["record_id"] = task.records["record_id"].to_numpy(dtype=object)
        verdicts["status"] = "scored"
        verdicts["llm_score"] = scores
        verdicts["llm_reasoning"] = f"looked for {known}"
        verdicts["provider"], verdicts["model"], verdicts["n_attempts"] = self.provider, self.model, 1
        yield verdicts


class WordProject(Project):
    """A project with the settings' own judge, and an encoder that loads no model."""

    def build_encoder(self, on_progress: Callable[[int, int], None] | None = None) -> CachedEncoder:
        """The word encoder."""
        return CachedEncoder(WordEncoder(), EmbeddingCache(self.cache_folder / "embeddings.sqlite"))


class PlantedProject(WordProject):
    """A project with the quoting judge and the word encoder."""

    def build_judge(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        criteria: Criteria | None = None,
        version: str | None = None,
    ) -> Judge:
        """The quoting judge."""
        return QuotingJudge()


def write_planted_input(folder: Path, n: int = 200) -> None:
    """Records of which a quarter has one flaw, a quarter the other, and verdicts that reject these."""
    with (folder / "records.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "answer", "topic"])
        for i in range(n):
            flaw = _flaw(i)
            writer.writerow([f"r{i}", f"question number {i}", f"answer {i} {flaw or 'plain'}", f"t{i % 3}"])
    with (folder / "annotations.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["record_id", "annotator", "score", "notes"])
        for i in range(n):
            flaw = _flaw(i)
            writer.writerow([f"r{i}", "ann", 0 if flaw else 1, FLAWS[flaw] if flaw else ""])


def _flaw(i: int) -> str | None:
    return {0: "zebra", 1: "quasar"}.get(i % 4)


def planted_settings(folder: Path) -> Settings:
    """The settings of a planted project in a folder."""
    return Settings(
        output=folder / "out",
        records=folder / "records.csv",
        annotations=folder / "annotations.csv",
        kappa_target=0.9,
    )


def make_planted(folder: Path) -> PlantedProject:
    """A planted project in a folder; its input and first criteria are written where they are not there yet."""
    settings = planted_settings(folder)
    if not settings.records_file.exists():
        write_planted_input(folder)
    project = PlantedProject.from_settings(settings)
    seed_criteria(project, Criteria(criteria="Score 1 if the answer is fine, otherwise 0"))
    return project


def open_project(folder: Path, **values: Any) -> WordProject:  # noqa: ANN401 - the settings' own
    """A project of the planted input in a folder, judged over an endpoint, with its first criteria."""
    files = {name: folder / f"{name}.csv" for name in ("records", "annotations")}
    project = WordProject.from_settings(Settings(output=folder / "out", judge="openai", **files, **values))
    seed_criteria(project, Criteria(criteria="Score 1 if the answer is fine, otherwise 0"))
    return project
