"""What the terminal shows of a finished loop."""

from typing import Any

import pytest

from caliber_pipeline.core.calibration_history import CalibrationSummary
from caliber_pipeline.renderers.calibration import print_summary


def version(name: str, decision: str, corrected: float | None, n_looks: int) -> dict[str, Any]:
    figures = {"accuracy": 0.7, "cohen_kappa": 0.42, "false_positives": 3, "false_negatives": 4}
    return {
        "criteria_version": name,
        "decision": decision,
        "decision_reason": "because",
        "kappa_corrected": corrected,
        "n_test_looks": n_looks,
        "splits": {"dev": figures, "test": None},
    }


def test_the_corrected_kappa_stands_beside_the_raw_one_and_the_looks_at_test_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions = [version("v001", "baseline", None, 1), version("v002", "promoted", 0.405, 2)]
    print_summary(CalibrationSummary("v002", versions, [], None, 10, 0, 0, 0, "out"))
    shown = capsys.readouterr().out
    assert shown.count("corrected for being the best of those compared") == 1
    assert "kappa 0.405" in shown
    assert "Test was looked at for 2 versions on these data" in shown


def test_rejected_rows_are_told_with_the_first_reason(capsys: pytest.CaptureFixture[str]) -> None:
    first = {"rejected_annotations": "line 3: score 'Good' is not 0/1"}
    versions = [version("v001", "baseline", None, 1)]
    print_summary(CalibrationSummary("v001", versions, [], None, 10, 0, 2, 0, "out", first_rejections=first))
    assert (
        "2 rows of the annotations rejected (the first, line 3: score 'Good' is not 0/1): see"
        in capsys.readouterr().out
    )
