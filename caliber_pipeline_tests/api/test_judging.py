import json

import pytest

from caliber_pipeline.api.judging import DEFAULT_MODEL, default_encoder, find_judge, open_judge, open_language_model
from caliber_pipeline.api.records import Annotation, UploadedRecord
from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.core.errors import InputError, JudgeError
from caliber_pipeline_tests.api.clause_judge import make_flawed_rows
from caliber_pipeline_tests.api.word_encoder import WordEncoder
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback


def test_takes_the_provider_that_was_asked_for() -> None:
    assert find_judge(" OpenAI ", "m") == ("openai", "m")
    assert open_judge("local").provider == "local"
    assert open_judge("recorded").provider == "recorded"
    assert open_language_model("local", "m") is None
    assert open_language_model("recorded", "m") is None
    assert default_encoder() is default_encoder()
    with pytest.raises(JudgeError, match="unknown provider 'nobody'"):
        open_judge("nobody")


def test_without_a_key_it_is_the_embedded_default() -> None:
    assert find_judge(None, DEFAULT_MODEL) == ("local", DEFAULT_MODEL)
    assert open_language_model(None, DEFAULT_MODEL) is None


def test_takes_provider_and_model_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBER_PROVIDER", "ollama")
    monkeypatch.setenv("CALIBER_MODEL", "small")

    assert find_judge(None, DEFAULT_MODEL) == ("ollama", "small")
    assert find_judge(None, "other") == ("ollama", "other")
    model = open_language_model(None, DEFAULT_MODEL)
    assert model is not None
    assert model.name == "ollama/small"


def test_a_session_judges_and_learns_through_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = {
        "summary": "Dates.",
        "findings": [{"title": "dates", "description": "d", "record_ids": ["r000", "nowhere"]}],
        "recommendations": [],
    }
    text = "Score 0 where a date or a price is wrong."
    proposal = {"suggestions": [], "criteria": text, "kept_clauses": [], "new_clauses": []}
    replies = {"What do they have in common": json.dumps(analysis), "State general rules": json.dumps(proposal)}
    with loopback(LoopbackConfig(replies=replies, reject_if="never")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        session = CalibrationSession(encoder=WordEncoder())
        session.upload_records(make_flawed_rows(20))

        result = session.evaluate_sync("be right")
        session.evaluate_sync("be right")

        assert (result.provider, result.model, result.metrics.n) == ("custom", "gpt-4o", 20)
        assert server.stats()["calls"] == 20  # the second evaluation was paid for already
        found = session.analyze_misalignments_sync()
        assert (found.model, found.n_invented_ids, len(found.findings)) == ("custom/gpt-4o", 1, 1)
        assert session.optimize_prompt_sync().optimized_criteria == text
        assert server.stats()["calls"] == 22

        first = session.iterate_sync("be right", max_iterations=1).rounds[0]
        assert {candidate["kind"] for candidate in first.candidates} == {
            "tighten",
            "clarify edge cases",
            "restructure",
            "misalignment_guided",
        }
        assert first.proposal is not None
        assert (first.proposal.model, first.proposal.optimized_criteria) == ("custom/gpt-4o", text)


def test_a_session_with_an_encoder_judges_by_it() -> None:
    session = CalibrationSession(encoder=WordEncoder())
    session.upload_records(make_flawed_rows(6))

    result = session.evaluate_sync("be right", llm_provider="local", examples=session.select_examples(2))

    assert (result.model, len(result.example_ids)) == ("words", 2)
    with pytest.raises(InputError, match="needs a language model"):
        session.discover_patterns_sync("llm")


def test_models_answer_to_the_names_that_people_use() -> None:
    record = UploadedRecord.model_validate({"id": "1", "question": "q", "response": "a", "expected": "e"})
    annotation = Annotation(record_id="1", score=0, notes="  ")

    assert (record.id, record.actual_output, record.expected_output) == ("1", "a", "e")
    assert (annotation.human_score, annotation.human_notes, annotation.annotator) == (0, None, "gold")
