"""The records that people judge, and which of them a filter or a search shows."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caliber_pipeline.core.annotation_events import AnnotationEvent
from caliber_pipeline.core.attribution import ABSTAINS
from caliber_pipeline.core.criteria import parse_criteria
from caliber_pipeline.core.errors import CriteriaError, InputError
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.stores.annotation_store import AnnotationStore

Mask = npt.NDArray[np.bool_]
_COLUMNS: Final = ("record_id", "query", "output", "reference", "metadata")
_VERSIONED: Final = ("judge_scores", "patterns", "relabel_queue")
_STATUS_CODES: Final = {"open": 0, "accepted": 1, "rejected": 2, "skipped": 3}


@dataclass(frozen=True)
class Queue:
    """A named choice of records, in an order of its own.

    Attributes:
        label: What it is called on the page.
        places: Per record its place in the queue; -1 where it is not in it.
        inclusion_probability: Per record, NaN where it was not sampled.
        is_open_only: What the person has judged or skipped leaves it.
        heading: Under which it is listed.
    """

    label: str
    places: npt.NDArray[np.int64]
    inclusion_probability: npt.NDArray[np.float64] | None = None
    is_open_only: bool = False
    heading: str = "The pipeline asks for"


@dataclass(frozen=True, eq=False)
class Records:
    """One state of the assets folder.

    Attributes:
        table: The records' texts.
        row_by_id: Where each record is.
        queues: Choices of records by key: relabel, plan, abstained and pattern-….
        judge: The judge's verdicts by record id; empty where there are none.
        criteria_version: The criteria that people see; None where there are none.
        criteria_text: Their text.
    """

    table: pa.Table
    row_by_id: pd.Index
    queues: Mapping[str, Queue] = field(default_factory=dict)
    judge: pa.Table | None = None
    criteria_version: str | None = None
    criteria_text: str = ""

    def __len__(self) -> int:
        """How many records there are."""
        return int(self.table.num_rows)

    def row(self, record_id: str) -> int | None:
        """Where a record is; None where there is no such record."""
        try:
            row = self.row_by_id.get_loc(record_id)
        except KeyError:
            return None
        return int(row)  # type: ignore[arg-type]  # the ids are unique, so that each has one row

    def fingerprint(self, row: int) -> str:
        """Of the record's text."""
        return digest(*(self.table.column(name)[row].as_py() for name in ("query", "output", "reference")))

    def places(self, filter_: str) -> npt.NDArray[np.int64]:
        """Per record its place in the order in which a filter shows the records."""
        queue = self.queues.get(filter_)
        return np.arange(len(self)) if queue is None else queue.places

    def verdict(self, record_id: str) -> dict[str, Any] | None:
        """What the judge said of a record; None where it said nothing."""
        if self.judge is None:
            return None
        rows = self.judge.filter(pc.equal(self.judge.column("record_id"), record_id)).to_pylist()
        return rows[0] if rows else None

    def inclusion_probability(self, row: int) -> float | None:
        """With which the record was sampled, by the first queue that knows."""
        for queue in self.queues.values():
            if queue.inclusion_probability is not None and queue.places[row] >= 0:
                value = float(queue.inclusion_probability[row])
                return None if np.isnan(value) else value
        return None


