"""The evidence pipeline: every step seen to do its work, and what falls out counted."""

import io
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from rich.console import Console

from caliber_pipeline.api.dedupers import EmbeddingDeduper, InMemoryDeduper
from caliber_pipeline.api.discovery import DiscoveryOptions
from caliber_pipeline.api.discovery_results import DiscoveredPattern, EvidenceItem, PatternDiscoveryResult
from caliber_pipeline.api.evidence import EvidenceOptions, EvidencePipeline
from caliber_pipeline.api.evidence_parts import LearningReply, build_learning_prompt
from caliber_pipeline.api.pattern_display import display_learnings, display_patterns, display_pipeline_result
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.evidence_metadata import MetadataConfig, is_pii_key
from caliber_pipeline.core.learnings import (
    Enrichment,
    LearningArtifact,
    ThemeEvidence,
    normalise_tags,
    validate_learning,
)
from caliber_pipeline.stores.learning_sinks import InMemorySink, JsonlSink, ParquetSink
from caliber_pipeline_tests.api.scripted_model import ScriptedModel
from caliber_pipeline_tests.api.test_discovery import WordEncoder

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
OPTIONS = EvidenceOptions(discovery=DiscoveryOptions(n_resamples=2))


def _evidence() -> list[EvidenceItem]:
    """Fees from three sources, tone from one, and one item alone."""
    fees = [EvidenceItem(f"f{i}", "wrong fee quoted", {"channel": "chat"}, f"call-{i}") for i in range(3)]
    tone = [EvidenceItem(f"t{i}", "rude reply", source_ref="call-9") for i in range(3)]
    return [*fees, *tone, EvidenceItem("x", "parcel wet")]


class FixedClusterer:
    """Two clusters and one item alone, whatever the texts say; the first holds an id that nobody sent."""

    async def cluster(self, evidence: Sequence[EvidenceItem]) -> PatternDiscoveryResult:
        self.seen = list(evidence)
        ids = {prefix: tuple(e.id for e in evidence if e.id[0] == prefix) for prefix in "ft"}
        fees = DiscoveredPattern("Wrong fees", "Fees.", 4, (*ids["f"], "ghost"), keywords=("fee", "wrong"))
        return PatternDiscoveryResult((fees, DiscoveredPattern("Rude", "Tone.", 3, ids["t"])), ("x",))


def _pipeline(**changes: object) -> EvidencePipeline:
    parts: dict[str, object] = {"clusterer": FixedClusterer(), "options": OPTIONS, "now": lambda: NOON} | changes
    return EvidencePipeline(**parts)  # type: ignore[arg-type]


def _reply(**changes: object) -> LearningReply:
    reply = LearningReply(
        title="Check fees",
        content="Fees were wrong.",
        tags=["Fees", "fees", "Wrong Policy!"],
        confidence=0.9,
        supporting_item_ids=["f0", "f1", "f2"],
        recommended_actions=["Compare with the fee table."],
    )
    return reply.model_copy(update=changes)


def test_without_a_model_learnings_come_from_keywords_and_notes() -> None:
    sink = InMemorySink()
    result = _pipeline(sink=sink).run_sync(_evidence())
    (learning,) = result.learnings  # the three rude replies are one source, so they do not recur
    assert learning.title == "Wrong fees"
    assert "wrong fee quoted" in learning.content
    assert learning.tags == ("fee", "wrong")
    assert learning.supporting_item_ids == ("f0", "f1", "f2")
    assert learning.provenance["sources"] == ["call-0", "call-1", "call-2"]
    assert learning.provenance["writer"] == "keywords"
    assert learning.provenance["created_at"] == "2026-01-02T12:00:00+00:00"
    assert result.filtered_count == 1
    assert sink.learnings == dict(zip(result.sink_ids, result.learnings, strict=True))


def test_the_packaged_way_clusters_and_accounts_for_every_id() -> None:
    result = EvidencePipeline(encoder=WordEncoder(), options=OPTIONS).run_sync(_evidence())
    found = result.clustering_result
    assert sorted([i for p in found.patterns for i in p.record_ids] + list(found.uncategorized)) == sorted(
        item.id for item in _evidence()
    )
    assert result.learnings


def test_clusters_below_the_threshold_are_dropped_and_counted() -> None:
    result = _pipeline(options=replace(OPTIONS, recurrence_threshold=4)).run_sync(_evidence())
    assert result.learnings == ()
    assert result.filtered_count == 2
    with pytest.raises(InputError, match="recurrence_threshold is 0"):
        _pipeline(options=replace(OPTIONS, recurrence_threshold=0))


def test_a_model_writes_and_is_held_to_the_cluster() -> None:
    reply = _reply(supporting_item_ids=["f0", "ghost", "f2", "x"], recommended_actions=[" "])
    result = _pipeline(model=ScriptedModel(lambda *_: reply)).run_sync(_evidence())
    (learning,) = result.learnings
    assert learning.supporting_item_ids == ("f0", "f2")
    assert learning.confidence == 0.69
    assert learning.tags == ("fees", "wrong_policy")
    assert learning.provenance["writer"] == "scripted/model"
    assert len(result.validation_repairs) == 2 + 2  # the rude cluster's reply cites no id of its own and is dropped
    assert result.filtered_count == 1


