"""Each figure that is printed is explained in the README."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.annotator_agreement import describe_annotators
from caliber_pipeline.core.human_ceiling import compute_people_metrics

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(not README.exists(), reason="installed without the README")
def test_every_figure_of_agreement_is_a_paragraph_of_the_readme() -> None:
    rng = np.random.default_rng(0)
    ids = [f"r{i}" for i in range(40)]
    verdicts = pd.DataFrame({"record_id": ids, "split": "dev", "is_example": False}).assign(
        llm_score=rng.integers(0, 2, 40), human_score=rng.integers(0, 2, 40)
    )
    annotations = pd.DataFrame(
        {"record_id": [*ids, *ids, *ids], "annotator": ["ann"] * 40 + ["ben"] * 40 + ["ann"] * 40}
    )
    annotations = annotations.assign(
        score=rng.integers(0, 2, 120), created_at=pd.Series([None] * 120, dtype="datetime64[ns, UTC]"), is_gold=False
    )
    figures = pd.concat(
        [
            compute_alignment_metrics(verdicts),
            compute_people_metrics(annotations, verdicts),
            describe_annotators(annotations),
        ]
    )

    page = README.read_text(encoding="utf-8").split("## What the numbers mean")[1].split("\n## ")[0]
    explained = set(re.findall(r"\*\*`(\w+)`\*\*", page)) | {"n_failed", "n_examples"}

    assert set(figures["metric"]) - explained == set()
