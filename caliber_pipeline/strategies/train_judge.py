"""Tries criteria on train records, out of the cache where it can."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.judge_scores import resolve_examples
from caliber_pipeline.core.optimized_criteria import measure_effort
from caliber_pipeline.core.proposals import Proposal
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.core.verdicts import refuse_capped, summarize_verdicts
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache


class TrainJudge:
    """Judges train records under proposals and counts what that took.

    Attributes:
        n_calls: Calls of the judge so far.
        cost_usd: What they cost; None where a price is unknown.
        model_usage: What proposing took of language models.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        labels: pd.DataFrame,
        build_judge: Callable[[Criteria], Judge],
        open_cache: Callable[[], AbstractContextManager[VerdictCache]],
    ) -> None:
        """Say what is judged, and who judges.

        Args:
            records: Of the `records` schema; the examples of criteria are among them.
            labels: As `core.labels.resolve_labels` gives them.
            build_judge: Who judges under criteria.
            open_cache: Where verdicts are kept.
        """
        self._records = records.set_index("record_id", drop=False)
        self._labels = labels
        self._build_judge = build_judge
        self._open_cache = open_cache
        self.n_calls = 0
        self.cost_usd: float | None = 0.0
        self.model_usage = Usage()

    def __call__(self, proposal: Proposal, record_ids: Sequence[str]) -> pd.DataFrame:
        """The verdicts of a proposal on some records."""
        return self.judge(proposal.criteria, record_ids)

    def judge(self, criteria: Criteria, record_ids: Sequence[str]) -> pd.DataFrame:
        """The verdicts under criteria on some records, as a `judge_scores` table.

        Raises:
            SpendingCapError: the spending cap left records unasked; the other verdicts are kept.
        """
        records = self._records.loc[list(record_ids)].reset_index(drop=True)
        examples = resolve_examples(criteria, self._records.reset_index(drop=True), self._labels)
        with self._open_cache() as cache:
            verdicts = run_judge(self._build_judge(criteria), JudgeTask(records, criteria, examples), cache=cache)
        refuse_capped(summarize_verdicts(verdicts), "while a proposal was tried")
        n_calls, cost = measure_effort(verdicts)
        self.n_calls += n_calls
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        return verdicts
