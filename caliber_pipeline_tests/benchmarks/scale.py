"""How seconds and memory grow with the number of records: each stage beside the least that its work can take.

    python -m caliber_pipeline_tests.benchmarks.scale                      10^4 to 10^7 records, 12 GB on disk
    python -m caliber_pipeline_tests.benchmarks.scale --rows 1e4 1e5 1e6   some minutes

Every figure is of processes of their own, so that their peak memory is their own too, and the median of three that took
turns with their floors; of the loopback server it is of one. The floors: for ingest, a bare copy of the same file to
Parquet by polars, DuckDB and pyarrow, the fastest of those that are installed; for metrics, scikit-learn's five
functions on the same verdicts, without intervals; for judging in shards with recorded verdicts, a read of the stored
records and a write of as many verdict rows by pyarrow; for judging through a loopback server its latency over the calls
that are under way at once. JSONL and Parquet are read up to 10^6 records, the loopback server is asked up to 10^5.
"""

import argparse
import importlib.util
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from upath import UPath

COPIES: Final = {
    "csv": ("polars", "duckdb", "pyarrow"),
    "jsonl": ("polars", "duckdb", "pyarrow"),
    "parquet": ("polars", "pyarrow"),
}
MAX_OTHER_FORMATS: Final = 10**6
MAX_ENDPOINT: Final = 10**5
STAGES: Final = ("ingest", "judge", "metrics", "endpoint")
_BATCH: Final = 100_000
_LATENCY_S: Final = 0.05
_CONCURRENCY: Final = 128
_N_ROUNDS: Final = 3


def write_csv(path: Path, n: int) -> None:
    """Write n different records of about 550 bytes, one in 200 of them with a label and one in 1,000 without output."""
    random = np.random.default_rng(1)
    words = np.array([f"word{number}" for number in range(5000)])
    queries, outputs, notes = (_texts(random, words, n_words) for n_words in (14, 38, 7))
    with path.open("wb") as file:
        for start in range(0, n, _BATCH):
            size = min(_BATCH, n - start)
            number = pa.array(np.arange(start, start + size)).cast(pa.string())
            drawn = random.integers(0, 1000, size)
            output = pc.binary_join_element_wise(_draw(random, outputs, size), number, " ")
            table = pa.table(
                {
                    "id": pc.binary_join_element_wise("rec-", number, ""),
                    "query": pc.binary_join_element_wise(_draw(random, queries, size), number, " "),
                    "output": pc.if_else(pa.array(drawn == 999), "", output),
                    "human_score": np.where(drawn < 3, "1", np.where(drawn < 5, "0", "")),
                    "score": np.array(["0", "1"])[random.integers(0, 2, size)],
                    "model": np.array(["m-small", "m-large"])[random.integers(0, 2, size)],
                    "note": _draw(random, notes, size),
                }
            )
            options = pyarrow.csv.WriteOptions(include_header=start == 0, quoting_style="needed")
            pyarrow.csv.write_csv(table, file, options)


def _texts(random: np.random.Generator, words: Any, n_words: int) -> pa.Array:  # noqa: ANN401 an array of texts
    return pa.array([" ".join(words[random.integers(0, len(words), n_words)]) for _ in range(2000)])


def _draw(random: np.random.Generator, texts: pa.Array, size: int) -> pa.Array:
    return texts.take(pa.array(random.integers(0, len(texts), size)))


