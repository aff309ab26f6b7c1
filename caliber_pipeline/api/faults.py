"""Faults in what callers give, in one line."""

from pydantic import ValidationError

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError


def make_criteria(criteria: object, **others: object) -> Criteria:
    """Criteria from a text and their other fields.

    Raises:
        CriteriaError: they are blank or no text.
    """
    try:
        return Criteria.model_validate({"criteria": criteria, **others})
    except ValidationError as error:
        raise CriteriaError(describe_fault(error)) from error


def describe_fault(error: ValidationError) -> str:
    """The first fault: where, and what is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    where, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {what}{more}" if where else f"{what}{more}"
