"""`caliber score`: has an exported judge score a file of records."""

import argparse
import glob
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from caliber_pipeline.commands.arguments import add_columns, add_command, add_reporting
from caliber_pipeline.settings import Settings, parse_columns

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.calibrated_judge import CalibratedJudge
    from caliber_pipeline.stores.shards import StagedTable
    from caliber_pipeline.stores.verdict_cache import VerdictCache

_BLOCK: Final = 16_384  # records judged at a time: memory does not grow with their number
_MAX_TOLD: Final = 20
_COUNTS: Final = ("n_records", "n_rejected_records", "n_accepted", "n_rejected", "n_failed", "n_for_people")
_NOT_KEPT: Final = (
    "what went to stdout is not kept: name a file with --to, so that a run with a higher cap asks about the rest alone"
)
_EXAMPLES = """\
# what `caliber export` wrote, on new records
caliber score --judge judge.json --records new.csv --to scored.parquet
# as CSV on stdout
caliber score --judge judge.json --records new.csv | head
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "score",
        execute,
        summary="score a file of records with an exported judge",
        description="Give a verdict, or the reason for having none, on every record of a file.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("--judge", type=Path, metavar="FILE", required=True, help="what `caliber export` wrote")
    add("--records", type=Path, metavar="FILE", required=True, help="CSV, JSONL or Parquet with query and output")
    add("--to", metavar="FILE", help="a CSV or Parquet file for the verdicts, s3:// too (default: CSV on stdout)")
    add_columns(parser)
    add("--json", action="store_true", help="end with one JSON object on stdout; needs --to")
    add_reporting(parser, has_json=False)


def execute(arguments: argparse.Namespace) -> None:
    """Score the file, a block of records at a time.

    Raises:
        InputError: a file cannot be used.
        JudgeError: the judge cannot work.
        SpendingCapError: the spending cap left records unasked; their rows say so.
    """
    from caliber_pipeline.api.calibrated_judge import CalibratedJudge
    from caliber_pipeline.core.verdicts import refuse_skipped

    _refuse_target(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        judge = CalibratedJudge.load(arguments.judge)
    for warning in caught:
        sys.stderr.write(f"caliber: warning: {warning.message}\n")
    tally = _Tally()
    kept: Path | None = None
    if arguments.to is None:
        for number, verdicts in enumerate(_score(judge, arguments, None, tally)):
            verdicts.to_csv(sys.stdout, index=False, header=number == 0)
    else:
        kept = _score_to_file(judge, arguments, tally)
    if arguments.json:
        sys.stdout.write(json.dumps(tally.counts) + "\n")
    else:
        sys.stderr.write(", ".join(f"{name[2:].replace('_', ' ')}: {n}" for name, n in tally.counts.items()) + "\n")
    where = f"in {arguments.records.name}"
    if arguments.to is None:
        refuse_skipped(tally.n_by_status, where, advice=_NOT_KEPT)
    refuse_skipped(tally.n_by_status, where)
    if kept is not None:
        _tell_kept(tally.n_by_status, kept)


def _refuse_target(arguments: argparse.Namespace) -> None:
    from caliber_pipeline.core.errors import InputError

    if arguments.json and arguments.to is None:
        raise InputError("--json needs --to: the verdicts and the summary cannot both go to stdout")
    if arguments.to is not None and not arguments.to.endswith((".csv", ".parquet")):
        raise InputError(f"--to {arguments.to}: verdicts are written as .csv or .parquet; name one of these")
    if arguments.to is not None and Path(arguments.to).is_dir():
        raise InputError(f"--to {arguments.to}: is a folder; name a file in it")
    if arguments.to is not None and Path(arguments.to).resolve() == arguments.records.resolve():
        raise InputError(f"--to {arguments.to}: is the file of the records, which would be lost; name another")


@dataclass
class _Tally:
    """What there is to tell at the end.

    Attributes:
        counts: As the summary gives them.
        n_by_status: Records by the status of their verdict.
    """

    counts: "Counter[str]" = field(default_factory=lambda: Counter(dict.fromkeys(_COUNTS, 0)))
    n_by_status: "Counter[str]" = field(default_factory=Counter)

    def add(self, verdicts: "pd.DataFrame") -> None:
        """Count a block."""
        self.counts["n_records"] += len(verdicts)
        self.counts["n_accepted"] += int((verdicts["llm_score"] == 1).sum())
        self.counts["n_rejected"] += int((verdicts["llm_score"] == 0).sum())
        self.counts["n_failed"] += int((verdicts["status"] != "scored").sum())
        self.counts["n_for_people"] += int(verdicts["is_abstained"].sum())
        self.n_by_status.update(verdicts["status"].tolist())

    @property
    def is_whole(self) -> bool:
        """Whether every record has a verdict."""
        return self.n_by_status["scored"] == self.n_by_status.total()


def _score_to_file(judge: "CalibratedJudge", arguments: argparse.Namespace, tally: _Tally) -> Path | None:
    """Write a row for every record or no file; where verdicts are still kept for another run, if they are.

    Raises:
        InputError: the file cannot be written; of an object store that is found before anything is judged.
    """
    from upath import UPath

    from caliber_pipeline.core.errors import InputError, describe_read_error
    from caliber_pipeline.stores.shards import is_local, require_writable, staging_folder, write_whole

    target = UPath(arguments.to)
    if not is_local(target):
        require_writable(target.parent)
    try:
        kept = staging_folder(target.parent) / f".{target.name}.verdicts.sqlite"
        with _open_kept(kept, tally) as cache:
            blocks = _score(judge, arguments, cache, tally)
            write_whole(target, partial(_write, blocks, as_parquet=target.suffix == ".parquet"))
    except OSError as error:
        raise InputError(f"{error.filename or target}: cannot be written ({describe_read_error(error)})") from error
    return kept if kept.exists() else None


@contextmanager
def _open_kept(kept: Path, tally: _Tally) -> "Iterator[VerdictCache]":
    """Verdicts that are kept beside the file until each record has one, for another run to go on from."""
    from caliber_pipeline.stores.verdict_cache import VerdictCache

    is_needed = False
    try:
        with VerdictCache(kept) as cache:
            is_whole = False
            try:
                yield cache
                is_whole = tally.is_whole
            finally:
                is_needed = not is_whole and cache.stats().n_verdicts > 0
    finally:
        for path in () if is_needed else kept.parent.glob(f"{glob.escape(kept.name)}*"):
            path.unlink()


def _tell_kept(n_by_status: "Counter[str]", kept: Path) -> None:
    """Say what another run would ask, and what it would not: else nobody knows that it is not paid for twice."""
    n_failed = n_by_status["failed"]
    n_settled = n_by_status.total() - n_by_status["scored"] - n_failed
    if n_failed:
        sys.stderr.write(
            f"{_count(n_failed, 'record')} failed; run again to have these asked about, and no others: "
            f"the verdicts are kept in {kept}\n"
        )
    if n_settled:
        sys.stderr.write(
            f"{_count(n_settled, 'answer')} without a verdict, which another run would repeat; remove {kept} to have "
            "all records asked about again\n"
        )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _score(
    judge: "CalibratedJudge", arguments: argparse.Namespace, cache: "VerdictCache | None", tally: _Tally
) -> "Iterator[pd.DataFrame]":
    """The verdicts in the order of the file; counts what there is to tell."""
    import pyarrow as pa

    from caliber_pipeline.core.conforming import frame_from_arrow
    from caliber_pipeline.stores.ingest_records import ingest_records
    from caliber_pipeline.stores.tables import TableStore

    with tempfile.TemporaryDirectory(prefix="caliber-") as folder:
        tables = TableStore(folder)
        settings = Settings(records=arguments.records, columns=parse_columns(arguments.column))
        ingested = ingest_records(settings, tables)
        tally.counts["n_rejected_records"] = ingested.rejected.n_rows
        _tell_rejected(ingested.rejected)
        ingested.place(tables)
        columns = ["record_id", "query", "output", "reference", "llm_score", "llm_reasoning"]
        for batch in tables.scan("records", columns=columns):
            for start in range(0, batch.num_rows, _BLOCK):
                verdicts = judge.score(
                    frame_from_arrow(pa.Table.from_batches([batch.slice(start, _BLOCK)])), cache=cache
                )
                tally.add(verdicts)
                yield verdicts


def _tell_rejected(rejected: "StagedTable") -> None:
    """Say why rows of the file are no records: nothing that is written tells of them."""
    for line, reason in rejected.head(_MAX_TOLD, ["line", "reason"]).itertuples(index=False):
        sys.stderr.write(f"line {line} rejected: {reason}\n")
    if rejected.n_rows > _MAX_TOLD:
        sys.stderr.write(f"and {rejected.n_rows - _MAX_TOLD:,} more; `caliber ingest` lists all with their texts\n")


def _write(blocks: "Iterator[pd.DataFrame]", path: Path, *, as_parquet: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from caliber_pipeline.core.schemas import JUDGE_SCORES

    if not as_parquet:
        for number, verdicts in enumerate(blocks):
            verdicts.to_csv(path, index=False, header=number == 0, mode="a")
        return
    fields = {field.name: field.remove_metadata() for field in JUDGE_SCORES}
    writer: pq.ParquetWriter | None = None
    try:
        for verdicts in blocks:
            schema = pa.schema([fields.get(name, pa.field(name, pa.bool_())) for name in verdicts.columns])
            writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.Table.from_pandas(verdicts, schema=schema, preserve_index=False))
    finally:
        if writer is not None:
            writer.close()
