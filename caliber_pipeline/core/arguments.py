"""Checks what callers give at the doors of the Python API: one line says what is wrong and what to give."""

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import Final, ParamSpec, TypeVar, cast

from caliber_pipeline.core.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_SHOWN: Final = 60  # characters of a value, in a message


@dataclass(frozen=True)
class Kind:
    """What an argument has to be.

    Attributes:
        fits: Whether a value is of the kind.
        wanted: What to give, in words.
    """

    fits: Callable[[object], bool]
    wanted: str

    @property
    def or_none(self) -> "Kind":
        """The same, or None."""
        return Kind(lambda value: value is None or self.fits(value), f"{self.wanted}, or None")


def accepts(**kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function check arguments before it runs: those named, by their kinds.

    Raises:
        InputError: an argument is not of its kind; when the function is called.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        def check(*args: P.args, **kwargs: P.kwargs) -> None:
            given = signature.bind(*args, **kwargs).arguments
            for name, kind in kinds.items():
                if name in given and not kind.fits(given[name]):
                    raise InputError(f"{name} is {show(given[name])}; give {kind.wanted}")

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            check(*args, **kwargs)
            return function(*args, **kwargs)

        @wraps(function)
        async def checked_and_awaited(*args: P.args, **kwargs: P.kwargs) -> object:
            check(*args, **kwargs)
            return await cast(Awaitable[object], function(*args, **kwargs))

        return cast(Callable[P, R], checked_and_awaited) if inspect.iscoroutinefunction(function) else checked

    return decorate


def refuses_none(cls: type[T]) -> type[T]:
    """Have all `render_` methods of a class refuse None: a step that is still to be done."""
    for name, method in list(vars(cls).items()):
        if name.startswith("render_"):
            first = list(inspect.signature(method).parameters)[1]
            setattr(cls, name, accepts(**{first: GIVEN})(method))
    return cls


def show(value: object) -> str:
    """A value in a message: short ones as they are, others by their type."""
    text = repr(value)
    return text if len(text) <= _SHOWN and "\n" not in text else f"of type {type(value).__name__}"


def _is_iterable(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def has_attributes(*names: str, wanted: str) -> Kind:
    """Anything with these attributes."""
    return Kind(lambda value: all(hasattr(value, name) for name in names), wanted)


def table_with(*columns: str) -> Kind:
    """A DataFrame with these columns, and maybe others."""

    def fits(value: object) -> bool:
        return hasattr(value, "iloc") and set(columns) <= set(getattr(value, "columns", ()))

    return Kind(fits, f"a DataFrame with the columns {', '.join(columns)}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


PATH: Final = Kind(lambda value: isinstance(value, str | os.PathLike), "a path, such as 'records.csv'")
TEXT: Final = Kind(lambda value: isinstance(value, str), "a text")
INTEGER: Final = Kind(_is_integer, "a whole number")
NUMBER: Final = Kind(_is_number, "a number")
SHARE: Final = Kind(
    lambda value: _is_number(value) and 0 < float(value) < 1,  # type: ignore[arg-type] # a number, as just seen
    "a share between 0 and 1, such as 0.1",
)
ITEMS: Final = Kind(_is_iterable, "a list")
MAPPING: Final = Kind(lambda value: isinstance(value, Mapping), "a dict")
FUNCTION: Final = Kind(callable, "a function")
GIVEN: Final = Kind(lambda value: value is not None, "what a step returned; None means that it is still to be done")
