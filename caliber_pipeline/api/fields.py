"""Reads a record, annotation or verdict from whatever a caller holds it in: a dict or any object with attributes."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
from caliber_pipeline.core.arguments import ITEMS, accepts
from caliber_pipeline.core.column_names import ANNOTATION_ALIASES, RECORD_ALIASES, SCORE_BY_WORD
from caliber_pipeline.core.errors import InputError

Item: TypeAlias = Any
"""A mapping, or an object with attributes."""


def each_item(items: Iterable[Item]) -> Iterable[Item]:
    """The items one by one; those of a DataFrame are its rows."""
    if hasattr(items, "iloc") and hasattr(items, "columns") and hasattr(items, "to_dict"):
        rows: list[Item] = items.to_dict("records")
        return rows
    return items


def list_patterns(patterns: Iterable[Item] | PatternDiscoveryResult) -> list[Item]:
    """The patterns, also out of what discovering returned."""
    return list(each_item(patterns.patterns if isinstance(patterns, PatternDiscoveryResult) else patterns))


def read_field(
    item: Item,
    name: str,
    default: Any = None,  # noqa: ANN401
    *,
    aliases: Mapping[str, tuple[str, ...]] = RECORD_ALIASES,
) -> Any:  # noqa: ANN401
    """The first value that the item has under a field's aliases; None, NaN and blank text are none."""
    for alias in aliases.get(name, (name,)):
        value = item.get(alias) if isinstance(item, Mapping) else getattr(item, alias, None)
        if not is_missing(value):
            return value
    return default


def read_verdict(item: Item) -> dict[str, Any]:
    """What an annotation has, by our names; of a record it is what people said of it, not what a judge did."""
    found = {name: read_field(item, name, aliases=ANNOTATION_ALIASES) for name in ANNOTATION_ALIASES}
    found["score"] = read_field(item, "human_score", found["score"])
    found["notes"] = read_field(item, "human_notes", found["notes"])
    return found


def read_text(item: Item, name: str) -> str | None:
    """A field's value as text, None where there is none.

    Raises:
        InputError: it is no Unicode text.
    """
    value = read_field(item, name)
    return None if value is None else _require_unicode(str(value), name)


def read_id(item: Item) -> str:
    """The item's id as text, so that 1 and '1' are the same record.

    Raises:
        InputError: it has none, or one that is no Unicode text.
    """
    value = read_field(item, "record_id")
    if value is None:
        raise InputError(f"an item of type {type(item).__name__} has no record_id or id: {_shorten(repr(item))}")
    return parse_id(value)


def parse_id(value: object) -> str:
    """An id as text; 1.0 is '1', since integer columns with gaps arrive as floats.

    Raises:
        InputError: it is no Unicode text.
    """
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return _require_unicode(text.strip(), "record_id")


def parse_score(value: object, *, what: str) -> int:
    """0 or 1 from a number, a bool or a word such as 'accept'.

    Raises:
        InputError: it is none of these.
    """
    score = find_score(value)
    if score is None:
        raise InputError(f"{what} is {value!r}; give 1 to accept or 0 to reject")
    return score


def find_score(value: object) -> int | None:
    """0 or 1 from a number, a bool or a word such as 'accept', None from anything else."""
    text = str(int(value)) if isinstance(value, bool | float) and value in (0, 1) else str(value)
    return SCORE_BY_WORD.get(text.strip().lower())


@accepts(items=ITEMS)
def index_by_id(items: Iterable[Item]) -> dict[str, Item]:
    """The items by id.

    Raises:
        InputError: an id repeats or is missing.
    """
    by_id: dict[str, Item] = {}
    repeated = []
    for item in each_item(items):
        record_id = read_id(item)
        if record_id in by_id:
            repeated.append(record_id)
        by_id[record_id] = item
    if repeated:
        raise InputError(f"{len(repeated)} record ids repeat, e.g. {repeated[:3]}; rename or drop the repeats")
    return by_id


def is_missing(value: object) -> bool:
    """Whether it is None, NaN, NaT, pandas' NA or blank text."""
    if value is None or isinstance(value, str):
        return not (value and value.strip())
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # neither NA nor an array of several has a truth value
        return not hasattr(value, "__len__")


def _require_unicode(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} {_shorten(repr(text))} is no Unicode text: it holds half of a surrogate pair"
        ) from error
    return text


def _shorten(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
