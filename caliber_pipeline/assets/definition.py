"""What all assets share: how they are declared, how bad input ends a run, how they tell of progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg
import pandas as pd

from caliber_pipeline.core.errors import CaliberError, MissingColumnsError
from caliber_pipeline.core.schemas import SCHEMAS
from caliber_pipeline.io_managers import table_schema
from caliber_pipeline.settings import PREFIX

criteria_versions: Final = dg.DynamicPartitionsDefinition(name="criteria_version")
OWNERS: Final = ["team:calibration"]
PROMOTION_POOL: Final = "promotion"
PROGRESS_INTERVAL_S: Final = 2.0
Stage = dg.Output[pd.DataFrame] | Iterator[dg.Output[pd.DataFrame] | dg.AssetObservation]
WHEN_DEPS_ARE_DONE: Final = (
    dg.AutomationCondition.any_deps_updated()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.any_deps_in_progress()
)


def describe(name: str, group: str, kinds: set[str]) -> dict[str, Any]:
    """The arguments that every asset takes: group, kinds, owners, code version and the declared columns."""
    return {
        "group_name": group,
        "kinds": {"parquet", *kinds},
        "owners": OWNERS,
        "code_version": "1",
        "metadata": {"dagster/column_schema": table_schema(SCHEMAS[name])},
    }


def stage(
    *,
    group: str,
    kinds: set[str],
    description: str,
    **options: Any,  # noqa: ANN401 - the arguments of dg.asset
) -> Callable[[Callable[..., Stage]], dg.AssetsDefinition]:
    """Declare the asset of a stage, named as its function."""

    def declare(function: Callable[..., Stage]) -> dg.AssetsDefinition:
        asset = dg.asset(description=description, **describe(function.__name__, group, kinds), **options)
        declared: dg.AssetsDefinition = asset(function)
        return declared

    return declare


@contextmanager
def one_line_failures() -> Iterator[None]:
    """Turn errors that tell a person what to do into failures of the run that no retry would mend."""
    try:
        yield
    except MissingColumnsError as error:
        pairs = ",".join(f"{name}=COLUMN" for name in error.missing)
        message = error.advise(f"{PREFIX}{error.setting.upper()}={pairs}")
        raise dg.Failure(message, allow_retries=False) from error
    except CaliberError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def log_progress(
    context: dg.AssetExecutionContext, what: str, more: Callable[[], str] | None = None
) -> Callable[[int, int], None]:
    """A progress callback that logs a line every two seconds: rate, time left, and `more` where there is any.

    The total is 0 where it is not known. Work that begins again, as each batch of texts does, is timed from its own
    beginning, and what took less than two seconds is not told at all.
    """
    started = last = time.monotonic()
    done_before = -1

    def report(done: int, total: int) -> None:
        nonlocal started, last, done_before
        now = time.monotonic()
        if done <= done_before:
            started = last = now
        done_before = done
        is_last = 0 < total <= done
        if now - last < PROGRESS_INTERVAL_S and (not is_last or last == started):
            return
        last = now
        rate = done / max(now - started, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        of_all = f" of {total}" if total else ""
        context.log.info(f"{what}: {done}{of_all} ({rate:.0f}/s{left}{more() if more else ''})")

    return report


def with_attrs(frame: pd.DataFrame, *sources: pd.DataFrame, **attrs: str) -> pd.DataFrame:
    """The frame with the attrs of what it was made from, and its own."""
    frame.attrs = {key: value for source in sources for key, value in source.attrs.items()} | attrs
    return frame
