"""What a judge yields: the part of `judge_scores` that is the judge's to fill, and the statuses it may give."""

from typing import Final

import pyarrow as pa

from caliber_pipeline.core.schemas import JUDGE_SCORES

VERDICTS: Final = pa.schema(list(JUDGE_SCORES)[: JUDGE_SCORES.get_field_index("n_attempts") + 1])
"""The columns of a batch from a judge: `judge_scores` up to `n_attempts`."""

STATUSES: Final = ("scored", "unparseable", "refused", "failed", "skipped")
"""A verdict; a reply that says neither 0 nor 1; a refusal; a call that failed for good; not asked, as the spending cap
was reached. Only the first has a score."""
