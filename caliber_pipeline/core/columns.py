"""What columns may be called, and how the text of a column becomes a typed one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.column_names import SCORE_BY_WORD
from caliber_pipeline.core.conforming import one_array
from caliber_pipeline.core.errors import InputError, MissingColumnsError

_RATER_COLUMN: Final = re.compile(r"(rater_?\w+?)_(score|notes)")


def resolve_columns(
    names: Sequence[str],
    aliases: Mapping[str, tuple[str, ...]],
    required: Sequence[str],
    mapping: Mapping[str, str],
    *,
    source: str,
    setting: str = "columns",
) -> dict[str, str]:
    """Which column of a file holds which of our columns.

    An explicit mapping, which is that `setting`, wins; then the first alias that the file has, upper and lower case
    alike.

    Raises:
        InputError: the mapping names an unknown column, or one column twice.
        MissingColumnsError: a required column is missing.
    """
    ours_by_column: dict[str, str] = {}
    for ours, theirs in mapping.items():
        if ours not in aliases:
            raise InputError(f"{source}: unknown column name '{ours}'; map one of {', '.join(aliases)}")
        if theirs not in names:
            raise InputError(f"{source}: has no column '{theirs}' for '{ours}'; it has {', '.join(names)}")
        if (other := ours_by_column.setdefault(theirs, ours)) != ours:
            raise InputError(
                f"{source}: column '{theirs}' is mapped to both '{other}' and '{ours}'; give each a column of its own"
            )
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    resolved = {}
    for ours, alternatives in aliases.items():
        found = [by_lower[a] for a in alternatives if a in by_lower and by_lower[a] not in mapping.values()]
        if ours in mapping:
            resolved[ours] = mapping[ours]
        elif found:
            resolved[ours] = found[0]
    missing = [name for name in required if name not in resolved]
    if missing:
        fact = f"{source}: no column for {' and '.join(missing)} among {', '.join(names)}"
        raise MissingColumnsError(fact, missing, setting)
    return resolved


def require_text(rows: pa.Table, names: Iterable[str], *, source: str) -> None:
    """Check the columns that are needed: those that could not be read as text come as binary columns without values.

    Raises:
        InputError: a column is no text.
    """
    for name in names:
        if pa.types.is_binary(rows.schema.field(name).type):
            raise InputError(f"{source}: column '{name}' holds bytes that are no UTF-8 text; write it as text")


def rater_columns(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Per annotator the file's columns of his score and notes, e.g. {'rater1': {'score': 'rater1_score'}}."""
    raters: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _RATER_COLUMN.fullmatch(name.strip().lower()):
            raters.setdefault(match[1], {})[match[2]] = name
    return {annotator: columns for annotator, columns in raters.items() if "score" in columns}


def parse_scores(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Parse a text column into 0, 1 or null (blank).

    Returns:
        The scores (int8) and whether each text is none of the known forms (bool).
    """
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    at = pc.index_in(texts, pa.array(SCORE_BY_WORD.keys(), pa.string()))
    scores = pc.take(pa.array(SCORE_BY_WORD.values(), pa.int8()), at)
    is_wrong = pc.and_(pc.invert(is_blank(column)), pc.is_null(at))
    return scores, is_wrong


def is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each text is null or white space."""
    return pc.fill_null(pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column)), True)


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with white space in place of a text as null."""
    blank = is_blank(column)
    if pc.sum(blank).as_py() == column.null_count:
        return column
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


class Faults:
    """Collects why rows are rejected; a row may have several reasons."""

    def __init__(self, n_rows: int) -> None:
        """Start with no faults.

        Args:
            n_rows: How many rows there are.
        """
        self._reasons = pa.repeat("", n_rows)

    def add(self, is_wrong: pa.ChunkedArray | pa.Array, reason: str | pa.Array | pa.ChunkedArray) -> None:
        """Add a reason (one for all, or one per row) to the rows that are wrong."""
        if not pc.any(is_wrong).as_py():
            return
        mask = one_array(is_wrong)
        before = self._reasons.filter(mask)  # few, mostly: the others are not touched
        reason = reason if isinstance(reason, str) else reason.filter(mask)
        joined = pc.if_else(pc.equal(before, ""), reason, pc.binary_join_element_wise(before, reason, "; "))
        self._reasons = pc.replace_with_mask(self._reasons, mask, one_array(joined))

    def add_values(self, is_wrong: pa.ChunkedArray, name: str, values: pa.ChunkedArray, expected: str) -> None:
        """Add to the wrong rows a reason that quotes their value."""
        if not pc.any(is_wrong).as_py():
            return
        reason = pc.binary_join_element_wise(f"{name} '", pc.fill_null(values, ""), f"' is not {expected}", "")
        self.add(is_wrong, reason)

    @property
    def is_faulty(self) -> pa.Array:
        """Whether each row has a fault."""
        return pc.not_equal(self._reasons, "")

    @property
    def reasons(self) -> pa.Array:
        """The reasons of the faulty rows, in their order."""
        return self._reasons.filter(self.is_faulty)
