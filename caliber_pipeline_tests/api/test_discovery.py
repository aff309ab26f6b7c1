"""Discovery by every method: ids accounted for, replies held to the question, failures told."""

import asyncio
import importlib.util
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import BaseModel

from caliber_pipeline.api.discovery import DiscoveryOptions, PatternDiscovery
from caliber_pipeline.api.discovery_results import ClusteringMethod, EvidenceItem, PatternDiscoveryResult
from caliber_pipeline.api.llm_themes import LLMOptions
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.theme_prompts import NamedTheme, NoteThemes, ThemeList
from caliber_pipeline_tests.api.scripted_model import ScriptedModel

OPTIONS = DiscoveryOptions(n_resamples=2, llm=LLMOptions(batch_size=4, max_themes=3))


class WordEncoder:
    """A bag of words, each a fixed random direction."""

    name = "words"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [sum((self._direction(w) for w in sorted(re.findall(r"\w+", t.lower()))), np.zeros(16)) for t in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), 16)

    def _direction(self, word: str) -> NDArray[np.float64]:
        return np.random.default_rng(list(word.encode())).normal(size=16)


def _annotations(n: int = 12) -> list[dict[str, object]]:
    texts = ["wrong fee quoted", "rude reply", "asks for the card number"]
    notes = [{"record_id": f"r{i:02}", "human_score": 0, "human_notes": f"{texts[i % 3]} {i}"} for i in range(n)]
    return [*notes, {"record_id": "ok", "human_score": 1, "human_notes": "clear"}, {"id": "mute", "judgment": 1}]


def _honest(prompt: str, reply: type[BaseModel]) -> BaseModel | str:
    """Three themes, and each note to the one whose first word it holds."""
    themes = [NamedTheme(name=name, description=f"About {name}.") for name in ("Wrong facts", "Rude", "Asks secrets")]
    if reply is ThemeList:
        return ThemeList(themes=themes)
    words = {"wrong": "Wrong facts", "rude": "Rude", "asks": "asks  SECRETS"}
    lines = [json.loads(line) for line in prompt.splitlines() if line.startswith('{"id"')]
    found = [{"id": line["id"], "theme": words.get(line["note"].split()[0])} for line in lines]
    return json.dumps({"assignments": found})


def _ids(result: PatternDiscoveryResult) -> list[str]:
    return sorted([i for p in result.patterns for i in p.record_ids] + list(result.uncategorized))


_EVERY_ID = sorted(["ok", "mute", *(f"r{i:02}" for i in range(12))])


def test_the_default_method_accounts_for_every_id_and_names_what_ran() -> None:
    result = PatternDiscovery(encoder=WordEncoder(), options=OPTIONS).discover_sync(_annotations())
    assert _ids(result) == _EVERY_ID
    assert result.method == "consensus"
    assert result.requested_method is ClusteringMethod.HDBSCAN
    assert result.total_analyzed == 14
    assert result.without_notes == ("mute",)
    assert {p.polarity for p in result.patterns} == {"reject"}
    assert all(p.count == len(p.record_ids) and p.keywords and p.examples for p in result.patterns)


def test_discovery_is_awaitable_beside_a_running_loop() -> None:
    async def main() -> tuple[PatternDiscoveryResult, PatternDiscoveryResult]:
        discovery = PatternDiscovery(encoder=WordEncoder(), options=OPTIONS)
        return await discovery.discover(_annotations()), discovery.discover_sync(_annotations())

    awaited, called = asyncio.run(main())
    assert awaited == called


@pytest.mark.parametrize("form", ["frame", "mapping", "objects"])
def test_annotations_come_in_the_forms_that_people_have(form: str) -> None:
    items = _annotations()[:12]
    forms: dict[str, Any] = {
        "frame": pd.DataFrame(items),
        "mapping": {str(item["record_id"]): item for item in items},
        "objects": [type("Annotation", (), item) for item in items],
    }
    result = PatternDiscovery(encoder=WordEncoder(), options=OPTIONS).discover_sync(forms[form])
    assert _ids(result) == _EVERY_ID[2:]


