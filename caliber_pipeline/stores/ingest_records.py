"""Records from a file of any size, in memory that does not grow with it: batches go from the file to shards.

Ids that repeat are found at the end, when all are known; where there are any, the file is read a second time.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from caliber_pipeline.core.fingerprints import RowsFingerprint, hash_strings
from caliber_pipeline.core.records import FINGERPRINTED, FindRepeats, ParsedBatch, RecordParser
from caliber_pipeline.core.schemas import RECORDS, REJECTED_ROWS
from caliber_pipeline.core.splits import SPLITS, has_few
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.arrow_memory import kept_memory
from caliber_pipeline.stores.background import Behind, read_ahead, step_back
from caliber_pipeline.stores.ingest import input_fingerprint, no_records, rejected_of, telling_of_a_swap
from caliber_pipeline.stores.input_files import InputFile, with_all_names
from caliber_pipeline.stores.key_spill import KeySpill
from caliber_pipeline.stores.shards import ShardWriter, StagedTable, staging_folder
from caliber_pipeline.stores.tables import TableStore

_N_READ_AHEAD = 3
_N_BEHIND = 6  # batches; a row group is about four, and writing one must not keep parsing waiting
_CHECK_KEY = "record id checks"
_TEXTS = ("query", "output", "reference", "llm_reasoning")  # what judging all records holds of each
OnProgress = Callable[[int], None]


@dataclass(frozen=True)
class Ingested:
    """What became of the records file; both tables are staged, not yet in their places.

    Attributes:
        records: One row per record.
        rejected: The rows that are none, in the order of the file.
        n_groups: Distinct groups of the records.
        n_by_split: Records in train, dev and test.
    """

    records: StagedTable
    rejected: StagedTable
    n_groups: int
    n_by_split: Mapping[str, int]

    def place(self, tables: TableStore) -> None:
        """Put both tables where they are read; the records last, as they tell that all is ingested."""
        self.rejected.place(tables.path("rejected_records"))
        self.records.place(tables.path("records"))


def ingest_records(settings: Settings, tables: TableStore, on_progress: OnProgress | None = None) -> Ingested:
    """Read the records file of a project into staged tables.

    Args:
        settings: The project.
        tables: Where the tables will be placed.
        on_progress: Called with the number of rows read so far.

    Raises:
        InputError: the file as a whole cannot be used, or no row of it.
    """
    path = settings.records_file
    origin = {
        "records_input_fingerprint": input_fingerprint(settings, path),
        "records_file": str(path),
        "group_by": settings.group_by or "",
    }
    with telling_of_a_swap(settings), kept_memory():
        return with_all_names(InputFile(path), partial(_ingest, settings, tables, origin, on_progress or _ignore))


def _ingest(
    settings: Settings, tables: TableStore, origin: dict[str, str], report: OnProgress, file: InputFile
) -> Ingested:
    parser = RecordParser(file.names, source=file.path.name, mapping=settings.columns, group_by=settings.group_by)
    few = settings.group_by is None and _has_few_queries(file, parser)
    folder = staging_folder(tables.folder)
    with KeySpill(folder) as spill:
        run = _Run(tables, spill, origin)
        ingested = run.read(file, parser, _no_repeats, has_few_queries=few, report=report)
        repeats = spill.find_repeats()
    if len(repeats):
        ingested.records.discard()
        ingested.rejected.discard()
        with KeySpill(folder) as spill:
            run = _Run(tables, spill, origin)
            ingested = run.read(file, parser, _KnownRepeats(repeats), has_few_queries=few, report=report)
    return ingested


def _has_few_queries(file: InputFile, parser: RecordParser) -> bool:
    """Whether the whole file has too few distinct queries to group by; the first batch nearly always tells."""
    distinct = None
    for rows in file.batches():
        distinct = parser.distinct_queries(rows.table, distinct)
        if not has_few(distinct):
            return False
    return True


def _no_repeats(ids: pa.Array, lines: pa.Array, is_sound: pa.Array) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """As far as the first reading knows."""
    return np.zeros(len(ids), dtype=np.bool_), np.zeros(len(ids), dtype=np.int64)


class _KnownRepeats:
    """Looks repeats up by their lines."""

    def __init__(self, repeats: NDArray[np.void]) -> None:
        self._repeats = repeats

    def __call__(
        self, ids: pa.Array, lines: pa.Array, is_sound: pa.Array
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        known = self._repeats["line"]
        at = np.minimum(np.searchsorted(known, lines.to_numpy()), len(known) - 1)
        return known[at] == lines.to_numpy(), self._repeats["first_line"][at]


class _Run:
    """One reading of the file."""

    def __init__(self, tables: TableStore, spill: KeySpill, origin: dict[str, str]) -> None:
        self._spill = spill
        self._origin = origin
        self._fingerprint = RowsFingerprint(FINGERPRINTED)
        self._n_by_split: Counter[str] = Counter()
        self._n_text_bytes = 0
        self._first_reason: str | None = None
        self._records = ShardWriter(tables.path("records"), RECORDS)
        self._rejected = ShardWriter(tables.path("rejected_records"), REJECTED_ROWS)

    def read(
        self,
        file: InputFile,
        parser: RecordParser,
        find_repeats: FindRepeats,
        *,
        has_few_queries: bool,
        report: OnProgress,
    ) -> Ingested:
        try:
            self._stream(file, parser, find_repeats, has_few_queries=has_few_queries, report=report)
            return self._finish(file.path)
        except BaseException:
            self._records.discard()
            self._rejected.discard()
            raise

    def _stream(
        self,
        file: InputFile,
        parser: RecordParser,
        find_repeats: FindRepeats,
        *,
        has_few_queries: bool,
        report: OnProgress,
    ) -> None:
        n_rows = 0
        with (
            Behind(self._write, _N_BEHIND) as write,  # the slowest
            Behind(self._take_keys, _N_BEHIND, initializer=step_back) as take_keys,
        ):
            for rows in read_ahead(file.batches(), _N_READ_AHEAD):
                parsed = parser.parse(rows.table, rows.lines, find_repeats, has_few_queries=has_few_queries)
                rejected = rejected_of(rows, parsed.is_rejected, parsed.reasons)
                if rejected.num_rows:
                    self._first_reason = self._first_reason or rejected.column("reason")[0].as_py()
                    self._rejected.add(rejected)
                write(parsed)
                take_keys(parsed)
                n_rows += rows.n_rows
                report(n_rows)

    def _write(self, parsed: ParsedBatch) -> None:
        """Write a batch; in a thread of its own, as a row group of many batches is written at once."""
        self._records.add(parsed.table)

    def _take_keys(self, parsed: ParsedBatch) -> None:
        """Take from a batch what is told of all records in the end; in a thread of its own too."""
        ids = parsed.table.column("record_id")
        id_hashes, id_checks = hash_strings(ids), hash_strings(ids, _CHECK_KEY)
        self._fingerprint.add(parsed.table, {"record_id": id_hashes, "group": parsed.group_hashes})
        self._spill.add_ids(id_hashes, id_checks, parsed.table.column("line").to_numpy())
        self._spill.add_groups(parsed.group_hashes)
        self._n_text_bytes += sum(pc.sum(pc.binary_length(parsed.table.column(name))).as_py() or 0 for name in _TEXTS)
        counts = pc.value_counts(parsed.table.column("split"))
        self._n_by_split.update({entry["values"]: entry["counts"] for entry in counts.to_pylist()})

    def _finish(self, path: Path) -> Ingested:
        if not self._records.n_rows:
            raise no_records(path, self._rejected.n_rows, self._first_reason or "")
        attrs = {"records_fingerprint": self._fingerprint.hexdigest(), **self._origin}
        return Ingested(
            records=self._records.finish({**attrs, "n_text_bytes": str(self._n_text_bytes)}),
            rejected=self._rejected.finish(attrs),
            n_groups=self._spill.count_groups(),
            n_by_split={split: self._n_by_split[split] for split in SPLITS},
        )


def _ignore(n_rows: int) -> None:
    """Progress that nobody asked for."""
