import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from caliber_pipeline.api.analysis import MisalignmentAnalysis, MisalignmentAnalyzer
from caliber_pipeline.api.evaluation import EvaluationRunner
from caliber_pipeline.api.optimization import OptimizationResult, PromptOptimizer
from caliber_pipeline.api.results import EvaluationConfig
from caliber_pipeline.core.errors import InputError, JudgeError, ReplyError
from caliber_pipeline_tests.api.scripted_model import ScriptedModel
from caliber_pipeline_tests.api.word_encoder import WordEncoder

THEMES = ("The delivery date is wrong", "It invents a discount that we do not give")


def make_items(n_per_theme: int = 4, n_right: int = 6) -> list[dict[str, Any]]:
    """False positives with notes of two themes, then records on which all agree."""
    errors: list[dict[str, Any]] = [
        {"judgment": 0, "score": 1, "notes": f"{theme}, really {'x' * i}", "explanation": "looks good"}
        for theme in THEMES
        for i in range(n_per_theme)
    ]
    right: list[dict[str, Any]] = [
        {"judgment": i % 2, "score": i % 2, "notes": None, "explanation": "fine"} for i in range(n_right)
    ]
    return [{"id": f"r{i:02d}", "query": f"q{i}", "output": f"a{i}", **row} for i, row in enumerate(errors + right)]


@dataclass(frozen=True)
class Verdict:
    record_id: str
    human_score: int
    llm_score: int
    llm_reasoning: str


def refuse(prompt: str, reply: type[BaseModel]) -> str:
    raise AssertionError("nobody should be asked")


def test_aligned_input_needs_no_call() -> None:
    items = [Verdict("1", 1, 1, "ok"), Verdict("2", 0, 0, "no")]
    model = ScriptedModel(refuse)

    analysis = MisalignmentAnalyzer(model=model).analyze_sync(items, "c")
    optimized = PromptOptimizer(model=model).optimize_sync(items, "be right")

    assert analysis.is_aligned
    assert analysis.summary == "Judge and people agree on every record (2); there is nothing to analyse."
    assert not optimized.has_changed
    assert optimized.summary == "Judge and people agree on every record (2); nothing to change."
    assert optimized.optimized_criteria == "be right"


def test_groups_errors_by_themes_without_a_language_model() -> None:
    analysis = MisalignmentAnalyzer(encoder=WordEncoder()).analyze_sync(make_items(), "be right")

    assert len(analysis.false_positives) == 8
    assert analysis.false_negatives == ()
    assert analysis.model is None
    assert sorted(len(finding.record_ids) for finding in analysis.findings) == [4, 4]
    assert "4 of 8 false positives carry such notes" in analysis.findings[0].description
    assert all(text.startswith("Reject where people say: ") for text in analysis.recommendations)
    assert MisalignmentAnalysis.from_dict(json.loads(json.dumps(analysis.to_dict()))) == analysis


def test_errors_without_notes_ask_for_notes() -> None:
    items = [{"id": 1, "judgment": 0, "score": 1}, {"id": 2, "judgment": 1, "score": 0}]

    analysis = MisalignmentAnalyzer(encoder=WordEncoder()).analyze_sync(items)

    assert (len(analysis.false_positives), len(analysis.false_negatives)) == (1, 1)
    assert analysis.recommendations == (
        "Errors that belong to no theme: 2; read them, and note why people decided so.",
    )


def test_holds_the_analysis_to_what_was_shown() -> None:
    def answer(prompt: str, reply: type[BaseModel]) -> str:
        findings = [
            {"title": "dates", "description": "d", "record_ids": ["r00", "r00", "invented"]},
            {"title": "made up", "description": "d", "record_ids": ["nowhere"]},
        ]
        return json.dumps({"summary": "Dates.", "findings": findings, "recommendations": ["mind the dates"]})

    items = make_items()
    items[0]["notes"] = "write to jane.doe@example.com"
    model = ScriptedModel(answer)

    analysis = MisalignmentAnalyzer(model=model, max_examples=8).analyze_sync(items, "be right")

    assert [(f.title, f.record_ids) for f in analysis.findings] == [("dates", ("r00",))]
    assert (analysis.n_invented_ids, analysis.n_shown, analysis.model) == (2, 8, "scripted/model")
    assert "be right" in model.prompts[0]
    assert "jane.doe" not in model.prompts[0]
    assert "r13" not in model.prompts[0]  # the judge is right about it


def test_shows_no_more_errors_than_asked_for() -> None:
    reply = json.dumps({"summary": "s", "findings": [], "recommendations": []})
    model = ScriptedModel(lambda *_: reply)

    analysis = MisalignmentAnalyzer(model=model, max_examples=3).analyze_sync(make_items())

    assert (analysis.n_shown, model.prompts[0].count('"record_id"')) == (3, 3)


