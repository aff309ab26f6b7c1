"""What the actor that Ray's workers share keeps: all verdicts for them, the new ones for the cache."""

from pathlib import Path

import pyarrow as pa

from caliber_pipeline.stores.ray_verdicts import _Verdicts
from caliber_pipeline.stores.verdict_cache import CACHED_VERDICTS


def verdicts(*fingerprints: str) -> pa.Table:
    row = dict.fromkeys(CACHED_VERDICTS.names) | {"status": "scored", "llm_score": 1, "n_attempts": 1}
    row |= {"provider": "p", "model": "m"}
    rows = [row | {"fingerprint": fingerprint * 64} for fingerprint in fingerprints]
    return pa.Table.from_pylist(rows, schema=CACHED_VERDICTS)


def test_workers_see_what_was_known_and_what_others_found_and_the_cache_gets_what_is_new() -> None:
    shared = _Verdicts()
    shared.seed(verdicts("a"))
    shared.put_many(verdicts("b", "c"))
    assert shared.get_many(["a" * 64, "b" * 64, "d" * 64]).column("fingerprint").to_pylist() == ["a" * 64, "b" * 64]
    (new,) = shared.take_new()
    assert new.equals(verdicts("b", "c"))
    assert shared.take_new() == []
    folder = shared._folder.name
    shared.close()
    assert not Path(folder).exists()
