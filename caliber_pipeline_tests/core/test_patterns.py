"""What discovery promises about ids, order, seeds, splits and identical notes, whatever the notes are."""

import hashlib
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from caliber_pipeline.core import clustering
from caliber_pipeline.core import patterns as stage
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.notes import normalise_note

_WORDS = ["refund", "tone", "rude", "wrong", "policy", "slow", "hazard", "unplug", "vague", "steps", "Refund"]
_texts = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=4).map(" ".join)
_rows = st.lists(
    st.tuples(_texts, st.sampled_from(["reject", "accept"]), st.sampled_from(["train", "train", "dev", "test"])),
    max_size=40,
)


def _notes(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(len(rows))],
            "text": [text for text, _, _ in rows],
            "polarity": [polarity for _, polarity, _ in rows],
            "split": [split for _, _, split in rows],
        },
        dtype="string[pyarrow]",
    )


def discover_patterns(notes: pd.DataFrame, vectors: NDArray[np.float64]) -> pd.DataFrame:
    return stage.discover_patterns(notes, vectors, n_resamples=2)


def _word_vector(word: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=24)


def _vectors(notes: pd.DataFrame) -> NDArray[np.float64]:
    """A bag of words, each a fixed random direction: equal texts and equal word sets have equal vectors."""
    sums = [sum((_word_vector(w) for w in sorted(t.lower().split())), np.zeros(24)) for t in notes["text"]]
    return np.array(sums).reshape(len(notes), 24)


@given(_rows)
@settings(max_examples=30)
def test_every_record_id_comes_out_exactly_once_on_its_own_side(rows: list[tuple[str, str, str]]) -> None:
    notes = _notes(rows)
    patterns = discover_patterns(notes, _vectors(notes))
    for polarity in ("reject", "accept"):
        chosen = patterns[patterns["polarity"] == polarity]
        found = [record_id for ids in chosen["record_ids"] for record_id in ids]
        assert sorted(found) == sorted(notes.loc[notes["polarity"] == polarity, "record_id"])
    assert patterns["count"].tolist() == [len(ids) for ids in patterns["record_ids"]]


@given(_rows, st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_order_of_the_rows_changes_nothing(rows: list[tuple[str, str, str]], random: Random) -> None:
    notes = _notes(rows)
    order = list(range(len(notes)))
    random.shuffle(order)
    vectors = _vectors(notes)
    pd.testing.assert_frame_equal(
        discover_patterns(notes, vectors), discover_patterns(notes.iloc[order], vectors[order])
    )


@given(_rows, st.integers(0, 2**16))
@settings(max_examples=60)
def test_noise_in_the_last_digits_of_the_vectors_changes_nothing_that_is_seen(
    rows: list[tuple[str, str, str]], seed: int
) -> None:
    notes = _notes(rows)
    vectors = _vectors(notes)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1.0)
    noise = 1e-6 * np.random.default_rng(seed).normal(size=vectors.shape)
    seen = ["pattern_id", "name", "description", "record_ids", "examples", "keywords"]
    pd.testing.assert_frame_equal(
        stage.discover_patterns(notes, vectors, n_resamples=0)[seen],
        stage.discover_patterns(notes, vectors + noise, n_resamples=0)[seen],
    )


@given(_rows)
@settings(max_examples=20)
def test_identical_notes_of_a_side_stay_together(rows: list[tuple[str, str, str]]) -> None:
    notes = _notes(rows + [(f" {text.upper()}. ", polarity, "dev") for text, polarity, _ in rows])
    patterns = discover_patterns(notes, _vectors(notes.assign(text=notes["text"].map(normalise_note))))
    home = {
        record_id: pattern_id
        for pattern_id, ids in zip(patterns["pattern_id"], patterns["record_ids"], strict=True)
        for record_id in ids
    }
    for i in range(len(rows)):
        assert home[f"r{i}"] == home[f"r{i + len(rows)}"]


@given(_rows)
@settings(max_examples=20)
def test_notes_outside_train_shape_no_pattern(rows: list[tuple[str, str, str]]) -> None:
    notes = _notes(rows)
    train = notes[notes["split"] == "train"]
    told = ["pattern_id", "name", "description", "examples", "keywords", "train_record_ids"]
    whole = discover_patterns(notes, _vectors(notes))
    alone = discover_patterns(train, _vectors(train))
    whole = whole[~whole["is_unclustered"]].sort_values("pattern_id")[told]
    alone = alone[~alone["is_unclustered"]].sort_values("pattern_id")[told]
    pd.testing.assert_frame_equal(whole.reset_index(drop=True), alone.reset_index(drop=True))


def test_notes_without_any_in_train_are_all_unclustered() -> None:
    notes = _notes([("rude tone", "reject", "dev"), ("rude tone", "reject", "test")])
    patterns = discover_patterns(notes, _vectors(notes))
    assert patterns["pattern_id"].tolist() == ["unclustered-reject"]
    assert patterns["train_record_ids"].map(list).tolist() == [[]]


def test_two_records_with_the_same_note_are_a_pattern() -> None:
    notes = _notes([("rude tone", "reject", "train"), ("Rude tone.", "reject", "train")])
    patterns = discover_patterns(notes, _vectors(notes.assign(text="rude tone")))
    assert patterns["count"].tolist() == [2]
    assert not patterns["is_unclustered"].any()


def test_wrong_input_is_refused_with_its_values() -> None:
    notes = _notes([("rude", "reject", "train"), ("slow", "accept", "train")])
    with pytest.raises(InputError, match="2 notes but 1 vectors"):
        discover_patterns(notes, _vectors(notes)[:1])
    with pytest.raises(InputError, match="1 record ids repeat"):
        discover_patterns(notes.assign(record_id="r0"), _vectors(notes))
    with pytest.raises(InputError, match=r"unknown polarities \['meh'\]"):
        discover_patterns(notes.assign(polarity="meh"), _vectors(notes))


def test_many_notes_are_fitted_on_a_sample_and_all_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stage, clustering):
        monkeypatch.setattr(module, "MAX_SMALL", 100)
        monkeypatch.setattr(module, "MAX_SAMPLE", 300)
    rng = np.random.default_rng(0)
    home = np.arange(400) % 8
    vectors = np.eye(24)[home] + 0.1 * rng.normal(size=(400, 24))
    notes = _notes([(f"{_WORDS[h]} {i}", "reject", "train") for i, h in enumerate(home)])
    patterns = discover_patterns(notes, vectors)
    assert set(patterns["method"]) == {"hdbscan"}
    assert sorted(i for ids in patterns["record_ids"] for i in ids) == sorted(notes["record_id"])
    clustered = patterns[~patterns["is_unclustered"]]
    assert len(clustered) == 8
    assert (clustered["stability"] > 0.8).all()
    assert clustered["count"].sum() > 390