def write_other_formats(csv: Path) -> None:
    """Write the same records as JSON lines and as Parquet, values as a program would write them."""
    with (
        csv.with_suffix(".jsonl").open("w", encoding="utf-8") as lines,
        pyarrow.csv.open_csv(csv) as reader,
        pq.ParquetWriter(csv.with_suffix(".parquet"), reader.schema, compression="zstd") as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
            batch.to_pandas().to_json(lines, orient="records", lines=True, force_ascii=False)


def copy_polars(source: Path, target: Path, _: int) -> Callable[[], object]:
    import polars as pl

    scan = {".csv": pl.scan_csv, ".jsonl": pl.scan_ndjson, ".parquet": pl.scan_parquet}[source.suffix]
    return lambda: scan(source).sink_parquet(target)


def copy_duckdb(source: Path, target: Path, _: int) -> Callable[[], object]:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET memory_limit = '1GB'; SET preserve_insertion_order = false")
    read = {".csv": "read_csv", ".jsonl": "read_json"}[source.suffix]
    query = f"COPY (FROM {read}('{source}')) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    return lambda: connection.execute(query)


def copy_pyarrow(source: Path, target: Path, _: int) -> Callable[[], object]:
    def copy() -> None:
        with _open_reader(source) as reader, pq.ParquetWriter(target, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)

    return copy


def _open_reader(source: Path) -> Any:  # noqa: ANN401 a reader of pyarrow's
    if source.suffix == ".csv":
        return pyarrow.csv.open_csv(source, pyarrow.csv.ReadOptions(block_size=8 << 20))
    if source.suffix == ".jsonl":
        return pyarrow.json.open_json(source, pyarrow.json.ReadOptions(block_size=8 << 20))
    file = pq.ParquetFile(source)
    return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(16_384))


def ingest(source: Path, target: Path, _: int) -> Callable[[], object]:
    from caliber_pipeline.settings import Settings
    from caliber_pipeline.stores.ingest_records import ingest_records
    from caliber_pipeline.stores.tables import TableStore

    settings, tables = Settings(records=source, output=target), TableStore(str(target))
    return lambda: ingest_records(settings, tables).place(tables)


def judge_recorded(source: Path, target: Path, _: int) -> Callable[[], object]:
    from caliber_pipeline.core.criteria import Criteria
    from caliber_pipeline.judges.recorded import RecordedJudge
    from caliber_pipeline.judges.sharded import JUDGED_COLUMNS, ShardedTask, judge_in_shards
    from caliber_pipeline.stores.tables import TableStore
    from caliber_pipeline_tests.judges.scripted import make_records

    tables = TableStore(str(source))
    attrs = tables.load_attrs("records") or {}
    criteria, fingerprint = Criteria(criteria="Be right."), attrs["records_fingerprint"]
    task = ShardedTask(criteria, make_records({}), UPath(target), tables.count("records"), fingerprint)
    return lambda: judge_in_shards(RecordedJudge(), tables.scan("records", columns=JUDGED_COLUMNS), task)


def copy_verdicts(source: Path, target: Path, _: int) -> Callable[[], object]:
    import pyarrow.dataset as ds

    def copy() -> None:
        names = ["record_id", "query", "output", "reference", "llm_score", "llm_reasoning"]
        batches = ds.dataset(source / "records.parquet").to_batches(columns=names)
        with pq.ParquetWriter(target, pa.schema([("record_id", pa.string()), ("llm_score", pa.int8())])) as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).select(writer.schema.names).cast(writer.schema))

    return copy


def judge_endpoint(_: Path, __: Path, n: int) -> Callable[[], object]:
    from caliber_pipeline.judges.openai_judge import OpenAIJudge
    from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
    from caliber_pipeline.judges.runner import run_judge
    from caliber_pipeline.stores.verdict_cache import VerdictCache
    from caliber_pipeline_tests.benchmarks.judging import make_task
    from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback

    task = make_task(n)

    def judge() -> None:
        config = LoopbackConfig(latency_s=_LATENCY_S, has_logprobs=False)
        with (
            loopback(config) as server,
            tempfile.TemporaryDirectory() as folder,
            VerdictCache(Path(folder) / "verdicts.sqlite") as cache,
        ):
            settings = OpenAIJudgeSettings(model="m", base_url=server.base_url, max_concurrency=_CONCURRENCY)
            run_judge(OpenAIJudge(settings), task, cache=cache)

    return judge


def measure_metrics(_: Path, __: Path, n: int) -> Callable[[], object]:
    from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics

    scored = _scored(n)
    return lambda: compute_alignment_metrics(scored)


