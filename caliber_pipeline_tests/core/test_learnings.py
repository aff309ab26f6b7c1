"""Learnings of the pipeline: one per pattern, from train notes alone, what is missed most first."""

import json

import pandas as pd

from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.enrichment import measure_enrichment
from caliber_pipeline.core.learnings import distil_patterns


def _patterns() -> pd.DataFrame:
    def row(pattern_id: str, ids: list[str], train: list[str], **changes: object) -> dict[str, object]:
        return {
            "pattern_id": pattern_id, "polarity": "reject", "name": pattern_id.title(), "description": "d",
            "is_unclustered": False, "count": len(ids), "record_ids": ids, "train_record_ids": train,
            "examples": ["fee wrong"], "keywords": ["wrong fee", "Fee!"], "confidence": 0.5, "stability": 0.8,
            "method": "consensus", "notes_fingerprint": "f",
        } | changes  # fmt: skip

    rows = [
        row("fees", ["a", "b", "c", "dev"], ["a", "b", "c"]),
        row("tone", ["d", "e"], ["d", "e"], stability=None),
        row("elsewhere", ["z"], []),
        row("unclustered-reject", ["u"], ["u"], is_unclustered=True, keywords=[], confidence=None, stability=None),
    ]
    return conform_frame(pd.DataFrame(rows), "patterns")


def _scored() -> pd.DataFrame:
    missed = {"d": 1, "e": 1, "a": 1}
    rows = [(i, 0, missed.get(i, 0)) for i in ("a", "b", "c", "d", "e", "u")]
    return pd.DataFrame(rows, columns=["record_id", "human_score", "llm_score"])


def _notes() -> pd.DataFrame:
    texts = {"a": "x", "b": "fee wrong", "c": "y jo@example.org", "d": "rude", "e": "cold", "dev": "secret", "z": "z"}
    return pd.DataFrame({"record_id": list(texts), "text": list(texts.values())})


def test_what_the_judge_misses_most_comes_first_and_dev_notes_stay_out() -> None:
    found = distil_patterns(_patterns(), _notes(), measure_enrichment(_scored(), _patterns()))
    assert list(found["pattern_id"]) == ["tone", "fees"]
    tone, fees = found.to_dict("records")
    assert (tone["n_missed"], tone["n_caught"], tone["n_other_missed"], tone["n_other_caught"]) == (2, 0, 1, 3)
    assert list(fees["supporting_item_ids"]) == ["b", "a", "c"]  # the most typical first
    assert list(fees["tags"]) == ["wrong_fee", "fee"]
    assert fees["confidence"] == 0.48  # stability 0.8 of 3 notes: 0.8 * 3 / 5
    assert tone["confidence"] == 0.25  # no stability counts a half, of 2 notes: 0.5 * 2 / 4
    assert "score 0 where people note “fee wrong”" in fees["recommended_actions"][0]
    assert "secret" not in fees["content"]
    assert "[EMAIL]" in fees["content"]
    assert json.loads(fees["provenance"])["notes_fingerprint"] == "f"


def test_no_patterns_give_no_learnings() -> None:
    patterns = _patterns().head(0)
    assert distil_patterns(patterns, _notes(), measure_enrichment(_scored(), patterns)).empty