def test_annotators_of_one_record_count_as_one_note_of_the_majority() -> None:
    votes = [("a", 0, "rude"), ("a", 0, "RUDE tone"), ("a", 1, "fine"), ("b", 0, "rude"), ("b", 1, "fine")]
    items = [{"record_id": r, "score": s, "notes": n} for r, s, n in votes]
    model = ScriptedModel(_honest)
    PatternDiscovery(model=model).discover_sync(items, ClusteringMethod.LLM)
    assert '"note": "RUDE tone / rude"' in model.prompts[0]
    assert "fine" not in model.prompts[0]


def test_the_llm_method_pages_labels_merges_and_assigns() -> None:
    model = ScriptedModel(_honest)
    result = PatternDiscovery(model=model, options=OPTIONS).discover_sync(_annotations(), "llm")
    assert [(p.category, p.count) for p in result.patterns] == [("Asks secrets", 4), ("Rude", 4), ("Wrong facts", 4)]
    assert result.uncategorized == ("mute", "ok")
    assert (result.method, result.model, result.failures) == ("llm", "scripted/model", ())
    # rejects: 12 notes in batches of 4 are 3 labellings, 1 merge and 3 assignments; the single accept 1 and 1
    assert len(model.prompts) == 9


def test_invented_ids_are_dropped_and_counted_and_missing_ones_asked_for_once_more() -> None:
    def lying(prompt: str, reply: type[BaseModel]) -> BaseModel | str:
        honest = _honest(prompt, reply)
        if reply is not NoteThemes:
            return honest
        found = json.loads(str(honest))["assignments"]
        return json.dumps({"assignments": [*found[1:], {"id": "ghost", "theme": "Rude"}, {"id": "n0", "theme": "Hm"}]})

    result = PatternDiscovery(model=ScriptedModel(lying), options=OPTIONS).discover_sync(_annotations()[:12], "llm")
    # each of 3 batches loses its first note; asked for together again, the first of the 3 is lost once more
    assert result.n_asked_again == 3
    assert len(result.uncategorized) == 1
    # 'ghost' in all 4 replies, 'n0' wherever it was not asked about: in 2 of the 3 batches
    assert result.n_invented_ids == 4 + 2
    assert _ids(result) == _EVERY_ID[2:]


@settings(max_examples=30)
@given(st.data())
def test_whatever_the_model_replies_every_id_comes_out_once(data: st.DataObject) -> None:
    def answer(prompt: str, reply: type[BaseModel]) -> str:
        kind = data.draw(st.sampled_from(["honest", "garbage", "random"]))
        if kind == "garbage":
            return data.draw(st.text(max_size=10))
        if kind == "honest" or reply is ThemeList:
            answered = _honest(prompt, reply)
            return answered if isinstance(answered, str) else answered.model_dump_json()
        ids = st.sampled_from([f"n{i}" for i in range(15)])
        themes = st.sampled_from(["Rude", "rude", "Nonsense", None])
        drawn = data.draw(st.lists(st.fixed_dictionaries({"id": ids, "theme": themes}), max_size=6))
        return json.dumps({"assignments": drawn})

    result = PatternDiscovery(model=ScriptedModel(answer), options=OPTIONS).discover_sync(_annotations(), "LLM")
    assert _ids(result) == _EVERY_ID


def test_a_failing_batch_is_told_and_the_others_stand() -> None:
    def partial(prompt: str, reply: type[BaseModel]) -> BaseModel | str:
        return "no json" if reply is NoteThemes and '"n0"' in prompt else _honest(prompt, reply)

    result = PatternDiscovery(model=ScriptedModel(partial), options=OPTIONS).discover_sync(_annotations()[:12], "llm")
    assert len(result.failures) == 2  # the batch with n0, and the second time it is asked for
    assert len(result.uncategorized) == 4
    assert sum(p.count for p in result.patterns) == 8


