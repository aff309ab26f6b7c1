"""Where learnings are kept."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pandas as pd

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.learnings import LearningArtifact


class InMemorySink:
    """Keeps learnings for as long as the process lives."""

    def __init__(self) -> None:
        """Starts empty."""
        self.learnings: dict[str, LearningArtifact] = {}

    def store(self, learnings: Sequence[LearningArtifact]) -> list[str]:
        """Keep the learnings; return their new ids."""
        ids = [_new_id() for _ in learnings]
        self.learnings.update(zip(ids, learnings, strict=True))
        return ids


class JsonlSink:
    """Appends learnings to a file, one JSON object a line with the id first.

    Args:
        path: The file; it and its folder are made when first needed.
    """

    def __init__(self, path: Path | str) -> None:
        """Touches nothing yet."""
        self._path = Path(path)

    def store(self, learnings: Sequence[LearningArtifact]) -> list[str]:
        """Append the learnings in one write, so that several processes do not mix their lines; return their new ids."""
        ids = [_new_id() for _ in learnings]
        if not ids:
            return ids
        rows = ({"id": id_} | learning.to_dict() for id_, learning in zip(ids, learnings, strict=True))
        data = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.fstat(descriptor).st_size
            # whoever was killed in the middle of a line spoils that line alone, and not the next one too
            is_torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            os.write(descriptor, b"\n" + data if is_torn else data)
        finally:
            os.close(descriptor)
        return ids

    def load(self) -> dict[str, LearningArtifact]:
        """The learnings of the file by id.

        Raises:
            InputError: a line is not what `store` writes.
        """
        if not self._path.exists():
            return {}
        found = {}
        for number, line in enumerate(self._path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
            try:
                row = json.loads(line)
                id_ = row.pop("id")
                found[id_] = LearningArtifact.from_dict(row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{self._path}, line {number} is no learning ({error}); remove the line") from error
        return found


class ParquetSink:
    """Writes learnings to a folder, one Parquet file per call; read the folder as one data set.

    Args:
        folder: Made when first needed.
    """

    def __init__(self, folder: Path | str) -> None:
        """Touches nothing yet."""
        self._folder = Path(folder)

    def store(self, learnings: Sequence[LearningArtifact]) -> list[str]:
        """Write the learnings under a name of their own, then rename; return their new ids."""
        ids = [_new_id() for _ in learnings]
        if not ids:
            return ids
        self._folder.mkdir(parents=True, exist_ok=True)
        name = _new_id()
        unfinished = self._folder / f".{name}.tmp"
        learnings_table(ids, learnings).to_parquet(unfinished, index=False)
        unfinished.rename(self._folder / f"{name}.parquet")
        return ids


def learnings_table(ids: Sequence[str], learnings: Sequence[LearningArtifact]) -> pd.DataFrame:
    """One row per learning; its provenance as JSON."""
    rows = []
    for id_, learning in zip(ids, learnings, strict=True):
        row = learning.to_dict()
        provenance = json.dumps(row.pop("provenance"), ensure_ascii=False, sort_keys=True, default=str)
        rows.append({"learning_id": id_} | row | {"provenance": provenance})
    return pd.DataFrame(rows)


def _new_id() -> str:
    return f"learning-{uuid4().hex}"