def test_one_failing_cluster_does_not_end_the_others() -> None:
    def answer(prompt: str, _: type[BaseModel]) -> BaseModel | str:
        return "{broken" if "Rude" in prompt else _reply()

    result = _pipeline(model=ScriptedModel(answer)).run_sync(_evidence())
    assert [learning.title for learning in result.learnings] == ["Check fees"]
    assert result.failures == ("'Rude' (3 items): not a LearningReply",)


def test_private_data_reaches_neither_model_nor_sink() -> None:
    private = [replace(i, text=f"{i.text} jo@example.org 4111 1111 1111 1111") for i in _evidence()]
    private = [replace(i, metadata={"email": "jo@example.org", "note": "key sk-abcdef1234567890"}) for i in private]
    model, sink, clusterer = ScriptedModel(lambda *_: _reply()), InMemorySink(), FixedClusterer()
    _pipeline(model=model, clusterer=clusterer).run_sync(private)
    _pipeline(sink=sink, clusterer=clusterer).run_sync(private)
    seen = json.dumps([model.prompts, [e.text for e in clusterer.seen], [v.to_dict() for v in sink.learnings.values()]])
    assert "[EMAIL]" in seen
    assert "note: key [TOKEN]" in seen
    assert not any(secret in seen for secret in ("example.org", "4111", "sk-abc"))


def test_metadata_go_where_they_are_wanted() -> None:
    model, clusterer = ScriptedModel(lambda *_: _reply()), FixedClusterer()
    _pipeline(model=model, clusterer=clusterer).run_sync(_evidence())
    assert "channel: chat" in model.prompts[0]
    assert "channel" not in clusterer.seen[0].text
    swapped = replace(OPTIONS, metadata=MetadataConfig(in_clustering=True, in_distillation=False))
    model = ScriptedModel(lambda *_: _reply())
    _pipeline(model=model, clusterer=clusterer, options=swapped).run_sync(_evidence())
    assert clusterer.seen[0].text == "wrong fee quoted\nchannel: chat"
    assert "channel" not in model.prompts[0]


def test_metadata_are_limited_by_key_number_and_length() -> None:
    metadata = {"customerName": "Jo", "user_email": "x", "b": "long" * 9, "a": 1, "c": None, "ip": "::1"}
    assert MetadataConfig(max_value_length=4).select(metadata) == {"a": "1", "b": "long"}
    assert MetadataConfig(max_keys=1).select(metadata) == {"a": "1"}
    assert MetadataConfig(denied_keys=frozenset("a")).select(metadata) == {"b": "long" * 9}
    assert MetadataConfig(allowed_keys=frozenset({"customerName"})).select(metadata) == {"customerName": "Jo"}
    assert [is_pii_key(k) for k in ("phone_no", "PhoneNo", "tokens_used", "shipping")] == [True, True, False, False]
    assert all(
        is_pii_key(key) for key in ("api_key", "apiKey", "customerEmails", "emails", "E-Mail", "auth", "contact")
    )


def test_enrichment_is_told_and_asks_for_action() -> None:
    found = Enrichment(n_missed=5, n_caught=1, share_other_missed=0.125, q_value=0.03)
    result = _pipeline().run_sync(_evidence(), enrichment=[(frozenset({"f0", "f1", "f2", "z"}), found)])
    (learning,) = result.learnings
    assert "misses it in 5 of 6 records, against 12% elsewhere (q = 0.03)" in learning.content
    assert "judge_blind_spot" in learning.tags
    assert len(learning.recommended_actions) == 2


def test_titles_that_were_seen_are_dropped() -> None:
    deduper = InMemoryDeduper()
    assert len(_pipeline(deduper=deduper).run_sync(_evidence()).learnings) == 1
    again = _pipeline(deduper=deduper).run_sync(_evidence())
    assert (again.learnings, again.deduplicated_count) == ((), 1)


def test_learnings_that_mean_the_same_are_dropped() -> None:
    learnings = [LearningArtifact(t, "fees") for t in ("wrong fee quoted", "Quoted wrong fee", "rude reply")]
    kept = EmbeddingDeduper(0.85, encoder=UnitWords()).select_new(learnings)
    assert [learning.title for learning in kept] == ["wrong fee quoted", "rude reply"]
    same = EmbeddingDeduper(1.0, encoder=UnitWords()).select_new([LearningArtifact("a b c", "d e f g")] * 3)
    assert len(same) == 1
    with pytest.raises(InputError, match=r"threshold is 1\.2"):
        EmbeddingDeduper(1.2)


class UnitWords(WordEncoder):
    """Words as unit vectors."""

    def encode(self, texts: Sequence[str]):  # type: ignore[no-untyped-def]  # noqa: ANN201
        rows = super().encode(texts)
        return rows / (rows**2).sum(axis=1, keepdims=True) ** 0.5


