"""What a strategy is: it writes proposals from train's evidence; who is chosen and promoted is decided elsewhere."""

from dataclasses import dataclass, field
from typing import Protocol

from caliber_pipeline.core.proposals import Candidate, Proposal, ProposalRequest
from caliber_pipeline.core.usage import Usage


@dataclass(frozen=True)
class Proposals:
    """What a strategy came up with.

    Attributes:
        proposals: Different in kind, in the order of their promise.
        failed: What it tried and could not use.
        usage: What asking a language model took.
    """

    proposals: tuple[Proposal, ...]
    failed: tuple[Candidate, ...] = ()
    usage: Usage = field(default_factory=Usage)


class Strategy(Protocol):
    """Writes proposals."""

    @property
    def name(self) -> str:
        """'rules', 'examples', 'rewrite', 'gepa', or one's own."""
        ...

    @property
    def max_proposals(self) -> int:
        """How many it may come up with; where there may be two in all, part of train is kept to race them on."""
        ...

    async def propose(self, request: ProposalRequest) -> Proposals:
        """Proposals that edit the champion, from train alone.

        Raises:
            JudgeError: a language model or judge that it needs cannot be asked at all.
        """
        ...
