"""What the Dagster UI shows of a materialization, beyond what its browser tests look at."""

from typing import Any

import numpy as np
import pandas as pd

from caliber_pipeline.assets.evaluation_metadata import CEILING, show_agreement, show_history
from caliber_pipeline.assets.input_metadata import show_annotators
from caliber_pipeline.assets.pattern_metadata import MAX_SHOWN, show_patterns
from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.annotator_agreement import describe_annotators
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.pattern_map import MAX_POINTS


def rows_of(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - Dagster's table has no public type
    return [record.data for record in value.records]


def annotations(rows: list[tuple[str, str, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["record_id", "annotator", "score"])
    blank = ["notes", "created_at", "severity", "criteria_version", "inclusion_probability"]
    return conform_frame(frame.assign(is_gold=False, **dict.fromkeys(blank)), "annotations")


def test_annotators_are_shown_in_pairs_and_one_by_one() -> None:
    # nia and oto agree on 6 of 8 and each accept half: kappa (0.75 - 0.5) / 0.5 = 0.5
    verdicts = [(1, 1), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0), (1, 0), (0, 1)]
    rows = [(f"r{i}", name, pair[j]) for i, pair in enumerate(verdicts) for j, name in enumerate(("nia", "oto"))]
    shown = show_annotators(describe_annotators(annotations(rows)))
    assert shown["n_annotators"] == 2
    assert rows_of(shown["pairs"]) == [{"annotator": "nia", "other": "oto", "kappa": 0.5, "records": 8}]
    assert [(row["annotator"], row["accepts"]) for row in rows_of(shown["annotators"])] == [("nia", 0.5), ("oto", 0.5)]


def test_one_annotator_agrees_with_nobody() -> None:
    shown = show_annotators(describe_annotators(annotations([("r0", "nia", 1), ("r1", "nia", 0)])))
    assert shown["n_annotators"] == 1
    assert "krippendorff_alpha" not in shown
    assert shown["pairs"].text == "none"
    assert rows_of(shown["annotators"])[0]["finds the good"] == "n/a"
    assert show_annotators(describe_annotators(annotations([])))["n_annotators"] == 0


def test_a_figure_and_its_interval_stay_on_one_line() -> None:
    scored = pd.DataFrame({"split": "dev", "human_score": [1, 0] * 40, "llm_score": [1, 0] * 40, "is_example": False})
    own = compute_alignment_metrics(scored)
    kappa = own[(own["metric"] == "cohen_kappa") & (own["split"] == "dev")]
    metrics = pd.concat([own, *(kappa.assign(metric=name) for name in CEILING)], ignore_index=True)
    metrics.attrs["evaluated_at"] = "2030-01-01T00:00:00+00:00"
    figures = show_agreement("v001", metrics, {}, {}, None, 0.6)["figures_with_intervals"]
    cells = {row["figure"]: row["on dev"] for row in rows_of(figures)}
    # 80 of 80: Wilson's lower end is 80 / (80 + 1.96²) = 0.954, Jeffreys' lies above it
    assert cells["accuracy"] == "1.00\N{NO-BREAK SPACE}[0.95,1.00]"
    assert cells["labels missing"] == "0"


def test_a_map_tells_what_it_leaves_out() -> None:
    n_patterns, n_notes = MAX_SHOWN + 1, 2 * MAX_POINTS + 2
    ids = [f"r{i:05d}" for i in range(n_notes)]
    notes = pd.DataFrame({"record_id": ids, "text": "t", "polarity": "reject"})
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(ids).tolist()
    members = [shuffled[i::n_patterns] for i in range(n_patterns)]
    rows = [
        {"pattern_id": f"p{i:02d}", "name": f"theme {i}", "record_ids": own, "examples": ["e"]}
        for i, own in enumerate(members)
    ]
    patterns = pd.DataFrame(rows).assign(
        polarity="reject",
        is_unclustered=False,
        count=[len(own) for own in members],
        stability=0.9,
    )
    vectors = rng.normal(size=(n_notes, 8))
    picture = show_patterns(notes, vectors, patterns)["map_of_rejects"].value
    assert "1,334 of 4,002 are drawn" in picture  # every third
    assert "Further patterns, and unclustered" in picture
    assert len(picture.encode()) < 200_000


def test_the_history_names_errors_as_the_command_does() -> None:
    columns = ["criteria_version", "evaluated_at", "decision", "dev_cohen_kappa", "dev_accuracy"]
    columns += ["dev_false_positives", "dev_false_negatives", "champion"]
    row = ["v001", pd.Timestamp("2030-01-01", tz="UTC"), "baseline", 0.5, 0.75, 3, 4, "v001"]
    shown = show_history(pd.DataFrame([row], columns=columns))
    assert [(each["FP"], each["FN"]) for each in rows_of(shown["evaluations"])] == [(3, 4)]