class Assets:
    """Reads the assets folder, again whenever its files change."""

    def __init__(self, folder: Path, *, criteria_folder: Path | None = None, records: pa.Table | None = None) -> None:
        """Open a folder.

        Args:
            folder: Where the pipeline writes its tables.
            criteria_folder: Where the criteria files are; None to show none.
            records: The records to show as long as the pipeline has stored none.

        Raises:
            InputError: there are no records.
        """
        self._folder = folder
        self._criteria_folder = criteria_folder
        self._unstored = records
        self._lock = threading.Lock()
        self._stamp = self._read_stamp()
        self._records = self._load()

    def records(self) -> Records:
        """The records and queues as they are now."""
        stamp = self._read_stamp()
        with self._lock:
            if stamp != self._stamp:
                self._stamp, self._records = stamp, self._load()
            return self._records

    def _files(self) -> list[Path]:
        single = [self._folder / f"{name}.parquet" for name in ("records", "calibration_history", "label_plan")]
        return single + [f for name in _VERSIONED for f in (self._folder / name).glob("*.parquet")]

    def _read_stamp(self) -> tuple[tuple[str, int, int], ...]:
        stats = [(path, path.stat()) for path in self._files() if path.exists()]
        return tuple(sorted((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats))

    def _load(self) -> Records:
        path = self._folder / "records.parquet"
        table = self._unstored.select(_COLUMNS) if self._unstored is not None else None
        if path.exists():
            table = pq.read_table(path, columns=list(_COLUMNS))
        if table is None:
            raise InputError(f"{path}: no such file; run `caliber run` first, or name the folder with --output")
        index = pd.Index(table.column("record_id").to_pandas())
        version = self._version()
        judge = self._read(f"judge_scores/{version}")
        queues = dict(self._queues(index, judge, version))
        seen_version, text = self._criteria(version)
        return Records(table, index, queues, judge, seen_version, text)

    def _read(self, name: str) -> pa.Table | None:
        path = self._folder / f"{name}.parquet"
        return pq.read_table(path) if path.exists() else None

    def _version(self) -> str | None:
        """The champion of the latest evaluation, else the last version that has verdicts."""
        history = self._read("calibration_history")
        if history is not None and history.num_rows:
            return str(history.sort_by("evaluated_at").column("champion")[-1].as_py())
        versions = sorted(path.stem for path in (self._folder / "judge_scores").glob("*.parquet"))
        return versions[-1] if versions else None

    def _criteria(self, version: str | None) -> tuple[str | None, str]:
        if self._criteria_folder is None:
            return None, ""
        versions = [version] if version else sorted(path.stem for path in self._criteria_folder.glob("*.yaml"))[:1]
        for name in versions:
            path = self._criteria_folder / f"{name}.yaml"
            try:
                return name, parse_criteria(path.read_text(encoding="utf-8"), source=path.name).full_text
            except (CriteriaError, OSError):
                return None, ""
        return None, ""

    def _queues(self, index: pd.Index, judge: pa.Table | None, version: str | None) -> Sequence[tuple[str, Queue]]:
        relabel, patterns = self._read(f"relabel_queue/{version}"), self._read(f"patterns/{version}")
        found = []
        for key, label, table in (
            ("plan", "To label next", self._read("label_plan")),
            ("relabel", "To relabel", relabel),
            ("abstained", "Judge abstained", _abstained(judge, relabel)),
        ):
            if table is not None and table.num_rows:
                found.append((key, _queue(label, index, table, is_open_only=key == "plan")))
        for pattern in patterns.to_pylist() if patterns is not None else []:
            members = pa.table({"record_id": pa.array(pattern["record_ids"], pa.string())})
            queue = replace(_queue(pattern["name"], index, members), heading=f"Notes on {pattern['polarity']}s")
            found.append((f"pattern-{pattern['pattern_id']}", queue))
        return found


def _abstained(judge: pa.Table | None, relabel: pa.Table | None) -> pa.Table:
    """The records on which the judge gave no verdict, or one that the pipeline leaves to people."""
    ids: list[str] = []
    if judge is not None:
        ids += judge.filter(pc.not_equal(judge.column("status"), "scored")).column("record_id").to_pylist()
    if relabel is not None:
        ids += relabel.filter(pc.equal(relabel.column("reason"), ABSTAINS)).column("record_id").to_pylist()
    return pa.table({"record_id": pa.array(ids, pa.string())})


def _queue(label: str, index: pd.Index, table: pa.Table, *, is_open_only: bool = False) -> Queue:
    rows = index.get_indexer(table.column("record_id").to_pylist())
    places = np.full(len(index), -1, dtype=np.int64)
    places[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    if "inclusion_probability" not in table.column_names:
        return Queue(label, places, None, is_open_only)
    probabilities = np.full(len(index), np.nan)
    values = table.column("inclusion_probability").to_numpy()
    probabilities[rows[rows >= 0]] = values[rows >= 0]
    return Queue(label, places, probabilities, is_open_only)


@lru_cache(maxsize=16)
def _matches(records: Records, text: str) -> Mask:
    found = np.zeros(len(records), dtype=np.bool_)
    for name in ("record_id", "query", "output", "reference"):
        column = pc.match_substring(records.table.column(name), text, ignore_case=True)
        found |= pc.fill_null(column, False).to_numpy().astype(np.bool_)
    return found


class Desk:
    """What one annotator has done, kept in step with the store, and which records come next."""

    def __init__(self, store: AnnotationStore, annotator: str) -> None:
        """Start at the beginning of the person's history.

        Args:
            store: The history.
            annotator: Whose desk it is.
        """
        self._store = store
        self._annotator = annotator
        self._lock = threading.Lock()
        self._seq = 0
        self._states: dict[str, AnnotationEvent] = {}
        self._records: Records | None = None
        self._statuses = np.empty(0, dtype=np.int8)

    def state(self, record_id: str) -> AnnotationEvent | None:
        """Where the person's judgment of a record stood when the desk was last brought up to date."""
        return self._states.get(record_id)

    def counts(self, records: Records) -> dict[str, int]:
        """How many of the records the person accepted, rejected, skipped and left open."""
        counts = np.bincount(self._refresh(records), minlength=len(_STATUS_CODES)).tolist()
        return dict(zip(_STATUS_CODES, counts, strict=True))

    def matching(self, records: Records, filter_: str, text: str) -> npt.NDArray[np.int64]:
        """The rows of the records that a filter and a search show, in their order.

        Raises:
            InputError: there is no such filter.
        """
        statuses = self._refresh(records)
        if filter_ == "all":
            mask = np.ones(len(records), dtype=np.bool_)
        elif filter_ == "done":
            mask = (statuses == _STATUS_CODES["accepted"]) | (statuses == _STATUS_CODES["rejected"])
        elif filter_ in _STATUS_CODES:
            mask = statuses == _STATUS_CODES[filter_]
        elif filter_ in records.queues:
            queue = records.queues[filter_]
            mask = (queue.places >= 0) & ((statuses == _STATUS_CODES["open"]) | (not queue.is_open_only))
        else:
            raise InputError(f"no filter '{filter_[:60]}'; choose another")
        rows = np.flatnonzero(mask & _matches(records, text) if text else mask)
        return rows[np.argsort(records.places(filter_)[rows], kind="stable")]

    def _refresh(self, records: Records) -> npt.NDArray[np.int8]:
        with self._lock:
            changes, self._seq = self._store.changes(self._annotator, after=self._seq)
            for event in changes:
                known = self._states.get(event.record_id)
                if known is None or event.created_at >= known.created_at:  # type: ignore[operator]  # stored events have times
                    self._states[event.record_id] = event
            if records is not self._records:
                self._records = records
                self._statuses = np.zeros(len(records), dtype=np.int8)
                changes = list(self._states.values())
            for event in changes:
                if (row := records.row(event.record_id)) is not None:
                    state = self._states[event.record_id]
                    is_current = state.is_about(records.fingerprint(row))
                    self._statuses[row] = _STATUS_CODES[state.status if is_current else "open"]
            return self._statuses.copy()
