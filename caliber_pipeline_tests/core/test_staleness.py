"""Annotations made under criteria of another substance."""

import pandas as pd

from caliber_pipeline.core.criteria import Clause, Criteria
from caliber_pipeline.core.staleness import find_stale

VERSIONS = {
    "v001": Criteria(criteria="Score 1 if it is right."),
    "v002": Criteria(
        criteria="Score 1 if it is right.", clauses=(Clause(text="no zebras"),), base="v001", author="optimizer"
    ),
    "mine": Criteria(criteria="Score 1  if it is RIGHT", model="other"),
    "strict": Criteria(criteria="Score 1 if it is right and short", base="v002"),
}
ANNOTATIONS = pd.DataFrame(
    {
        "record_id": ["r1", "r2", "r3", "r4", "r5"],
        "annotator": ["a"] * 5,
        "criteria_version": pd.array(["v001", "v002", "strict", None, "gone"], dtype="string[pyarrow]"),
    }
)


def stale(version: str) -> list[str]:
    return find_stale(ANNOTATIONS, VERSIONS, version)["record_id"].tolist()


def test_what_the_optimizer_adds_and_layout_make_no_label_stale() -> None:
    assert stale("v001") == stale("v002") == stale("mine") == ["r3"]


def test_a_person_who_changes_the_text_makes_older_labels_stale() -> None:
    assert stale("strict") == ["r1", "r2"]


def test_a_version_whose_base_is_gone_stands_for_itself() -> None:
    orphan = {"v009": Criteria(criteria="Score 1", base="gone", author="optimizer")}
    assert find_stale(ANNOTATIONS, orphan, "v009").empty
