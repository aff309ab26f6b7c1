"""What questions to a language model took."""

from dataclasses import dataclass
from typing import TypeVar

_NumberT = TypeVar("_NumberT", int, float)


@dataclass(frozen=True)
class Usage:
    """Calls, tokens and cost.

    Attributes:
        n_calls: Calls, repeated ones among them.
        n_tokens: Tokens sent and received; None where a reply did not tell.
        cost_usd: Their price in US dollars; None where it is unknown.
    """

    n_calls: int = 0
    n_tokens: int | None = 0
    cost_usd: float | None = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together; what one does not know is not known."""
        return Usage(
            self.n_calls + other.n_calls,
            _add(self.n_tokens, other.n_tokens),
            _add(self.cost_usd, other.cost_usd),
        )

    def since(self, before: "Usage") -> "Usage":
        """What came after `before`."""
        taken = Usage(
            -before.n_calls,
            None if before.n_tokens is None else -before.n_tokens,
            None if before.cost_usd is None else -before.cost_usd,
        )
        return self + taken


def _add(one: _NumberT | None, other: _NumberT | None) -> _NumberT | None:
    return None if one is None or other is None else one + other