def measure_sklearn(_: Path, __: Path, n: int) -> Callable[[], object]:
    from sklearn import metrics

    scored = _scored(n)
    human, judge = (scored[name].to_numpy(dtype=np.int8) for name in ("human_score", "llm_score"))
    names = ("accuracy_score", "precision_score", "recall_score", "f1_score", "cohen_kappa_score")
    return lambda: [getattr(metrics, name)(human, judge) for name in names]


def _scored(n: int) -> pd.DataFrame:
    from caliber_pipeline.core.conforming import frame_from_arrow

    random = np.random.default_rng(2)
    number = pa.array(np.arange(n)).cast(pa.string())
    human = random.integers(0, 2, n).astype(np.int8)
    is_right = random.random(n) < 0.8
    table = pa.table(
        {
            "record_id": number,
            "group": number,
            "split": pa.array(["train", "dev", "test"]).take(pa.array(random.integers(0, 3, n))),
            "human_score": human,
            "human_notes": pa.nulls(n, pa.string()),
            "severity": pa.nulls(n, pa.float64()),
            "weight": pa.nulls(n, pa.float64()),
            "llm_score": np.where(is_right, human, 1 - human).astype(np.int8),
            "llm_reasoning": pa.nulls(n, pa.string()),
            "confidence": pa.nulls(n, pa.float64()),
            "vote_share": pa.nulls(n, pa.float64()),
            "status": pa.array(["scored"]).take(pa.array(np.zeros(n, dtype=np.int8))),
            "is_example": np.zeros(n, dtype=np.bool_),
        }
    )
    return frame_from_arrow(table)


MEASURED: Final = {
    "ingest": ingest,
    "judge": judge_recorded,
    "metrics": measure_metrics,
    "copy_polars": copy_polars,
    "copy_duckdb": copy_duckdb,
    "copy_pyarrow": copy_pyarrow,
    "copy_verdicts": copy_verdicts,
    "sklearn": measure_sklearn,
    "endpoint": judge_endpoint,
}


class Measured(NamedTuple):
    """What one process took, without its imports: seconds, CPU seconds of all its threads, and peak MB with imports."""

    seconds: float
    cpu_s: float
    megabytes: float


class Process(NamedTuple):
    """What a process of its own does: a stage or a floor, from a file or folder to another."""

    name: str
    source: Path
    target: Path


def measure(process: Process, n: int) -> Measured:
    """Run a stage or a floor."""
    module = __spec__.name if __spec__ else ""
    command = [sys.executable, "-m", module, "--only", *(str(part) for part in process), str(n)]
    os.sync()  # what was written before must not be on its way to the disk meanwhile
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(*json.loads(done.stdout))


def run_one(name: str, source: str, target: str, n: str) -> None:
    """What `measure` starts."""
    act = MEASURED[name](Path(source), Path(target), int(n))
    started, started_cpu = time.perf_counter(), time.process_time()
    act()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps([seconds, cpu_s, peak]))


