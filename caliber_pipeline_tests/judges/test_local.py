"""The embedded judge reads what its criteria give it: nothing, clauses, or examples."""

from typing import Any

import pandas as pd
import pytest

from caliber_pipeline.core.criteria import Clause, Criteria, Evidence
from caliber_pipeline.judges.local import LocalJudge, split_sentences
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline_tests.judges.scripted import make_records
from caliber_pipeline_tests.projects import WordEncoder


def judge(
    outputs: dict[str, str], criteria: Criteria | None = None, examples: pd.DataFrame | None = None
) -> dict[Any, Any]:
    shown = make_records({}) if examples is None else examples
    task = JudgeTask(
        make_records(outputs).assign(query="where is my parcel"), criteria or Criteria(criteria="x"), shown
    )
    (verdicts,) = LocalJudge(WordEncoder()).judge(task)
    return verdicts.set_index("record_id").to_dict("index")


def examples(n: int) -> pd.DataFrame:
    texts = {f"e{i}": f"answer {i} {'rude nonsense' if i % 2 else 'parcel arrives soon'}" for i in range(n)}
    return make_records(texts).assign(query="where is my parcel", human_score=[1 - i % 2 for i in range(n)])


def test_without_examples_and_clauses_it_only_tells_whether_the_output_is_about_the_query() -> None:
    verdicts = judge({"on": "where is my parcel", "off": "bananas are yellow"})
    assert {i: v["llm_score"] for i, v in verdicts.items()} == {"on": 1, "off": 0}
    assert verdicts["off"]["llm_reasoning"].startswith("Query and output are not related")
    assert all(0.5 <= v["confidence"] <= 1 for v in verdicts.values())


@pytest.mark.parametrize(("verdict", "score"), [(0, 0), (1, 1)])
def test_a_sentence_near_a_quote_moves_the_verdict_the_clause_s_way(verdict: int, score: int) -> None:
    evidence = Evidence(pattern="secrets", quotes=("send me your password now",))
    criteria = Criteria(criteria="x", clauses=(Clause(text="no secrets", verdict=verdict, evidence=evidence),))
    outputs = {"r": "where is it? send me your password now"}
    assert judge(outputs, criteria)["r"]["llm_score"] == score
    assert "nearest clause: secrets (1.00)" in judge(outputs, criteria)["r"]["llm_reasoning"]


def test_a_clause_without_quotes_is_read_by_its_text() -> None:
    criteria = Criteria(criteria="x", clauses=(Clause(text="mentions bananas"),))
    assert "nearest clause: mentions bananas" in judge({"r": "mentions bananas"}, criteria)["r"]["llm_reasoning"]


def test_examples_teach_it() -> None:
    outputs = {"good": "answer 77 parcel arrives soon", "bad": "answer 78 rude nonsense"}
    verdicts = judge(outputs, examples=examples(20))
    assert {i: v["llm_score"] for i, v in verdicts.items()} == {"good": 1, "bad": 0}
    assert verdicts["bad"]["llm_reasoning"].startswith("Most like example e")
    assert "(rejected)" in verdicts["bad"]["llm_reasoning"]


def test_too_few_examples_of_a_verdict_teach_nothing() -> None:
    one_sided = examples(20).iloc[::2]
    assert judge({"r": "bananas"}, examples=one_sided)["r"]["llm_reasoning"].startswith("Query and output")


def test_an_example_s_own_note_is_no_clue_to_its_verdict() -> None:
    shown = examples(20)
    quotes = tuple(output for output, score in zip(shown["output"], shown["human_score"], strict=True) if score == 0)
    own = tuple(i for i, score in zip(shown["record_id"], shown["human_score"], strict=True) if score == 0)
    evidence = Evidence(record_ids=own, quotes=quotes)
    criteria = Criteria(criteria="x", clauses=(Clause(text="c", evidence=evidence),))
    verdicts = judge({"bad": "answer 78 rude nonsense", "good": "parcel arrives soon"}, criteria, shown)
    assert {i: v["llm_score"] for i, v in verdicts.items()} == {"bad": 0, "good": 1}
    everyone = evidence.model_copy(update={"record_ids": tuple(shown["record_id"])})
    all_own = Criteria(criteria="x", clauses=(Clause(text="c", evidence=everyone),))
    assert len(judge({"r": "x"}, all_own, shown)) == 1


def test_nothing_to_judge_is_no_verdict() -> None:
    assert (
        list(LocalJudge(WordEncoder()).judge(JudgeTask(make_records({}), Criteria(criteria="x"), make_records({}))))
        == []
    )


def test_the_identity_names_the_encoder() -> None:
    local = LocalJudge(WordEncoder())
    assert local.identity(Criteria(criteria="x")) == {"provider": "local", "model": "words-32", "rules": 1}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three", ["One.", "Two!", "Three"]),
        ("a line\n\n- another", ["a line", "- another"]),
        ("£4.50 e.g. this", ["£4.50 e.g.", "this"]),
        (" ", [" "]),
    ],
)
def test_sentences_end_at_stops_and_lines(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences
