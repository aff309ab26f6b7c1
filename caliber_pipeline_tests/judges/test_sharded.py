"""Judging in shards: every record once, finished shards kept, the same verdicts however often a run died."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from caliber_pipeline.core.criteria import Criteria, ExampleRef
from caliber_pipeline.core.errors import InputError, JudgeError, SpendingCapError
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.core.schemas import JUDGE_SCORES
from caliber_pipeline.judges import batch_judge, sharded
from caliber_pipeline.judges.batch_judge import BatchJudge, BatchLimits, StillUnderWayError
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.judges.sharded import JUDGED_COLUMNS, ShardedTask, judge_in_shards
from caliber_pipeline.stores import sharded_work
from caliber_pipeline.stores.batch_folder import BatchFolder, StoredBatch
from caliber_pipeline.stores.sharded_work import ShardedWork, ShardProgress, count_shards
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback
from caliber_pipeline_tests.judges import sharded_judging_process
from caliber_pipeline_tests.judges.batch_server import BatchConfig, BatchServer, batch_server
from caliber_pipeline_tests.judges.scripted import ScriptedJudge, make_records, verdict

CRITERIA = Criteria(criteria="be right")
NONE = make_records({})


def batches(ids: list[str], size: int = 7) -> list[pa.RecordBatch]:
    frame = make_records({record_id: f"output of {record_id}" for record_id in ids})
    table = pa.table({name: pa.array(frame[name], from_pandas=True) for name in JUDGED_COLUMNS})
    cut: list[pa.RecordBatch] = table.to_batches(max_chunksize=size)
    return cut


def judge(
    judge_: ScriptedJudge | BatchJudge,
    ids: list[str],
    folder: Path,
    seen: list[ShardProgress] | None = None,
    cache: VerdictCache | None = None,
) -> pd.DataFrame:
    on_progress = None if seen is None else seen.append
    task = ShardedTask(CRITERIA, NONE, UPath(folder), len(ids), "f")
    output = judge_in_shards(judge_, batches(ids), task, on_progress=on_progress, cache=cache)
    frame: pd.DataFrame = pd.read_parquet(output.path, dtype_backend="pyarrow")
    return frame.sort_values("record_id", ignore_index=True)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_work, "ROWS_PER_SHARD", 10)


IDS = [f"r{number:03d}" for number in range(100)]


def test_shards_hold_the_verdicts_of_one_run_over_all(tmp_path: Path) -> None:
    seen: list[ShardProgress] = []
    found = judge(ScriptedJudge(), IDS, tmp_path, seen)
    records = make_records({record_id: f"output of {record_id}" for record_id in IDS})
    whole = run_judge(ScriptedJudge(), JudgeTask(records, CRITERIA, NONE))
    pd.testing.assert_frame_equal(found, whole, check_dtype=False)
    # 100 records in shards of about 10: the next power of two is 16
    assert (seen[-1].n_shards, seen[-1].n_done, seen[-1].n_rows) == (16, 16, 100)
    assert [progress.n_done for progress in seen] == list(range(1, 17))


def test_a_run_that_died_goes_on_at_the_unfinished_shard(tmp_path: Path) -> None:
    class Dying(ScriptedJudge):
        def judge(self, task: JudgeTask):  # type: ignore[no-untyped-def] # noqa: ANN202
            for frame in super().judge(task):
                if len(self.asked) > 50:
                    raise JudgeError("the endpoint is gone")
                yield frame

    dying = Dying()
    with pytest.raises(JudgeError, match="gone"):
        judge(dying, IDS, tmp_path)
    n_done = sum(pq.read_metadata(path).num_rows for path in tmp_path.glob("*/output/*.parquet"))
    assert 0 < n_done <= 50
    second = ScriptedJudge()
    found = judge(second, IDS, tmp_path)
    assert found["record_id"].tolist() == IDS
    assert len(second.asked) == 100 - n_done
    third = ScriptedJudge()
    pd.testing.assert_frame_equal(judge(third, IDS, tmp_path), found)
    assert third.asked == []


def test_a_shard_that_the_spending_cap_cut_short_is_not_finished(tmp_path: Path) -> None:
    capped = ScriptedJudge({"r050": [verdict("r050", status="skipped", llm_score=None, n_attempts=0)]})
    with pytest.raises(SpendingCapError, match="records judged in this shard"):
        judge(capped, IDS, tmp_path)
    found = judge(ScriptedJudge(), IDS, tmp_path)
    assert found["status"].unique().tolist() == ["scored"]
    assert found["record_id"].tolist() == IDS


def test_a_record_whose_call_failed_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    failing = ScriptedJudge({"r050": [verdict("r050", status="failed", llm_score=None, failure_reason="HTTP 500")]})
    first = judge(failing, IDS, tmp_path)
    assert first["status"].value_counts().to_dict() == {"scored": 99, "failed": 1}
    seen: list[ShardProgress] = []
    second = ScriptedJudge()
    found = judge(second, IDS, tmp_path, seen)
    assert second.asked == ["r050"]
    assert [(progress.n_done, progress.n_shards, progress.n_rows) for progress in seen] == [(16, 16, 100)]
    pd.testing.assert_frame_equal(found, judge(ScriptedJudge(), IDS, tmp_path / "undisturbed"))


def test_the_batches_of_many_shards_are_under_way_at_once(tmp_path: Path) -> None:
    with batch_server(BatchConfig(n_looks=2)) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        judged = judge(_batch_judge(server, tmp_path), IDS, tmp_path / "shards", cache=cache)
        assert (len(server.batches), server.n_single) == (16, 0)
        assert server.max_open > 1
    assert judged["status"].tolist() == ["scored"] * 100


def test_a_run_that_does_not_wait_sends_all_and_the_next_takes_what_has_ended(tmp_path: Path) -> None:
    with batch_server(BatchConfig(n_looks=2)) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        batched = _batch_judge(server, tmp_path)
        batched.waits = False
        for _ in range(2):
            with pytest.raises(StillUnderWayError, match="16 of 16 shards wait"):
                judge(batched, IDS, tmp_path / "shards", cache=cache)
        judged = judge(batched, IDS, tmp_path / "shards", cache=cache)
        assert (len(server.batches), server.n_single) == (16, 0)
    assert judged["status"].tolist() == ["scored"] * 100


def test_a_shard_reads_the_ids_of_its_own_batches_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Counting(BatchFolder):
        def load_custom_ids(self, batch: StoredBatch) -> tuple[str, ...]:
            read.append(batch.name)
            return super().load_custom_ids(batch)

    monkeypatch.setattr(batch_judge, "BatchFolder", Counting)
    with batch_server(BatchConfig(n_looks=2)) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        batched = _batch_judge(server, tmp_path)
        batched.waits = False
        for n in (0, 16):
            with pytest.raises(StillUnderWayError):
                judge(batched, IDS, tmp_path / "shards", cache=cache)
            assert (len(read), len(set(read))) == (n, n)


def test_batches_that_the_provider_has_no_room_for_wait_for_the_others(tmp_path: Path) -> None:
    with batch_server(BatchConfig(n_looks=5, max_open=3)) as server:
        judged = judge(_batch_judge(server, tmp_path), IDS, tmp_path / "shards")
        assert server.max_open == 3
        assert server.n_single == 0
    assert judged["status"].tolist() == ["scored"] * 100


def _batch_judge(server: BatchServer, folder: Path) -> BatchJudge:
    settings = OpenAIJudgeSettings(model="gpt-4o", base_url=server.base_url)
    return BatchJudge(OpenAIJudge(settings), settings, folder / "batches", limits=BatchLimits(poll_every_s=0.05))


def test_half_written_inputs_and_results_are_made_again(tmp_path: Path) -> None:
    found = judge(ScriptedJudge(), IDS, tmp_path)
    (work,) = tmp_path.iterdir()
    (work / "records" / "complete").unlink()
    (work / "records" / "part-00000.arrows").write_bytes(b"half")
    (work / "output" / "part-00000.parquet").unlink()
    (work / "output" / ".part-00000.parquet.999999999-dead").write_bytes(b"PAR1 half")
    pd.testing.assert_frame_equal(judge(ScriptedJudge(), IDS, tmp_path), found)
    assert all(path.name.startswith("part-") for path in (work / "output").iterdir())


def test_another_judge_or_other_records_have_shards_of_their_own(tmp_path: Path) -> None:
    judge(ScriptedJudge(), IDS, tmp_path)
    judge(ScriptedJudge(model="other"), IDS, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InputError, match="other records or criteria"):
        ShardedWork(UPath(next(tmp_path.iterdir())), "another key", n_shards=16)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.sets(st.text(min_size=1, max_size=4), max_size=60), size=st.integers(1, 20))
def test_every_record_is_in_one_shard(tmp_path_factory: pytest.TempPathFactory, ids: set[str], size: int) -> None:
    work = ShardedWork(UPath(tmp_path_factory.mktemp("work")), "k", n_shards=count_shards(len(ids)))
    work.partition(batches(sorted(ids), size))
    found = [record_id for shard in work.shards() for record_id in work.load_records(shard)["record_id"]]
    assert sorted(found) == sorted(ids)


def test_the_shard_of_a_record_is_part_of_what_is_stored(tmp_path: Path) -> None:
    work = ShardedWork(UPath(tmp_path), "k", n_shards=4)
    work.partition(batches(["a", "b", "c", "d", "e"]))
    by_shard = {shard: list(work.load_records(shard)["record_id"]) for shard in work.shards()}
    # another hash would make finished shards of earlier runs useless
    assert by_shard == {0: ["a", "c"], 2: ["d"], 3: ["b", "e"]}


def test_the_verdict_files_are_in_the_declared_schema(tmp_path: Path) -> None:
    judge(ScriptedJudge(), IDS, tmp_path)
    for path in tmp_path.glob("*/output/*.parquet"):
        assert pq.read_schema(path).equals(JUDGE_SCORES)
    assert sharded.JUDGED_COLUMNS[0] == "record_id"


@pytest.mark.parametrize(
    ("n_rows", "n_bytes", "n_shards"),
    # shards of about 10 rows or 1,000 bytes, a power of two, and 512 at most
    [(0, 0, 1), (10, 1_000, 1), (11, 1_000, 2), (10, 1_001, 2), (100, 1_001, 16), (10, 9_000, 16), (10, 10**9, 512)],
)
def test_shards_are_bounded_by_rows_and_by_bytes(
    n_rows: int, n_bytes: int, n_shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_work, "BYTES_PER_SHARD", 1_000)
    assert count_shards(n_rows, n_bytes) == n_shards


def test_work_that_is_begun_keeps_its_shards_whatever_bounds_them_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judge(ScriptedJudge(), IDS, tmp_path)
    monkeypatch.setattr(sharded_work, "ROWS_PER_SHARD", 3)
    second = ScriptedJudge()
    pd.testing.assert_frame_equal(judge(second, IDS, tmp_path), found)
    assert second.asked == []
    assert ShardedTask(CRITERIA, NONE, UPath(tmp_path), len(IDS), "f").open(second).n_shards == 16


def test_what_is_put_into_shards_at_once_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = batches(IDS, 10)
    monkeypatch.setattr(sharded_work, "_FLUSH_BYTES", cut[0].nbytes * 3 // 2)
    ShardedWork(UPath(tmp_path), "k", n_shards=1).partition(cut)
    with pa.ipc.open_stream(tmp_path / "records" / "part-00000.arrows") as stream:
        assert [batch.num_rows for batch in stream] == [10] * 10


def test_no_dictionary_is_built_of_what_does_not_repeat(tmp_path: Path) -> None:
    judge(ScriptedJudge(), IDS, tmp_path)
    found: dict[str, bool] = {}
    for path in tmp_path.glob("*/output/*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        found |= {c.path_in_schema: c.has_dictionary_page for c in map(group.column, range(group.num_columns))}
    names = ("record_id", "fingerprint", "status", "model")
    assert [found[name] for name in names] == [False, False, True, True]


def test_what_is_stored_of_recorded_verdicts_is_what_always_was(tmp_path: Path) -> None:
    frame = make_records({f"r{number:02d}": f"Antwört {number} 答え" for number in range(40)})
    frame["reference"] = pd.Series([f"known {n}" if n % 3 else None for n in range(40)], dtype="string[pyarrow]")
    frame["llm_score"] = pd.Series([None if n % 7 == 0 else n % 2 for n in range(40)], dtype="int8[pyarrow]")
    frame["llm_reasoning"] = pd.Series([f"why {n}" if n % 5 else None for n in range(40)], dtype="string[pyarrow]")
    records = pa.table({name: pa.array(frame[name], from_pandas=True) for name in JUDGED_COLUMNS}).to_batches()
    criteria = Criteria(criteria="be right", examples=(ExampleRef(record_id="r05", content_hash="h"),))
    task = ShardedTask(criteria, NONE, UPath(tmp_path), 40, "f")
    output = judge_in_shards(RecordedJudge(sees_all=False), records, task)
    stored = {path.name: pq.read_table(path).to_pylist() for path in Path(output.path).iterdir()}
    # another folder, file or fingerprint would have everything judged again
    assert Path(output.path).relative_to(tmp_path).parts == ("ee374ea04356af2a", "output")
    assert {name: digest(json.dumps(rows))[:16] for name, rows in stored.items()} == {
        "part-00000.parquet": "738988e6c84071f4",
        "part-00001.parquet": "6b619503194c33f7",
        "part-00002.parquet": "f281a0d41548f948",
        "part-00003.parquet": "53ad8e6917c24c82",
    }


@pytest.mark.slow
def test_judging_killed_at_any_point_and_run_again_gives_the_undisturbed_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, n_killed, n_rounds = 2000, 0, 1
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([sharded_judging_process.__name__])  # most of a process's time went to its imports
    differs = ["is_cached", "latency_s", "n_attempts"]
    with loopback(LoopbackConfig(latency_s=0.02)) as server:
        expected = pd.read_parquet(sharded_judging_process.main(server.base_url, tmp_path / "undisturbed", n))
        judging = (server.base_url, tmp_path / "out", n)
        paid = server.stats()["calls"]
        draw = np.random.default_rng(0)
        while n_killed < 20:
            wanted = server.stats()["calls"] + draw.integers(1, n // 4)
            process = context.Process(target=sharded_judging_process.main, args=judging)
            process.start()
            while server.stats()["calls"] < wanted and process.exitcode is None:
                time.sleep(0.02)
            process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                n_killed += 1
            else:
                assert process.exitcode == 0
                # the work was done before: there is more to kill in the same work begun anew
                shutil.rmtree(tmp_path / "out")
                n_rounds += 1
        found = pd.read_parquet(sharded_judging_process.main(server.base_url, tmp_path / "out", n))
        paid = server.stats()["calls"] - paid
    found, expected = (frame.sort_values("record_id", ignore_index=True) for frame in (found, expected))
    pd.testing.assert_frame_equal(found.drop(columns=differs), expected.drop(columns=differs))
    # 16 calls are under way at once, and verdicts wait a second at most for being stored: 50 rounds of 0.02 s
    assert paid - n_rounds * n <= n_killed * 16 * 51
