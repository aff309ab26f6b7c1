"""What a model's tokens cost, and what a run will cost before it is made."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.judge_prompt import Message, build_prefix, build_record_message

BYTES_PER_TOKEN: Final = 4.0  # of English text, for estimates before a call; bills come from the endpoint's own count
TOKENS_PER_MESSAGE: Final = 4  # what a chat format adds around each message
EXPECTED_REPLY_TOKENS: Final = 80  # two sentences of reasoning and a score
_PICO: Final = 10**12
_SNAPSHOT: Final = re.compile(r"[-@](?:20\d{2}-?\d{2}-?\d{2}|latest|preview|\d{4})$")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Cost in millionths of a millionth of a dollar: whole numbers, so that sums are exact."""
        millionth = _PICO // 10**6
        return round(prompt_tokens * self.input * millionth) + round(completion_tokens * self.output * millionth)


def usd(pico: int) -> float:
    """Dollars from `Price.cost`."""
    return pico / _PICO


def pico(dollars: float) -> int:
    """The unit of `Price.cost` from dollars."""
    return round(dollars * _PICO)


FREE: Final = Price(0.0, 0.0)

PRICES: Final = {
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
    "o3": Price(2.00, 8.00),
    "o4-mini": Price(1.10, 4.40),
    "claude-opus-4": Price(15.00, 75.00),
    "claude-opus-4-1": Price(15.00, 75.00),
    "claude-sonnet-4": Price(3.00, 15.00),
    "claude-sonnet-4-5": Price(3.00, 15.00),
    "claude-haiku-4-5": Price(1.00, 5.00),
    "claude-3-5-haiku": Price(0.80, 4.00),
    "gemini-2.5-pro": Price(1.25, 10.00),
    "gemini-2.5-flash": Price(0.30, 2.50),
    "gemini-2.5-flash-lite": Price(0.10, 0.40),
}
"""List prices as published in autumn 2025, without discounts; a setting overrides them."""


def price_of(model: str) -> Price | None:
    """The list price of a model or of a dated snapshot of it; None where it is not known.

    A vendor's prefix, as in "openai/gpt-4o", does not count.
    """
    name = model.lower().rsplit("/", 1)[-1]
    return PRICES.get(name) or PRICES.get(_SNAPSHOT.sub("", name))


@dataclass(frozen=True)
class Estimate:
    """What a run will take, estimated before its first call; a vote is a call, repairs and retries come on top.

    Attributes:
        n_records: Records to judge.
        n_cached: Records whose verdicts are known already.
        n_calls: Calls.
        prompt_tokens: Tokens sent, at four bytes each.
        completion_tokens: Tokens received, at a typical reply's length.
        cost_usd: At the price given; None where it is not known.
    """

    n_records: int
    n_cached: int
    n_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def estimate_run(
    records: pd.DataFrame, criteria: Criteria, examples: pd.DataFrame, *, price: Price | None, n_cached: int = 0
) -> Estimate:
    """Estimate the judging of these records.

    Args:
        records: query, output, reference of the records to judge.
        criteria: The instructions and the number of votes.
        examples: The records shown as examples.
        price: Of the model.
        n_cached: Passed on.
    """
    prefix = estimate_tokens(build_prefix(criteria, examples))
    frame = len(build_record_message("", "", None).encode()) / BYTES_PER_TOKEN + TOKENS_PER_MESSAGE
    n_bytes = sum(_n_bytes(records[name]) for name in ("query", "output", "reference"))
    n_votes = criteria.sampling.n_votes
    n_calls = len(records) * n_votes
    prompt_tokens = n_calls * math.ceil(prefix + frame) + math.ceil(n_votes * n_bytes / BYTES_PER_TOKEN)
    completion_tokens = n_calls * EXPECTED_REPLY_TOKENS
    cost = None if price is None else usd(price.cost(prompt_tokens, completion_tokens))
    return Estimate(len(records) + n_cached, n_cached, n_calls, prompt_tokens, completion_tokens, cost)


def estimate_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens the messages are."""
    n_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    return math.ceil(n_bytes / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)


def _n_bytes(texts: pd.Series) -> int:
    return pc.sum(pc.binary_length(pa.array(texts, from_pandas=True))).as_py() or 0
