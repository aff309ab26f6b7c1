"""Faults that a model finds in what callers give, in one line."""

from pydantic import ValidationError


def describe_fault(error: ValidationError) -> str:
    """The first fault: where, and what is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"
