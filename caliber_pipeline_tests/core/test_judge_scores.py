"""What is judged, how examples are found, how verdicts meet labels."""

import pandas as pd
import pytest

from caliber_pipeline.core.conforming import conform_frame, empty_frame
from caliber_pipeline.core.criteria import Criteria, ExampleRef
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.core.judge_scores import coverage, join_labels, resolve_examples, select_judged
from caliber_pipeline.core.misalignments import find_misalignments

RECORDS = pd.DataFrame(
    {
        "record_id": ["c", "a", "b", "d"],
        "query": list("wxyz"),
        "output": list("WXYZ"),
        "reference": None,
        "human_score": None,
        "human_notes": None,
        "group": list("wxyz"),
        "split": ["train", "train", "dev", "test"],
    }
)
LABELS = pd.DataFrame(
    {
        "record_id": ["a", "b", "c"],
        "human_score": pd.array([1, 0, None], dtype="int8[pyarrow]"),
        "human_notes": ["good", "bad", None],
        "severity": [None, 2.0, None],
        "inclusion_probability": [0.5, None, None],
        "n_annotators": [1, 1, 2],
        "n_accepts": [1, 0, 1],
    }
)


def verdicts(scores: dict[str, int | None], examples: tuple[str, ...] = ()) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record_id": list(scores),
            "llm_score": pd.array(list(scores.values()), dtype="int8[pyarrow]"),
            "llm_reasoning": "because",
            "confidence": [0.9 - 0.1 * i for i in range(len(scores))],
            "vote_share": None,
            "status": ["failed" if s is None else "scored" for s in scores.values()],
            "is_example": [i in examples for i in scores],
        }
    )


def test_only_labelled_records_are_judged_in_the_order_of_their_ids() -> None:
    assert select_judged(RECORDS, LABELS)["record_id"].tolist() == ["a", "b"]


def reference(record_id: str) -> ExampleRef:
    record = RECORDS[RECORDS["record_id"] == record_id]
    return ExampleRef(record_id=record_id, content_hash=content_hashes(record)[0])


def test_examples_come_in_the_order_of_the_criteria() -> None:
    criteria = Criteria(criteria="x", examples=(reference("b"), reference("a")))
    examples = resolve_examples(criteria, RECORDS, LABELS)
    assert examples[["record_id", "output", "human_score"]].to_dict("list") == {
        "record_id": ["b", "a"],
        "output": ["Y", "X"],
        "human_score": [0, 1],
    }


def test_an_example_without_a_label_or_with_another_text_is_refused() -> None:
    unlabelled = Criteria(criteria="x", examples=(reference("c"), reference("d")))
    with pytest.raises(CriteriaError, match=r"2 examples of the criteria are no labelled records, e.g. \['c', 'd'\]"):
        resolve_examples(unlabelled, RECORDS, LABELS)
    changed = Criteria(criteria="x", examples=(ExampleRef(record_id="a", content_hash="old"),))
    with pytest.raises(CriteriaError, match=r"1 examples of the criteria changed their text, e.g. \['a'\]"):
        resolve_examples(changed, RECORDS, LABELS)


def test_verdicts_meet_labels_with_group_split_and_weight() -> None:
    scored = join_labels(verdicts({"b": 1, "a": None}), LABELS, RECORDS)
    assert scored["record_id"].tolist() == ["a", "b"]
    assert scored["split"].tolist() == ["train", "dev"]
    assert scored["weight"].iloc[0] == 2.0
    assert pd.isna(scored["llm_score"].iloc[0])


def test_coverage_counts_what_got_a_verdict() -> None:
    assert coverage(verdicts({"a": 1, "b": None, "c": 0, "d": 1})) == 0.75
    assert coverage(verdicts({}).iloc[:0]) is None


def test_misalignments_leave_out_failures_examples_and_agreement() -> None:
    labels = LABELS.assign(human_score=pd.array([1, 0, 0], dtype="int8[pyarrow]"))
    records = RECORDS
    none = empty_frame("patterns")
    found = find_misalignments(join_labels(verdicts({"a": 0, "b": 1, "c": None}), labels, records), records, none)
    assert list(zip(found["record_id"], found["kind"], strict=True)) == [
        ("a", "false_negative"),
        ("b", "false_positive"),
    ]
    shown = join_labels(verdicts({"a": 0, "b": 1}, examples=("a", "b")), labels, records)
    assert find_misalignments(shown, records, none).empty


def test_a_misalignment_names_the_pattern_of_its_note() -> None:
    texts = {key: ["bad ones"] for key in ["pattern_id", "name", "description", "method", "notes_fingerprint"]}
    lists: dict[str, list[list[str]]] = {key: [[]] for key in ["train_record_ids", "examples", "keywords"]}
    pattern = {**texts, **lists, "polarity": ["reject"], "is_unclustered": [False], "count": [1], "record_ids": [["b"]]}
    pattern |= {"confidence": [None], "stability": [None]}
    loose = {**pattern, "pattern_id": ["unclustered-accept"], "is_unclustered": [True], "record_ids": [["a"]]}
    patterns = conform_frame(pd.concat([pd.DataFrame(pattern), pd.DataFrame(loose)]), "patterns")
    found = find_misalignments(join_labels(verdicts({"a": 0, "b": 1}), LABELS, RECORDS), RECORDS, patterns)
    assert found.set_index("record_id")["pattern_name"].to_dict() == {"a": None, "b": "bad ones"}
