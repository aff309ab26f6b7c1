import multiprocessing
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.stores.verdict_cache import CACHED_VERDICTS, VerdictCache


def rows(names: Iterable[str], **changes: object) -> pa.Table:
    base: dict[str, Any] = dict.fromkeys(CACHED_VERDICTS.names)
    base |= {"status": "scored", "llm_score": 1, "provider": "p", "model": "m", "n_attempts": 1} | changes
    return pa.Table.from_pylist([base | {"fingerprint": digest(name)} for name in names], schema=CACHED_VERDICTS)


def test_what_was_put_is_got_with_every_value(tmp_path: Path) -> None:
    stored = rows(["a"], llm_reasoning="because 日本", confidence=0.75, vote_share=0.6, n_votes=5, cost_usd=1e-9)
    with VerdictCache(tmp_path / "deep" / "c.sqlite") as cache:
        cache.put_many(stored)
    with VerdictCache(tmp_path / "deep" / "c.sqlite") as cache:
        found = cache.get_many([digest("a"), digest("unknown")])
    assert found.equals(stored)


def test_more_keys_than_a_statement_takes_are_all_read(tmp_path: Path) -> None:
    names = [str(i) for i in range(2500)]
    with VerdictCache(tmp_path / "c.sqlite") as cache:
        cache.put_many(rows(names[::2]))
        found = cache.get_many([digest(name) for name in names])
        assert cache.get_many([]).num_rows == 0
    assert set(found.column("fingerprint").to_pylist()) == {digest(name) for name in names[::2]}


def test_the_first_verdict_under_a_fingerprint_stays(tmp_path: Path) -> None:
    with VerdictCache(tmp_path / "c.sqlite") as cache:
        cache.put_many(rows(["a"], llm_score=1))
        cache.put_many(rows(["a"], llm_score=0))
        assert cache.get_many([digest("a")]).column("llm_score").to_pylist() == [1]


def test_failed_and_skipped_are_not_kept(tmp_path: Path) -> None:
    with VerdictCache(tmp_path / "c.sqlite") as cache:
        for status in ("failed", "skipped", "refused", "unparseable"):
            cache.put_many(rows([status], status=status, llm_score=None))
        assert cache.stats().n_verdicts == 2


def test_stats_tell_number_size_models_and_age(tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with VerdictCache(tmp_path / "c.sqlite", clock=now.timestamp) as cache:
        assert cache.stats().oldest is None
        cache.put_many(rows(["a", "b"]))
        cache.put_many(rows(["c"], model="n"))
        stats = cache.stats()
    assert stats.n_verdicts == 3
    assert stats.n_by_model == {"p/m": 2, "p/n": 1}
    assert stats.oldest == stats.newest == now
    assert stats.n_bytes > 0


def test_prune_removes_by_age_and_status_and_shrinks_the_file(tmp_path: Path) -> None:
    times = [datetime(2030, 1, day, tzinfo=UTC).timestamp() for day in (1, 2)]
    moments = iter(times)
    with VerdictCache(tmp_path / "c.sqlite", clock=lambda: next(moments)) as cache:
        cache.put_many(rows(map(str, range(2000)), llm_reasoning="x" * 200))
        cache.put_many(rows(["refused"], status="refused", llm_score=None))
        size = cache.stats().n_bytes
        assert cache.prune(statuses=["unparseable"]) == 0
        assert cache.prune(before=datetime(2030, 1, 1, tzinfo=UTC) + timedelta(hours=1)) == 2000
        assert cache.stats().n_bytes < size / 10
        assert cache.prune(before=datetime(2031, 1, 1, tzinfo=UTC), statuses=["refused"]) == 1
        assert cache.prune() == 0


def test_a_file_that_is_no_cache_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("not a database, but long enough to be taken for one " * 20)
    with pytest.raises(InputError, match=r"c\.sqlite: no verdict cache"):
        VerdictCache(path)


def test_a_path_that_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "c.sqlite"):
        with pytest.raises(InputError, match=f"^{path}: cannot be used as verdict cache") as raised:
            VerdictCache(path)
        assert "remove" not in str(raised.value)


def test_a_cache_of_a_later_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InputError, match="layout 99"):
        VerdictCache(path)


def write_batches(path: Path, name: str) -> None:
    with VerdictCache(path) as cache:
        for i in range(40):
            cache.put_many(rows([f"{name}-{i}-{j}" for j in range(10)] + [f"shared-{i}"]))


def test_several_processes_open_and_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_batches, args=(path, str(n))) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with VerdictCache(path) as cache:
        assert cache.stats().n_verdicts == 3 * 400 + 40
