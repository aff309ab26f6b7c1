"""What is as good as the best counts as the best, and the order decides."""

import numpy as np

from caliber_pipeline.core.ties import TIE, first_best, number_in_order, rank


def test_of_scores_within_a_tie_of_the_best_the_first_is_taken() -> None:
    scores = np.array([[0.2, 0.9 - TIE / 2, 0.9, 0.9 - 2 * TIE], [0.5, 0.4, 0.5 + TIE / 2, 0.0]])
    assert first_best(scores).tolist() == [1, 0]
    assert int(first_best(scores[0])) == 1


def test_ties_keep_their_order_and_do_not_pull_each_other_down() -> None:
    # from 0.5 on: 0.5 and 0.5 - 0.6 ties are tied; 0.5 - 1.2 ties is not, though it is near the second, and leads anew
    scores = np.array([0.1, 0.5 - 1.2 * TIE, 0.5 - 0.6 * TIE, 0.5, 0.9])
    assert rank(scores).tolist() == [4, 2, 3, 1, 0]
    assert rank(scores[:0]).tolist() == []


def test_labels_are_numbered_as_they_come_and_the_unclustered_stay() -> None:
    assert number_in_order(np.array([7, -1, 3, 7, 0, 3])).tolist() == [0, -1, 1, 0, 2, 1]
    assert number_in_order(np.array([-1, -1])).tolist() == [-1, -1]
    assert number_in_order(np.zeros(0, dtype=np.int64)).tolist() == []