_ids = st.lists(st.sampled_from(["a", "b", "c", "ghost"]), max_size=6)


@given(_ids, st.floats(-1, 2), st.lists(st.sampled_from(["act", " ", ""]), max_size=2))
def test_a_valid_learning_rests_on_its_cluster(ids: list[str], confidence: float, actions: list[str]) -> None:
    draft = LearningArtifact("t", "c", (), confidence, tuple(ids), tuple(actions))
    learning, repairs = validate_learning(draft, {"a", "b", "c"})
    if not set(ids) & {"a", "b", "c"}:
        assert learning is None
        assert repairs
        return
    assert learning is not None
    assert set(learning.supporting_item_ids) == set(ids) - {"ghost"}
    assert 0 <= learning.confidence <= 1
    assert learning.confidence < 0.7 or learning.recommended_actions


@given(st.lists(st.text(max_size=8), max_size=15))
def test_tags_are_few_and_plain(tags: list[str]) -> None:
    found = normalise_tags(tags)
    assert len(found) == len(set(found)) <= 10
    assert all(tag == tag.casefold() and " " not in tag and tag for tag in found)
    assert normalise_tags(found) == found


def _store_in_file(path: str) -> list[str]:
    learning = LearningArtifact("Größe", "x" * 500, tags=("a",))
    return [i for _ in range(20) for i in JsonlSink(path).store([learning, learning])]


def test_jsonl_ids_never_repeat_across_processes_and_lines_do_not_mix(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "learnings.jsonl")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        ids = [i for found in pool.map(_store_in_file, [path] * 2) for i in found]
    stored = JsonlSink(path).load()
    assert len(set(ids)) == len(ids) == 80
    assert set(stored) == set(ids)
    assert stored[ids[0]] == LearningArtifact("Größe", "x" * 500, tags=("a",))


def test_a_line_that_is_no_learning_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    assert JsonlSink(path).load() == {}
    assert JsonlSink(path).store([]) == []
    path.write_text('{"id": 1}\n')
    with pytest.raises(InputError, match=r"l\.jsonl, line 1 is no learning"):
        JsonlSink(path).load()


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text('{"id": "torn", "ti')
    (stored,) = JsonlSink(path).store([LearningArtifact("t", "c")])
    with pytest.raises(InputError, match="line 1 is no learning"):
        JsonlSink(path).load()
    path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8")
    assert list(JsonlSink(path).load()) == [stored]


def test_parquet_files_add_up(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "learnings")
    learning = LearningArtifact("t", "c", ("a", "b"), provenance={"writer": "keywords"})
    ids = sink.store([learning]) + sink.store([learning, learning]) + sink.store([])
    frame = pd.read_parquet(tmp_path / "learnings")
    assert sorted(frame["learning_id"]) == sorted(ids)
    assert list(frame["tags"][0]) == ["a", "b"]
    assert json.loads(frame["provenance"][0]) == {"writer": "keywords"}


def test_what_is_shown_holds_names_counts_and_marks() -> None:
    result = _pipeline().run_sync(_evidence())
    shaky = DiscoveredPattern("Odd [one]", "d", 2, ("a", "b"), ("note",), stability=0.3)
    console = Console(file=io.StringIO(), width=160)
    display_pipeline_result(result, console=console)
    display_patterns([shaky], console=console)
    display_learnings(result.learnings, console=console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("Wrong fees", "Odd [one]", "0.30 unstable", "1 uncategorized", "1 filtered", "3 items"):
        assert text in shown


def test_results_are_ready_for_json() -> None:
    data = json.loads(json.dumps(_pipeline().run_sync(_evidence()).to_dict()))
    assert data["learnings"][0]["title"] == "Wrong fees"
    assert LearningArtifact.from_dict(data["learnings"][0]).tags == ("fee", "wrong")


def test_a_notebook_shows_escaped_html(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    shell = SimpleNamespace(has_trait=lambda name: name == "kernel")
    display = SimpleNamespace(display=shown.append, HTML=lambda html: html)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    result = _pipeline(model=ScriptedModel(lambda *_: "<b>no json</b>")).run_sync(_evidence())
    display_pipeline_result(replace(result, failures=("<script>",)))
    display_patterns([DiscoveredPattern("<b>bold</b>", "d", 1, ("a",))])
    assert "&lt;b&gt;bold&lt;/b&gt;" in shown[-1]
    assert "<p>&lt;script&gt;</p>" in shown
    assert "Wrong fees" in shown[0]


def test_the_packaged_encoder_finds_learnings_that_mean_the_same() -> None:
    titles = ("Check the fee before quoting it", "Verify the fee before you quote it", "Be kind to people in grief")
    kept = EmbeddingDeduper().select_new([LearningArtifact(title, title) for title in titles])
    assert [learning.title for learning in kept] == [titles[0], titles[2]]


def test_a_prompt_tells_what_the_judge_missed() -> None:
    theme = ThemeEvidence("Fees", "d", {"a": "x"}, enrichment=Enrichment(5, 1, None, 0.03))
    assert "missed 5 of 6" in build_learning_prompt(theme)
