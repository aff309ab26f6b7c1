"""What a judge is, for everything that uses one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from caliber_pipeline.core.criteria import Criteria


@dataclass(frozen=True)
class JudgeTask:
    """What one criteria version asks of a judge.

    Attributes:
        records: The records to judge, one row each: record_id, query, output, reference, llm_score, llm_reasoning.
        criteria: The instructions.
        examples: The records that the criteria show as examples: record_id, query, output, reference, human_score,
            human_notes; in the criteria's order.
    """

    records: pd.DataFrame
    criteria: Criteria
    examples: pd.DataFrame


class Judge(Protocol):
    """Gives a verdict, or a failure with a reason, for every record of a task."""

    @property
    def provider(self) -> str:
        """Who answers: 'local', 'recorded', or the name of an endpoint's provider."""
        ...

    @property
    def model(self) -> str:
        """The model that answers."""
        ...

    @property
    def is_cacheable(self) -> bool:
        """Whether a verdict is worth keeping: False where reading it again costs nothing."""
        ...

    @property
    def max_examples(self) -> int:
        """How many examples it reads with profit; proposals show it no more."""
        ...

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        """Everything on the judge's side that a verdict depends on: provider, model, sampling, template version."""
        ...

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        """Yield the verdicts in batches as they arrive, each row once, in any order.

        The columns are those of the `judge_scores` schema up to `n_attempts`; closing the iterator stops the work
        and keeps what was yielded.

        Raises:
            JudgeError: the judge as a whole cannot work; nothing is yielded after.
        """
        ...
