from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.plain_words import describe_champion, labels_in_all


def metrics(cells: tuple[int, int, int, int], split: str = "dev") -> pd.DataFrame:
    """Of the counts of accepts that the judge accepts and rejects, and rejects that it rejects and accepts."""
    human = np.repeat([1, 1, 0, 0], cells)
    llm = np.repeat([1, 0, 0, 1], cells)
    columns: dict[str, Sequence[object] | pd.Series] = {
        "record_id": [f"r{i}" for i in range(len(human))],
        "split": [split] * len(human),
        "human_score": pd.Series(human, dtype="int8[pyarrow]"),
        "llm_score": pd.Series(llm, dtype="int8[pyarrow]"),
        "is_example": [False] * len(human),
        "status": ["scored"] * len(human),
    }
    return compute_alignment_metrics(pd.DataFrame(columns))


def test_says_how_often_the_judge_is_right_and_how_it_errs() -> None:
    # 300 of 400 right: 75 %. People accept 200: always accepting is right on half. FP 40 of 200, FN 60 of 200.
    first, second, _ = describe_champion(metrics((140, 60, 160, 40)), "v002", kappa_target=0.6)

    assert first.startswith("On the 400 answers of dev")
    assert first.endswith("v002 gives people's verdict on 75%; always saying 'accept' would on 50%.")
    assert "lets pass 20% of what people reject" in second
    assert "turns down 30% of what people accept" in second


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ((195, 5, 195, 5), "It agrees with people as well as was asked for"),  # kappa 0.95
        ((162, 38, 162, 38), "It reaches the target 0.6, but these labels allow for less"),  # kappa 0.62
        ((140, 60, 160, 40), "Do not let it decide alone"),  # kappa 0.5
        ((100, 100, 100, 100), "Nothing shows that it beats chance"),  # kappa 0
    ],
)
def test_says_whether_to_rely_on_it(cells: tuple[int, int, int, int], words: str) -> None:
    assert words in describe_champion(metrics(cells), "v001", kappa_target=0.6)[-1]


def test_too_few_labels_decide_nothing_and_more_are_counted_over_all_splits() -> None:
    # of 108 more labels four in ten come to dev: 43.2
    assert labels_in_all(43) == 108

    last = describe_champion(metrics((6, 4, 7, 4)), "v001", kappa_target=0.6)[-1]

    assert last.startswith("These labels are too few to rely on that: label about ")


@pytest.mark.parametrize(("cells", "missing"), [((18, 4, 0, 0), "reject"), ((0, 0, 18, 4), "accept")])
def test_labels_of_one_kind_show_nothing(cells: tuple[int, int, int, int], missing: str) -> None:
    assert describe_champion(metrics(cells), "v001", kappa_target=0.6)[-1].endswith(
        f"label some that people {missing}."
    )


def test_without_an_answer_on_dev_nothing_is_said() -> None:
    (only,) = describe_champion(metrics((3, 3, 3, 3), split="train"), "v001", kappa_target=0.6)
    assert "holds no judged answer" in only
