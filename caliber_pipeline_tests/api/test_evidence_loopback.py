"""The whole pipeline over HTTP: good, lying, partial and failing replies of a language model on loopback."""

import json
from collections.abc import Mapping

import pytest
from pydantic import SecretStr

from caliber_pipeline.api.dedupers import InMemoryDeduper
from caliber_pipeline.api.discovery import PatternDiscovery
from caliber_pipeline.api.discovery_results import ClusteringMethod, EvidenceItem
from caliber_pipeline.api.evidence import EvidenceOptions, EvidencePipeline, PipelineResult
from caliber_pipeline.core.errors import JudgeError
from caliber_pipeline.judges.openai_language_model import OpenAILanguageModel
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.stores.learning_sinks import InMemorySink
from caliber_pipeline_tests.api.test_evidence import OPTIONS, FixedClusterer, _evidence, _reply
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback

GOOD = _reply().model_dump_json()
RUDE = _reply(title="Be kind", supporting_item_ids=["t0", "t1"]).model_dump_json()
FEES, TONE = "Theme: Wrong fees", "Theme: Rude"


def _model(base_url: str, **changes: object) -> OpenAILanguageModel:
    settings: dict[str, object] = {"model": "m", "base_url": base_url, "api_key": SecretStr("k"), "max_retries": 1}
    return OpenAILanguageModel(OpenAIJudgeSettings(**settings | changes))  # type: ignore[arg-type]


def _run(replies: Mapping[str, str], errors: Mapping[str, tuple[int, str]] | None = None) -> PipelineResult:
    sources = [EvidenceItem(i.id, i.text, i.metadata, source_ref=f"call-{i.id}") for i in _evidence()]
    with loopback(LoopbackConfig(replies=dict(replies), errors=dict(errors or {}))) as server:
        pipeline = EvidencePipeline(
            model=_model(server.base_url),
            clusterer=FixedClusterer(),
            deduper=InMemoryDeduper(),
            sink=InMemorySink(),
            options=OPTIONS,
        )
        return pipeline.run_sync(sources)


def test_good_replies_become_stored_learnings() -> None:
    result = _run({FEES: GOOD, TONE: f"```json\n{RUDE}\n```"})
    assert [learning.title for learning in result.learnings] == ["Check fees", "Be kind"]
    assert len(result.sink_ids) == 2
    assert (result.failures, result.validation_repairs) == ((), ())
    assert result.learnings[0].provenance["writer"].endswith("/m")


def test_lying_replies_lose_what_they_made_up() -> None:
    made_up = _reply(supporting_item_ids=["f0", "f1", "call-f2", "Z9"]).model_dump_json()
    result = _run({FEES: made_up, TONE: _reply(title="Ghosts", supporting_item_ids=["ghost"]).model_dump_json()})
    assert [learning.supporting_item_ids for learning in result.learnings] == [("f0", "f1")]
    assert result.filtered_count == 1
    assert "'Ghosts': dropped, no supporting id is in the cluster" in result.validation_repairs


def test_a_partial_reply_costs_its_own_cluster_alone() -> None:
    result = _run({FEES: GOOD[: len(GOOD) // 2], TONE: RUDE})
    assert [learning.title for learning in result.learnings] == ["Be kind"]
    assert len(result.failures) == 1
    assert result.failures[0].startswith("'Wrong fees' (3 items): ")


def test_a_failing_call_costs_its_own_cluster_alone() -> None:
    result = _run({FEES: GOOD}, {TONE: (400, "content_filter")})
    assert [learning.title for learning in result.learnings] == ["Check fees"]
    assert [failure.split(":")[0] for failure in result.failures] == ["'Rude' (3 items)"]


def test_the_same_title_twice_is_stored_once() -> None:
    result = _run({FEES: GOOD, TONE: _reply(supporting_item_ids=["t0", "t1"]).model_dump_json()})
    assert (len(result.learnings), result.deduplicated_count) == (1, 1)


def test_discovery_by_llm_over_http_is_held_to_the_notes() -> None:
    themes = {"themes": [{"name": "Fees", "description": "Wrong fees."}, {"name": "Tone", "description": "Rude."}]}
    given = {"n0": "Fees", "n1": "Fees", "n2": "Tone", "n3": "Tone", "n9": "Fees", "n4": None}
    assigned = {"assignments": [{"id": key, "theme": theme} for key, theme in given.items()]}
    replies = {"List the recurring themes": json.dumps(themes), "Give each note": json.dumps(assigned)}
    notes = ["a wrong fee", "bad fee", "cold tone", "rude tone", "wet parcel"]
    items = [{"id": f"r{i}", "score": 0, "notes": note} for i, note in enumerate(notes)]
    with loopback(LoopbackConfig(replies=replies)) as server:
        result = PatternDiscovery(model=_model(server.base_url)).discover_sync(items, ClusteringMethod.LLM)
    assert {p.category: p.record_ids for p in result.patterns} == {"Fees": ("r0", "r1"), "Tone": ("r2", "r3")}
    assert result.uncategorized == ("r4",)
    assert result.n_invented_ids == 1


def test_a_refused_key_ends_the_discovery_with_a_reason() -> None:
    with loopback(LoopbackConfig(api_key="right")) as server, pytest.raises(JudgeError):
        PatternDiscovery(model=_model(server.base_url)).discover_sync([{"id": 1, "score": 0, "notes": "rude"}], "llm")


def test_the_whole_way_by_llm_keeps_what_is_true_of_lying_partial_and_failing_replies() -> None:
    # clustering invents n9 and leaves n4 out twice; the learning on fees invents an id, the one on tone is refused
    themes = {"themes": [{"name": "Fees", "description": "Wrong fees."}, {"name": "Tone", "description": "Rude."}]}
    given = {"n0": "Fees", "n1": "Fees", "n2": "Tone", "n3": "Tone", "n9": "Fees"}
    assigned = {"assignments": [{"id": key, "theme": theme} for key, theme in given.items()]}
    learning = _reply(supporting_item_ids=["i0", "i1", "i7"]).model_dump_json()
    replies = {
        "List the recurring themes": json.dumps(themes),
        "Give each note": json.dumps(assigned),
        "Theme: Fees": learning,
    }
    texts = ["a wrong fee", "bad fee", "cold tone", "rude tone", "wet parcel"]
    items = [EvidenceItem(f"i{i}", text) for i, text in enumerate(texts)]
    sink = InMemorySink()
    with loopback(LoopbackConfig(replies=replies, errors={"Theme: Tone": (400, "content_filter")})) as server:
        pipeline = EvidencePipeline(
            model=_model(server.base_url), sink=sink, options=EvidenceOptions(method=ClusteringMethod.LLM)
        )
        result = pipeline.run_sync(items)
    assert result.clustering_result.method == "llm"
    # n9 in the first reply; all five in the second, which was asked about n4 alone
    assert result.clustering_result.n_invented_ids == 1 + 5
    assert result.clustering_result.uncategorized == ("i4",)
    assert [kept.supporting_item_ids for kept in result.learnings] == [("i0", "i1")]
    assert [failure.split(" ")[0] for failure in result.failures] == ["'Tone'"]
    assert list(sink.learnings) == list(result.sink_ids)
