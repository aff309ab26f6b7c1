"""A change of criteria in words; apart from proposals, since who shows it needs no tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProposedChange:
    """A change that a proposal makes, in words.

    Attributes:
        aspect: What it is about.
        suggestion: The change.
        rationale: Why.
        expected_improvement: What should get better.
        pattern_ids: The patterns that it comes from.
        record_ids: The train records that it comes from.
    """

    aspect: str
    suggestion: str
    rationale: str
    expected_improvement: str
    pattern_ids: tuple[str, ...] = ()
    record_ids: tuple[str, ...] = ()