def measure_all(work: Path, n: int, stages: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per stage: the stage's and the floor's seconds and peak memory."""
    csv, project = work / f"{n}.csv", work / f"project_{n}"
    if "ingest" in stages or "judge" in stages:
        write_csv(csv, n)
        yield measure_ingest(csv, project, n)
    if "ingest" in stages and n <= MAX_OTHER_FORMATS:
        write_other_formats(csv)
        for suffix in (".jsonl", ".parquet"):
            yield measure_ingest(csv.with_suffix(suffix), work / "other", n)
    csv.unlink(missing_ok=True)
    if "judge" in stages:
        floors = {"pyarrow": Process("copy_verdicts", project, work / "copy.parquet")}
        yield measure_beside("judge, recorded", n, Process("judge", project, work / "shards"), floors)
    for name in ("shards", "other", f"project_{n}"):
        shutil.rmtree(work / name, ignore_errors=True)
    if "metrics" in stages:
        nothing = work / "nothing"
        floors = {"scikit-learn": Process("sklearn", nothing, nothing)}
        yield measure_beside("metrics", n, Process("metrics", nothing, nothing), floors)
    if "endpoint" in stages and n <= MAX_ENDPOINT:
        yield measure_endpoint(n)


def measure_ingest(source: Path, project: Path, n: int) -> dict[str, Any]:
    """Ingest of a file beside the fastest bare copy of it."""
    format_, copy = source.suffix[1:], project.with_name("copy.parquet")
    names = [name for name in COPIES[format_] if importlib.util.find_spec(name)]
    floors = {name: Process(f"copy_{name}", source, copy) for name in names}
    return measure_beside(f"ingest, {format_}", n, Process("ingest", source, project), floors)


def measure_beside(stage: str, n: int, ours: Process, floors: Mapping[str, Process]) -> dict[str, Any]:
    """The stage and its floors by turns, as a machine's speed changes; the medians of each."""
    of_ours: list[Measured] = []
    of_floors: dict[str, list[Measured]] = {name: [] for name in floors}
    for _ in range(_N_ROUNDS):
        for name, process in floors.items():
            of_floors[name].append(measure(process, n))
        shutil.rmtree(ours.target, ignore_errors=True)
        of_ours.append(measure(ours, n))
    medians = {name: _median(measured) for name, measured in of_floors.items()}
    fastest = min(medians, key=lambda name: medians[name].seconds)
    return _row(stage, n, _median(of_ours), fastest, medians[fastest])


def _median(measured: Sequence[Measured]) -> Measured:
    return Measured(*(float(median) for median in np.median(np.array(measured), axis=0)))


def measure_endpoint(n: int) -> dict[str, Any]:
    """n records through the loopback server, every answer after 50 ms."""
    floor = Measured(n * _LATENCY_S / _CONCURRENCY, 0.0, 0.0)
    return _row("judge, endpoint", n, measure(Process("endpoint", Path(), Path()), n), "latency", floor)


def _row(stage: str, n: int, ours: Measured, floor_name: str, floor: Measured) -> dict[str, Any]:
    return {
        "stage": stage,
        "records": n,
        "seconds": round(ours.seconds, 2),
        "peak MB": round(ours.megabytes),
        "floor": floor_name,
        "its seconds": round(floor.seconds, 2),
        "of our time": f"{floor.seconds / ours.seconds:.0%}",
        "CPU s": round(ours.cpu_s, 1),
        "its CPU s": round(floor.cpu_s, 1) if floor.cpu_s else "n/a",
    }


def growth(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Per stage the exponents by which its seconds and its floor's grew over its last tenfold: 1 is linear."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_stage.setdefault(row["stage"], []).append(row)
    for stage, measured in by_stage.items():
        if len(measured) > 1:
            before, last = sorted(measured, key=lambda row: row["records"])[-2:]
            ours, floor = (_exponent(before, last, name) for name in ("seconds", "its seconds"))
            yield f"{stage}: {ours} from {before['records']:,} to {last['records']:,} (its floor: {floor})"


def _exponent(before: Mapping[str, Any], last: Mapping[str, Any], name: str) -> str:
    if not before[name]:
        return "n/a"
    return f"n^{math.log(last[name] / before[name]) / math.log(last['records'] / before['records']):.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table as Markdown, a line as soon as it is known, and how each stage grew."""
    if argv is None and sys.argv[1:2] == ["--only"]:
        run_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the temporary files go (default: the system's folder)")
    parser.add_argument("--rows", type=float, nargs="+", default=[1e4, 1e5, 1e6, 1e7])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    arguments = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        for n in arguments.rows:
            for row in measure_all(Path(work), int(n), arguments.stages):
                if not rows:
                    sys.stdout.write("| " + " | ".join(row) + " |\n|" + " --- |" * len(row) + "\n")
                cells = (f"{value:,}" if isinstance(value, int) else str(value) for value in row.values())
                sys.stdout.write("| " + " | ".join(cells) + " |\n")
                sys.stdout.flush()
                rows.append(row)
    if grown := "; ".join(growth(rows)):
        sys.stdout.write(f"\nGrowth: {grown}\n")


if __name__ == "__main__":
    main()
