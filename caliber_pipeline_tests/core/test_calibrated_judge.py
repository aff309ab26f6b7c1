"""The certificate: what it supports, and how its model card says so."""

import json
from typing import Any

import pytest

from caliber_pipeline.core.calibrated_judge import (
    JudgeDocument,
    check_kappa,
    find_changes,
    parse_document,
    render_card,
    render_document,
)
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError

DEFINITION = Criteria(criteria="Score 1 if right")


FEW = "only 12 groups: the interval may be too narrow"


def figure(value: float | None, low: float | None, high: float | None, reason: str | None = None) -> dict[str, Any]:
    names = ("cohen_kappa", "accuracy", "precision", "recall", "specificity", "f1_score")
    return {name: {"value": value, "ci_low": low, "ci_high": high, "reason": reason, "n": 80} for name in names}


def document(**changes: Any) -> JudgeDocument:  # noqa: ANN401 - entries of the certificate
    certificate = {
        "issued_at": "2026-01-01",
        "decision": "promoted",
        "decision_reason": "p = 0.001",
        "test": figure(0.7, 0.6, 0.8),
        "dev": figure(0.7, 0.6, 0.8),
        "n_test_looks": 2,
        "labels": {"test": 80, "without_a_verdict": 1},
        "human_ceiling": {"value": 0.75, "ci_low": 0.7, "ci_high": 0.8, "n": 120},
        "examples": "as they are",
        "fingerprints": {"records": "abc", "criteria": DEFINITION.fingerprint},
    }
    abstention = {"threshold": 0.8, "share_decided": 0.5, "risk_bound": 0.09, "reason": None}
    return JudgeDocument(
        criteria_version="v002",
        criteria="Score 1 if right",
        definition=DEFINITION,
        examples=[],
        provider="local",
        model="m",
        sampling=DEFINITION.sampling.model_dump(),
        template_version="1",
        abstention=changes.pop("abstention", abstention),
        certificate={**certificate, **changes},
    )


@pytest.mark.parametrize(
    ("test", "minimum", "is_supported", "reason"),
    [
        (figure(0.7, 0.6, 0.8), 0.6, True, "kappa on test 0.700 (0.600 to 0.800, n = 80) supports 0.6"),
        (figure(0.7, 0.6, 0.8), 0.61, False, "its lower bound does not support 0.61"),
        (figure(None, None, None), 0.1, False, "undefined on 80 records"),
        (figure(0.7, 0.6, 0.8, FEW), 0.1, False, f"(0.600 to 0.800, n = 80) supports nothing: {FEW}; label more"),
        (None, 0.1, False, "no labelled record of test was judged"),
    ],
)
def test_a_minimum_is_supported_by_the_lower_bound_alone(
    test: dict[str, Any] | None, minimum: float, reason: str, *, is_supported: bool
) -> None:
    found, why = check_kappa(document(test=test), minimum)
    assert found is is_supported
    assert reason in why


@pytest.mark.parametrize(
    ("decision", "reason", "shown"),
    [
        ("rejected", "test is sealed, as the version was not promoted", "| test | sealed |"),
        ("undecided", "test is sealed, as the version was not promoted", "| test | sealed |"),
        ("baseline", "no labelled record of test was judged", "| test | no labelled record |"),
        ("promoted", "no labelled record of test was judged", "| test | no labelled record |"),
    ],
)
def test_a_sealed_test_is_told_from_one_without_labels(decision: str, reason: str, shown: str) -> None:
    untested = document(test=None, decision=decision)
    is_supported, why = check_kappa(untested, 0.6)
    assert not is_supported
    assert reason in why
    assert "nothing supports 0.6" in why
    advice = "label more records" if decision in {"baseline", "promoted"} else "check the champion"
    assert advice in why
    assert shown in render_card(untested)


def test_the_card_says_what_is_known() -> None:
    card = render_card(document())
    assert "| test | cohen kappa | 0.700 (substantial) | 0.600 to 0.800 | 80 |" in card
    assert "People agree with each other at kappa 0.750 (0.700 to 0.800) on 120 records." in card
    assert (
        "at least 0.800 may stand (50% of the calibration records): they disagree with people on at most 10 % of them, "
        "at 90 % confidence." in card
    )
    assert "80 test, 1 without a verdict. Test was shown 2 times" in card
    assert "    Score 1 if right" in card


def test_the_card_says_what_is_not_known() -> None:
    nobody = {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    abstention = {"threshold": None, "reason": "the judge gives no confidences"}
    card = render_card(document(test=None, decision="rejected", human_ceiling=nobody, abstention=abstention))
    assert "| test | sealed |" in card
    assert "No record was judged by two people" in card
    assert "No threshold can be guaranteed: the judge gives no confidences." in card


def test_the_card_says_that_an_interval_is_of_few_groups() -> None:
    assert f"| dev | {FEW} | | | |" in render_card(document(dev=figure(0.7, 0.6, 0.8, FEW)))
    assert FEW not in render_card(document())


def test_the_card_shows_the_corrected_kappa_beside_the_raw_one() -> None:
    assert "corrected" not in render_card(document(dev_kappa_corrected=None))
    card = render_card(document(dev_kappa_corrected=0.655))
    assert "| dev | cohen kappa | 0.700 (substantial) |" in card
    assert "Kappa on dev is 0.655 corrected for this version being the best" in card


def test_criteria_that_are_not_those_of_the_certificate_are_found() -> None:
    assert find_changes(document()) == []
    lenient = Criteria(criteria="Score 1 always")
    changed = document().model_copy(update={"definition": lenient, "criteria": lenient.full_text})
    assert find_changes(changed) == ["the criteria or their sampling were changed"]
    assert find_changes(document().model_copy(update={"sampling": {"temperature": 1.0}})) == [
        "the criteria or their sampling were changed"
    ]
    (found,) = find_changes(document().model_copy(update={"criteria": "Score 1 always"}))
    assert "not that of the definition" in found


@pytest.mark.parametrize(
    ("certificate", "lacking"),
    [({}, "test, dev, labels"), ({"test": {}}, "test.cohen_kappa"), ({"test": "good"}, "test.cohen_kappa")],
)
def test_a_certificate_that_lacks_something_is_none(certificate: dict[str, Any], lacking: str) -> None:
    content = json.loads(render_document(document()))
    content["certificate"] = {**content["certificate"], **certificate} if certificate else {}
    with pytest.raises(InputError, match=f"j.json: no calibrated judge .*lacks {lacking}"):
        parse_document(json.dumps(content), source="j.json")
