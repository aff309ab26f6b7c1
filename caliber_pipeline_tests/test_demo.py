import io
import json

import pytest

from caliber_pipeline.demo import main
from caliber_pipeline.demo_records import demo_annotations, demo_records
from caliber_pipeline.renderers.console import ConsoleCaliberRenderer
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback

STEPS = ("1. Upload.", "2. Annotate.", "3. Evaluate.", "4. Discover patterns.", "5. Analyse.", "6. Optimise.")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CALIBER_PROVIDER", "CALIBER_MODEL", "CALIBER_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> tuple[int, str]:
    file = io.StringIO()
    code = main(arguments, ConsoleCaliberRenderer(file=file, width=100))
    return code, file.getvalue()


@pytest.mark.slow
def test_walks_the_six_steps_without_a_key() -> None:
    code, text = run()

    assert code == 0
    places = [text.index(step) for step in STEPS]
    assert places == sorted(places)
    assert "Agreement of local/all-MiniLM-L6-v2" in text
    assert "On the " in text[places[-1] :]


def test_full_says_what_it_needs() -> None:
    code, text = run("--full")

    assert code == 2
    assert "Set OPENAI_API_KEY" in text


@pytest.mark.slow
def test_full_asks_the_environments_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = '{"summary": "Too lenient.", "findings": [], "recommendations": ["be strict"]}'
    text = "Score 0 where the answer invents anything, otherwise 1."
    proposal = json.dumps({"suggestions": [], "criteria": text, "kept_clauses": [], "new_clauses": []})
    replies = {"State general rules": proposal, "What do they have in common": analysis}
    with loopback(LoopbackConfig(replies=replies, reject_if="team")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")

        code, text = run("--full")

    assert code == 0
    assert "Too lenient." in text
    assert "Rewritten by custom/gpt-4o: " in text


def test_its_records_are_annotated_on_both_sides() -> None:
    ids = [record["record_id"] for record in demo_records()]
    scores = [score for _, score, _ in demo_annotations()]

    assert ids == [record_id for record_id, _, _ in demo_annotations()]
    assert (len(ids), sum(scores)) == (32, 16)
    assert all((note is None) == bool(score) for _, score, note in demo_annotations())
