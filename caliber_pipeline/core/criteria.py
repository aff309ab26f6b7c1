"""Criteria versions: the judge's instructions, immutable once evaluated."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from caliber_pipeline.core.errors import CriteriaError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_CRITERIA: Final = "Score 1 if the output is accurate, complete and helpful for the query, otherwise 0"
VERSION_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBERED: Final = re.compile(r"v(\d{3,})")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(_Frozen):
    """Where a clause comes from: the pattern in the notes, its records, and people's own words."""

    pattern_id: str | None = None
    pattern: str | None = None
    record_ids: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()


class Clause(_Frozen):
    """One precise rule in the criteria, with the verdict it asks for and its evidence."""

    text: str = Field(min_length=1)
    verdict: Literal[0, 1] = 0
    evidence: Evidence = Evidence()


class ExampleRef(_Frozen):
    """A record shown to the judge as an example: its id and the hash of its content, never its text."""

    record_id: str
    content_hash: str


class Sampling(_Frozen):
    """How the model is asked; another sampling is another version."""

    temperature: float | None = 0.0
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    n_votes: int = Field(default=1, ge=1)


class Criteria(_Frozen):
    """One criteria version, as its YAML file holds it."""

    criteria: str = Field(min_length=1)
    system_prompt: str | None = None
    examples: tuple[ExampleRef, ...] = ()
    clauses: tuple[Clause, ...] = ()
    model: str | None = None
    provider: str | None = None
    sampling: Sampling = Sampling()
    base: str | None = None
    round: int = Field(default=0, ge=0)
    author: Literal["person", "optimizer"] = "person"

    @field_validator("criteria")
    @classmethod
    def _is_not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("criteria is blank")
        return text.strip()

    @field_validator("criteria", "system_prompt")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None:
            text.encode()  # half of a surrogate pair could be neither sent nor stored
        return text

    @property
    def fingerprint(self) -> str:
        """sha256 over the content; equal for files that differ only in layout or comments."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def full_text(self) -> str:
        """The criteria followed by their clauses, as a judge reads them."""
        clauses = "".join(f"\n- {clause.text}" for clause in self.clauses)
        return self.criteria + clauses


def parse_criteria(text: str, *, source: str) -> Criteria:
    """Parse a criteria file.

    Raises:
        CriteriaError: the text is not YAML, not a mapping, or has missing, unknown or ill-typed keys.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise CriteriaError(f"{source}: not valid YAML ({where}); correct the file") from error
    if not isinstance(content, Mapping):
        raise CriteriaError(f"{source}: holds no mapping; write at least a line 'criteria: …'")
    try:
        return Criteria.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(_describe(fault) for fault in error.errors())
        raise CriteriaError(f"{source}: {faults}") from error


def _describe(fault: "ErrorDetails") -> str:
    place = ".".join(map(str, fault["loc"])) or "file"
    if fault["type"] == "missing":
        return f"the key '{place}' is missing"
    if fault["type"] != "extra_forbidden":
        return f"{place}: {fault['msg']}"
    known = Criteria.model_fields if len(fault["loc"]) == 1 else ()
    meant = difflib.get_close_matches(place, known, n=1)
    return f"unknown key '{place}'" + (f"; did you mean '{meant[0]}'?" if meant else "")


def render_criteria(criteria: Criteria) -> str:
    """The YAML text of a criteria file; `parse_criteria` gives the same criteria back."""
    content: dict[str, Any] = criteria.model_dump(mode="json", exclude_defaults=True)
    content["author"] = criteria.author
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def next_version(versions: list[str]) -> str:
    """The next free `vNNN` after all numbered versions; versions of other names do not count."""
    numbers = [int(match[1]) for version in versions if (match := _NUMBERED.fullmatch(version))]
    return f"v{max(numbers, default=0) + 1:03d}"
