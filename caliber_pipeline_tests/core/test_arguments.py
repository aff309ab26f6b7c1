"""Wrong arguments at the doors of the Python API: one line that says what is wrong and what to give."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import caliber_pipeline as cp
from caliber_pipeline.core.arguments import ITEMS, NUMBER, PATH, SHARE, accepts, show
from caliber_pipeline_tests.api.clause_judge import make_flawed_rows

ROWS = make_flawed_rows(8)
CONFIG = cp.EvaluationConfig("be right", llm_provider="recorded")
ANY: Any = None  # what a type checker would refuse


def session() -> cp.CalibrationSession:
    given = cp.CalibrationSession()
    given.upload_records(ROWS)
    return given


def evaluated() -> cp.CalibrationSession:
    given = session()
    given.evaluate_sync("be right", llm_provider="recorded")
    return given


WRONG: dict[str, tuple[Callable[[Any], object], object, str]] = {
    "a path": (lambda x: cp.UploadHandler().from_csv(x), None, "path is None; give a path"),
    "a session's path": (lambda x: cp.CalibrationSession().upload_csv(x), ["a"], r"path is \['a'\]; give a path"),
    "load": (lambda x: cp.CalibrationSession.load(x), 5, "path is 5; give a path"),
    "from_assets": (lambda x: cp.CalibrationSession.from_assets(x), None, "directory is None"),
    "export": (lambda x: session().export(x), None, "directory is None"),
    "a frame": (lambda x: cp.UploadHandler().from_dataframe(x), ROWS, "got a list; give a pandas DataFrame"),
    "records": (lambda x: cp.UploadHandler().from_records(x), None, "got NoneType among the records"),
    "text as records": (lambda x: cp.AnnotationManager(x), "r1", "records is 'r1'; give a list"),
    "an index": (lambda x: cp.AnnotationManager(ROWS).get_record(x), "1", "index is '1'; give a whole number"),
    "a severity": (
        lambda x: cp.AnnotationManager(ROWS).annotate("r000", 1, severity=x),
        "bad",
        "severity is 'bad'; give a number, or None",
    ),
    "a saved manager": (lambda x: cp.AnnotationManager.from_dict(x), {}, r"data is {}; give what to_dict returned"),
    "a judge": (lambda x: cp.CalibrationSession(judge=x), "gpt-4o", "judge is 'gpt-4o'; give a judge, or None"),
    "examples": (
        lambda x: session().evaluate_sync("a", examples=x),
        5,
        "examples is 5; give a list of records or of record ids",
    ),
    "a callback": (
        lambda x: cp.EvaluationRunner(CONFIG).run_sync(ROWS, on_progress=x),
        True,
        "on_progress is True; give a function, or None",
    ),
    "a provider": (lambda x: session().evaluate_sync("a", "m", x), 5, "provider is 5; give a text, or None"),
    "rounds": (lambda x: session().iterate_sync(max_iterations=x), None, "max_iterations is None; give a whole number"),
    "a target": (lambda x: session().iterate_sync(kappa_target=x), "high", "kappa_target is 'high'; give a number"),
    "a method": (lambda x: session().discover_patterns_sync(x), None, "method is None; give a text"),
    "max_examples": (lambda x: evaluated().analyze_misalignments_sync(x), None, "max_examples is None"),
    "a count": (lambda x: evaluated().select_examples(x), "six", "count is 'six'; give a whole number"),
    "selected records": (lambda x: cp.ExampleSelector().select(x), None, "items is None; give a list"),
    "an evaluation": (
        lambda x: cp.compare(x, x),
        None,
        "result_a is None; give an evaluation, as evaluate returns it",
    ),
    "a saved evaluation": (lambda x: cp.EvaluationResult.from_dict(x), None, "data is None; give what to_dict"),
    "a data set": (lambda x: cp.CaliberHQ(x, cp.CaliberMetric("c")), None, "dataset is None; give a Dataset"),
    "a metric": (lambda x: cp.CaliberHQ(cp.Dataset([]), x), "c", "metric is 'c'; give a metric"),
    "an exported judge": (lambda x: cp.CalibratedJudge.load(x), None, "path is None"),
    "what is shown": (
        lambda x: cp.JsonCaliberRenderer().render_evaluation(x),
        None,
        "result is None; give what a step returned; None means that it is still to be done",
    ),
    "a table": (
        lambda x: cp.compute_alignment_metrics(x),
        pd.DataFrame({"split": []}),
        "give a DataFrame with the columns split, human_score, llm_score, is_example",
    ),
    "metrics": (lambda x: cp.label_verdict(x, "dev"), None, "metrics is None; give a DataFrame with the columns"),
    "ratings": (lambda x: cp.fit_dawid_skene(x), None, "ratings is None; give what build_ratings returns"),
    "an alpha": (lambda x: cp.run_drift_test([1], 0.9, alpha=x), 5, "alpha is 5; give a share between 0 and 1"),
    "a certificate": (lambda x: cp.run_drift_test([1], x), None, "certified is None; give a number"),
    "a gain": (lambda x: cp.labels_for_gain(x, 0.2), None, "gain is None; give a number"),
    "a confidence": (
        lambda x: cp.estimate_from_random_sample([0, 1] * 20, [0, 1] * 20, [1], confidence=x),
        95,
        "confidence is 95; give a share between 0 and 1",
    ),
    "scores": (lambda x: cp.ConfusionMatrix.from_scores(x, x), [0, 2], r"human scores: \[0, 2\]; give a flat list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_answered_in_one_line(name: str) -> None:
    call, given, message = WRONG[name]
    with pytest.raises(cp.InputError, match=message) as caught:
        call(given)
    assert "\n" not in str(caught.value)


def test_what_fits_goes_through_and_what_does_not_is_shown_shortly() -> None:
    @accepts(path=PATH, share=SHARE.or_none, items=ITEMS)
    def take(path: str, share: float | None = None, *, items: object = ()) -> tuple[str, float | None]:
        return path, share

    assert take("a", 0.5) == ("a", 0.5)
    assert take(path="a", items=iter([1])) == ("a", None)
    assert NUMBER.fits(np.float64(1))
    assert not NUMBER.fits(float("nan"))
    assert show(pd.DataFrame({"a": [1]})) == "of type DataFrame"
    with pytest.raises(
        cp.InputError, match=re.escape("share is 2; give a share between 0 and 1, such as 0.1, or None")
    ):
        take("a", 2)
    with pytest.raises(TypeError, match="missing a required argument: 'path'"):
        take(*ANY or ())


def test_an_undefined_kappa_has_no_words() -> None:
    assert cp.interpret_kappa(float("nan")) == cp.interpret_kappa(None) == "undefined"


def test_a_coroutine_stays_one() -> None:
    assert inspect.iscoroutinefunction(cp.CalibrationSession.iterate)
    assert inspect.iscoroutinefunction(cp.PatternDiscovery.discover)
