"""Kinds of fault: what they do to vectors, and which cluster they name."""

import numpy as np
import pytest

from caliber_pipeline.core.consensus_clustering import unit
from caliber_pipeline.core.fault_kinds import KINDS, PHRASES, STRETCH, select_kinds, stretch_faults


def test_each_kind_has_as_many_phrases() -> None:
    assert len(set(PHRASES)) == len(PHRASES) == 3 * len(KINDS)


def test_vectors_are_stretched_along_what_the_phrases_differ_in_and_stay_unit() -> None:
    # the phrases differ along the first axis alone; all share 1 on the third
    signs = np.resize([1.0, -1.0], len(PHRASES))
    phrases = np.stack([signs, np.zeros(len(PHRASES)), np.ones(len(PHRASES))], axis=1)
    stretched = stretch_faults(np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]), phrases)
    # (3, 4, 0) becomes (3 * 2, 4, 0) and then of length 1
    assert stretched[0] == pytest.approx(np.array([3 * STRETCH, 4, 0]) / np.hypot(3 * STRETCH, 4))
    assert stretched[1] == pytest.approx([0, 0, 1])


def test_phrases_that_do_not_differ_change_no_direction() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(4, 3)))
    assert stretch_faults(rows, np.ones((len(PHRASES), 3))) == pytest.approx(rows)


def test_a_cluster_is_named_by_the_kind_that_its_notes_agree_on() -> None:
    phrases = np.repeat(np.eye(len(KINDS)), 3, axis=0)
    of = {kind: np.eye(len(KINDS))[i] for i, kind in enumerate(KINDS)}
    agreed = [of["Too long"], of["Too long"], of["Wrong fact"]]
    split = [of["Too short"], of["Wrong fact"], of["Repetition"]]
    labels = np.array([0, 0, 0, 1, 1, 1, -1])
    first, second = select_kinds(np.array([*agreed, *split, of["Flattery"]]), labels, phrases)
    assert first is not None
    assert first.name == "Too long"
    assert first.rows.tolist() == [0, 1]
    assert second is None  # one vote each
