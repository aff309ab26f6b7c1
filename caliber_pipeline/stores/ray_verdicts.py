"""The verdict cache for the workers of a Ray cluster, none of which sees the disk that the cache lies on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from caliber_pipeline.stores.ray_map import import_ray, start_here
from caliber_pipeline.stores.verdict_cache import VerdictCache


class SharedVerdicts:
    """A worker's view of the cache: the same verdicts for all workers, at once. Made by `share_verdicts`."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 a handle
        """Use the actor that holds them."""
        self._actor = actor

    def get_many(self, fingerprints: Sequence[str]) -> pa.Table:
        """As of `VerdictCache`."""
        return import_ray().get(self._actor.get_many.remote(fingerprints))

    def put_many(self, verdicts: pa.Table) -> None:
        """As of `VerdictCache`: when this returns, the death of the worker loses none of them."""
        import_ray().get(self._actor.put_many.remote(verdicts))

    def seed(self, verdicts: pa.Table) -> None:
        """Let the workers know what the cache knows."""
        import_ray().get(self._actor.seed.remote(verdicts))

    def keep_new(self, cache: VerdictCache) -> None:
        """Put what the workers have found since the last time into the cache."""
        for verdicts in import_ray().get(self._actor.take_new.remote()):
            cache.put_many(verdicts)


@contextmanager
def share_verdicts(cache: VerdictCache) -> Iterator[SharedVerdicts]:
    """A place for verdicts that all workers see; what they have put there is in the cache at the end."""
    actor = start_here(_Verdicts)
    shared = SharedVerdicts(actor)
    try:
        yield shared
    finally:
        shared.keep_new(cache)
        import_ray().get(actor.close.remote())


class _Verdicts:
    """The actor: a cache of its own, and what the workers have put there since it was asked last."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="caliber-verdicts-")
        self._cache = VerdictCache(Path(self._folder.name) / "verdicts.sqlite")
        self._new: list[pa.Table] = []

    def seed(self, verdicts: pa.Table) -> None:
        self._cache.put_many(verdicts)

    def get_many(self, fingerprints: Sequence[str]) -> pa.Table:
        return self._cache.get_many(fingerprints)

    def put_many(self, verdicts: pa.Table) -> None:
        self._cache.put_many(verdicts)
        self._new.append(verdicts)

    def take_new(self) -> list[pa.Table]:
        new, self._new = self._new, []
        return new

    def close(self) -> None:
        self._cache.close()
        self._folder.cleanup()
