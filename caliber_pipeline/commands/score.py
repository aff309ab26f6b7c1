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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from caliber_pipeline.commands.arguments import add_columns, add_command, add_reporting
from caliber_pipeline.settings import Settings, parse_columns

if TYPE_CHECKING:
    import pandas as pd
    from upath import UPath

    from caliber_pipeline.api.calibrated_judge import CalibratedJudge
    from caliber_pipeline.stores.shards import StagedTable
    from caliber_pipeline.stores.verdict_cache import VerdictCache

_BLOCK: Final = 16_384  # records judged at a time: memory does not grow with their number
_MAX_TOLD: Final = 20
_COUNTS: Final = ("n_records", "n_rejected_records", "n_accepted", "n_rejected", "n_failed", "n_for_people")
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
    """
    from caliber_pipeline.api.calibrated_judge import CalibratedJudge
    from caliber_pipeline.core.errors import InputError

    if arguments.json and arguments.to is None:
        raise InputError("--json needs --to: the verdicts and the summary cannot both go to stdout")
    if arguments.to is not None and not arguments.to.endswith((".csv", ".parquet")):
        raise InputError(f"--to {arguments.to}: verdicts are written as .csv or .parquet; name one of these")
    if arguments.to is not None and Path(arguments.to).is_dir():
        raise InputError(f"--to {arguments.to}: is a folder; name a file in it")
    if arguments.to is not None and Path(arguments.to).resolve() == arguments.records.resolve():
        raise InputError(f"--to {arguments.to}: is the file of the records, which would be lost; name another")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        judge = CalibratedJudge.load(arguments.judge)
    for warning in caught:
        sys.stderr.write(f"caliber: warning: {warning.message}\n")
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    if arguments.to is None:
        for number, verdicts in enumerate(_score(judge, arguments, None, counts)):
            verdicts.to_csv(sys.stdout, index=False, header=number == 0)
    else:
        _score_to_file(judge, arguments, counts)
    if arguments.json:
        sys.stdout.write(json.dumps(counts) + "\n")
    else:
        sys.stderr.write(", ".join(f"{name[2:].replace('_', ' ')}: {n}" for name, n in counts.items()) + "\n")


def _score_to_file(judge: "CalibratedJudge", arguments: argparse.Namespace, counts: "Counter[str]") -> None:
    """Write the verdicts whole or not at all.

    Raises:
        InputError: the file cannot be written; of an object store that is found before anything is judged.
    """
    from upath import UPath

    from caliber_pipeline.core.errors import InputError, describe_read_error
    from caliber_pipeline.stores.shards import is_local, require_writable, write_whole

    target = UPath(arguments.to)
    if not is_local(target):
        require_writable(target.parent)
    try:
        with _kept_beside(target) as cache:
            blocks = _score(judge, arguments, cache, counts)
            write_whole(target, partial(_write, blocks, as_parquet=target.suffix == ".parquet"))
    except OSError as error:
        raise InputError(f"{error.filename or target}: cannot be written ({describe_read_error(error)})") from error


@contextmanager
def _kept_beside(target: "UPath") -> "Iterator[VerdictCache]":
    """Verdicts that are kept beside the file until it is written, for another try to go on from."""
    from caliber_pipeline.stores.shards import staging_folder
    from caliber_pipeline.stores.verdict_cache import VerdictCache

    kept = staging_folder(target.parent) / f".{target.name}.verdicts.sqlite"
    is_needed = False
    try:
        with VerdictCache(kept) as cache:
            try:
                yield cache
            except BaseException:
                is_needed = cache.stats().n_verdicts > 0
                raise
    finally:
        for path in () if is_needed else kept.parent.glob(f"{glob.escape(kept.name)}*"):
            path.unlink()


def _score(
    judge: "CalibratedJudge", arguments: argparse.Namespace, cache: "VerdictCache | None", counts: "Counter[str]"
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
        counts["n_rejected_records"] = ingested.rejected.n_rows
        _tell_rejected(ingested.rejected)
        ingested.place(tables)
        columns = ["record_id", "query", "output", "reference", "llm_score", "llm_reasoning"]
        for batch in tables.scan("records", columns=columns):
            for start in range(0, batch.num_rows, _BLOCK):
                verdicts = judge.score(
                    frame_from_arrow(pa.Table.from_batches([batch.slice(start, _BLOCK)])), cache=cache
                )
                counts["n_records"] += len(verdicts)
                counts["n_accepted"] += int((verdicts["llm_score"] == 1).sum())
                counts["n_rejected"] += int((verdicts["llm_score"] == 0).sum())
                counts["n_failed"] += int((verdicts["status"] != "scored").sum())
                counts["n_for_people"] += int(verdicts["is_abstained"].sum())
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