def test_proposes_clauses_and_examples_without_a_language_model() -> None:
    result = PromptOptimizer(encoder=WordEncoder(), max_examples=8).optimize_sync(make_items(), "be right", "a judge")

    assert result.strategy == "rules"
    assert len(result.suggestions) == 2
    assert all(len(suggestion.record_ids) == 4 for suggestion in result.suggestions)
    assert "be right\n- Score 0 where a reviewer would object" in result.optimized_criteria
    assert len(result.example_ids) == 8
    assert result.system_prompt == "a judge"
    assert OptimizationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def rewrite(criteria: str, record_ids: Sequence[str] = ("r00",)) -> ScriptedModel:
    suggestion = {
        "aspect": "dates",
        "suggestion": "check them",
        "rationale": "wrong",
        "expected_improvement": "fewer",
        "record_ids": list(record_ids),
    }
    clause = {"text": "Reject a wrong date", "verdict": 0, "record_ids": list(record_ids)}
    reply = {"criteria": criteria, "suggestions": [suggestion], "kept_clauses": [], "new_clauses": [clause]}
    return ScriptedModel(lambda *_: json.dumps(reply))


def optimize(model: ScriptedModel, items: list[dict[str, Any]] | None = None) -> OptimizationResult:
    optimizer = PromptOptimizer(model=model, encoder=WordEncoder(), max_examples=8, instruction="be strict")
    return asyncio.run(optimizer.optimize(items or make_items(), "be right"))


def test_takes_a_rewrite_and_drops_invented_ids() -> None:
    model = rewrite("Score 1 if the dates are right; ask bob@example.com.", ["r00", "r99"])

    result = optimize(model)

    assert result.optimized_criteria.startswith("Score 1 if the dates are right; ask [EMAIL].\n- Reject a wrong date")
    assert (result.strategy, result.model, result.n_invented_ids) == ("rewrite", "scripted/model", 1)
    assert [suggestion.record_ids for suggestion in result.suggestions] == [("r00",), ("r00",)]
    assert (result.version.author, result.version.base, result.version.round) == ("optimizer", "base", 1)
    assert OptimizationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_a_clause_that_rests_on_no_shown_record_falls_out() -> None:
    result = optimize(rewrite("Score 1 if the dates are right", ["r99"]))

    assert result.version.clauses == ()
    assert [suggestion.record_ids for suggestion in result.suggestions] == [()]
    assert result.n_invented_ids == 1
    assert "left aside, being too many or without evidence: 1" in result.summary


def test_asks_the_pipelines_question_once_for_all_errors() -> None:
    model = rewrite("be right")
    items = make_items()
    items[0]["score"], items[0]["judgment"] = 0, 1  # one false negative beside seven false positives

    optimize(model, items)

    (prompt,) = model.prompts
    assert prompt.startswith("be strict\n")
    assert "Keep the main text and settle the edge cases" in prompt  # speaks to both kinds of error
    # 8 errors, and 2 of the 6 on which all agree
    assert prompt.count('"record_id"') == 10


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ("  ", "are blank"),
        ("Score 1 if {{rule}}", "it has gaps to be filled in"),
        ("x" * 20_000, r"it has 20\d\d\d characters, over 12000"),
    ],
)
def test_refuses_unusable_criteria(criteria: str, message: str) -> None:
    with pytest.raises(ReplyError, match=message):
        optimize(rewrite(criteria))


def test_reads_an_evaluation_result() -> None:
    items = make_items()
    result = EvaluationRunner(EvaluationConfig("be right", llm_provider="recorded")).run_sync(items)

    from_result = MisalignmentAnalyzer(encoder=WordEncoder()).analyze_sync(result)

    assert from_result == MisalignmentAnalyzer(encoder=WordEncoder()).analyze_sync(items)


@pytest.mark.parametrize("field", ["id", "notes", "explanation"])
def test_names_what_is_no_text(field: str) -> None:
    item = {"id": "1", "judgment": 0, "score": 1, field: "\ud800"}

    with pytest.raises(InputError, match=r"(record_id|human_notes|llm_reasoning) '\\ud800' is no Unicode text"):
        PromptOptimizer(llm_provider="local").optimize_sync([item], "c")


def test_refuses_what_it_cannot_read() -> None:
    with pytest.raises(InputError, match="max_examples is 0"):
        PromptOptimizer(max_examples=0)
    with pytest.raises(InputError, match="the llm_score of '1' is 7"):
        MisalignmentAnalyzer().analyze_sync([{"id": 1, "judgment": 0, "score": 7}])
    with pytest.raises(InputError, match="1 record ids repeat"):
        MisalignmentAnalyzer().analyze_sync([{"id": 1}, {"id": 1}])
    with pytest.raises(JudgeError, match="no key for provider 'openai'"):
        MisalignmentAnalyzer(llm_provider="openai").analyze_sync([{"id": 1, "judgment": 0, "score": 1}])
    assert MisalignmentAnalyzer().analyze_sync([{"id": 1, "judgment": 0}]).total == 0