def test_private_data_never_reaches_the_model() -> None:
    notes = [{"id": i, "score": 0, "notes": f"rude to jo{i}@example.org, +44 20 7946 001{i}"} for i in range(4)]
    model = ScriptedModel(_honest)
    PatternDiscovery(model=model, encoder=WordEncoder(), options=OPTIONS).discover_sync(notes, "llm")
    PatternDiscovery(model=model, encoder=WordEncoder(), options=OPTIONS).discover_sync(notes, "hybrid")
    assert "[EMAIL]" in model.prompts[0]
    assert not any("example.org" in prompt or "7946" in prompt for prompt in model.prompts)


def test_hybrid_clusters_by_vectors_and_names_by_the_model_where_it_answers() -> None:
    def naming(prompt: str, reply: type[BaseModel]) -> BaseModel | str:
        return "sorry" if "rude" in prompt else NamedTheme(name="Named", description="By the model.")

    by_vectors = PatternDiscovery(encoder=WordEncoder(), options=OPTIONS).discover_sync(_annotations())
    discovery = PatternDiscovery(encoder=WordEncoder(), model=ScriptedModel(naming), options=OPTIONS)
    result = discovery.discover_sync(_annotations(), ClusteringMethod.HYBRID)
    assert result.method == "hybrid:consensus"
    assert [p.record_ids for p in result.patterns] == [p.record_ids for p in by_vectors.patterns]
    assert "Named" in {p.category for p in result.patterns}
    assert result.failures
    assert all(failure.startswith("naming '") for failure in result.failures)


def test_evidence_is_one_group_without_a_side() -> None:
    evidence = [EvidenceItem(f"e{i}", f"late delivery {i % 2}") for i in range(6)]
    result = PatternDiscovery(encoder=WordEncoder(), options=OPTIONS).discover_from_evidence_sync(evidence)
    assert _ids(result) == [f"e{i}" for i in range(6)]
    assert {p.polarity for p in result.patterns} == {None}
    with pytest.raises(InputError, match="6 evidence ids repeat"):
        PatternDiscovery().discover_from_evidence_sync([*evidence, *evidence])


def test_nothing_in_gives_nothing_out() -> None:
    assert PatternDiscovery().discover_sync([]).patterns == ()


def test_results_survive_json() -> None:
    result = PatternDiscovery(encoder=WordEncoder(), options=OPTIONS).discover_sync(_annotations())
    assert PatternDiscoveryResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="HYBRID needs a language model"):
        PatternDiscovery().discover_sync(_annotations(), "hybrid")
    with pytest.raises(InputError, match="unknown clustering method 'kmeans'; take one of HDBSCAN, LLM"):
        PatternDiscovery().discover_sync(_annotations(), "kmeans")
    with pytest.raises(InputError, match="'a' has no human_score"):
        PatternDiscovery().discover_sync([{"id": "a", "notes": "rude"}])


def test_an_absent_bertopic_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'caliber-pipeline\[bertopic\]'"):
        PatternDiscovery(encoder=WordEncoder()).discover_sync(_annotations(), ClusteringMethod.BERTOPIC)


@pytest.mark.slow
def test_bertopic_accounts_for_every_id_and_tells_how_stable_its_topics_are() -> None:
    pytest.importorskip("bertopic")
    notes = [{"id": i, "score": 0, "notes": f"{w} {i}"} for i in range(60) for w in [("rude", "wrong")[i % 2]]]
    options = DiscoveryOptions(n_resamples=2)
    result = PatternDiscovery(encoder=WordEncoder(), options=options).discover_sync(notes, "bertopic")
    assert result.method == "bertopic"
    assert all(pattern.stability is not None and 0 <= pattern.stability <= 1 for pattern in result.patterns)
    assert result.patterns
    assert _ids(result) == sorted(str(i) for i in range(60))
