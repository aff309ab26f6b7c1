"""One function over many items by actors on a Ray cluster, through Ray Data."""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from caliber_pipeline.core.errors import CaliberError, InputError


def import_ray() -> Any:  # noqa: ANN401 a module without types
    """Ray, with its data sets.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless somebody asks for it
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError:
        raise InputError(
            "the backend 'ray' needs Ray; install the extra: pip install 'caliber-pipeline[ray]'"
        ) from None
    return ray


def start_here(actor: type, *arguments: object, max_concurrency: int = 1) -> Any:  # noqa: ANN401 a handle
    """One actor on the machine that this process talks to, which is no spot machine."""
    ray = import_ray()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    remote = ray.remote(actor).options(num_cpus=0, max_concurrency=max_concurrency, scheduling_strategy=here)
    return remote.remote(*arguments)


def map_on_ray(
    items: Iterable[dict[str, Any]], worker: type, arguments: tuple[Any, ...], n_workers: int
) -> Iterator[dict[str, Any]]:
    """What the workers return for each item, in any order; an item whose worker is lost is given to another.

    Args:
        items: What there is to do, each for one call.
        worker: A class whose instances take a batch of one item, as arrays by name, and return such a batch.
        arguments: Of its constructor.
        n_workers: Instances, each in a process of its own, made once.

    Raises:
        CaliberError: a worker raised it.
    """
    ray = import_ray()
    everything = list(items)
    if not everything:
        return
    rows = _rows_of_driver if ray.util.client.ray.is_connected() else _rows
    try:
        yield from rows(everything, worker, arguments, n_workers)
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(found := getattr(cause, "cause", None) or cause, CaliberError):
                raise found from error
            cause = cause.__cause__
        raise


def _rows(
    items: list[dict[str, Any]], worker: type, arguments: tuple[Any, ...], n_workers: int
) -> Iterator[dict[str, Any]]:
    ray = import_ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(items)), max_tasks_in_flight_per_actor=1),
        num_cpus=1,
    )
    yield from results.iter_rows()


def _rows_of_driver(
    items: list[dict[str, Any]], worker: type, arguments: tuple[Any, ...], n_workers: int
) -> Iterator[dict[str, Any]]:
    driver = start_here(_Driver, items, worker, arguments, n_workers)
    while (row := import_ray().get(driver.next_row.remote())) is not None:
        yield row


class _Driver:
    """The actor that runs Ray Data for a process outside the cluster: Ray Data does not work through Ray's client."""

    def __init__(self, *work: Any) -> None:  # noqa: ANN401 the arguments of `_rows`
        self._rows = _rows(*work)

    def next_row(self) -> dict[str, Any] | None:
        return next(self._rows, None)
