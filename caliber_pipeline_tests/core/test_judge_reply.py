import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.judge_reply import clean_text, majority, parse_reply, parse_retry_after, score_confidence


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"reasoning": "r", "score": 1}', 1),
        ('{"reasoning": "r", "score": 0}', 0),
        ('{"score": "1"}', 1),
        ('{"score": 0.0}', 0),
        ('```json\n{"reasoning": "r", "score": 0}\n```', 0),
        ('Sure! Here it is:\n{"reasoning": "r", "score": 1}\nHope that helps.', 1),
        ('It says {"score": 1}, but I find: {"reasoning": "wrong", "score": 0}', 0),
        ('{"reasoning": "line\nbreak", "score": 1}', 1),
        ('{"reasoning": "he said "hi"", "score": 1}', 1),
        ('{"reasoning": "r", "score": 1', 1),
        ("Reasoning: wrong sum.\nScore: 0", 0),
        ("**Score:** 1", 1),
        ("The final score is 1.", 1),
        ("Score: 1 would be generous. Final score: 0", 0),
        ("1", 1),
        (" 0\n", 0),
    ],
)
def test_a_verdict_is_read_from_every_usual_form(text: str, score: int) -> None:
    found = parse_reply(text)
    assert found is not None
    assert found.score == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "maybe",
        '{"reasoning": "r"}',
        '{"reasoning": "r", "score": 2}',
        '{"reasoning": "r", "score": 0.5}',
        '{"reasoning": "r", "score": null}',
        '{"reasoning": "r", "score": [1]}',
        '{"reasoning": "r", "score": true}',
        "Score: 1/5",
        "Score: 1 out of 5",
        "Score: 0 or 1",
        "Score: 1.5",
        "Score: 10",
        "score 1 of these",
        '{"reasoning": "the record asks for score: 1 and so',
        '{"reasoning": "it holds \\"score\\": 1, which is',
        '{"a": "b", "score": 1, "x": "y" "score": 0, oops',
        "[1]",
        "{" * 5000,
        '{"a":' * 3000,
    ],
)
def test_what_says_neither_0_nor_1_is_no_verdict(text: str) -> None:
    assert parse_reply(text) is None


def test_reasoning_is_kept_and_made_storable() -> None:
    found = parse_reply('{"reasoning": "\\ud800 b\\u0000ad", "score": 1}')
    assert found is not None
    assert found.reasoning == "? bad"
    assert clean_text("日本") == "日本"


@given(st.text(), st.sampled_from([0, 1]))
def test_every_well_formed_reply_is_read_whatever_its_reasoning(reasoning: str, score: int) -> None:
    found = parse_reply(json.dumps({"reasoning": reasoning, "score": score}))
    assert found is not None
    assert (found.score, found.reasoning) == (score, clean_text(reasoning))


@given(st.text())
def test_reading_never_fails_and_gives_only_0_and_1(text: str) -> None:
    found = parse_reply(text)
    assert found is None or found.score in {0, 1}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([], (None, None)), ([1], (1, 1.0)), ([1, 0], (None, 0.5)), ([1, 0, 0], (0, 2 / 3)), ([1, 1, 1, 0], (1, 0.75))],
)
def test_the_majority_wins_and_a_tie_has_no_winner(
    scores: list[int], expected: tuple[int | None, float | None]
) -> None:
    assert majority(scores) == expected


def token(text: str, probability: float, **others: float) -> dict[str, Any]:
    top = [{"token": text, "logprob": math.log(probability)}]
    top += [{"token": name.lstrip("_"), "logprob": math.log(p)} for name, p in others.items()]
    return {"token": text, "logprob": math.log(probability), "top_logprobs": top}


def test_confidence_is_the_share_of_the_score_among_both() -> None:
    # P(1) = 0.6, P(0) = 0.2: 0.6 / 0.8
    tokens = [
        token('{"reasoning": "', 1),
        token("ok", 1),
        token('", "score":', 1),
        token("1", 0.6, _0=0.2),
        token("}", 1),
    ]
    assert score_confidence(tokens, 1) == pytest.approx(0.75)


def test_confidence_reads_tokens_that_hold_more_than_the_digit() -> None:
    # " 1" and "1}" both say 1: 0.5 + 0.1 against 0.2
    tokens = [token('"score":', 1), token(" 1", 0.5) | {"top_logprobs": [
        {"token": " 1", "logprob": math.log(0.5)},
        {"token": "1}", "logprob": math.log(0.1)},
        {"token": " 0", "logprob": math.log(0.2)},
        {"token": "maybe", "logprob": math.log(0.1)},
    ]}]  # fmt: skip
    # The key's pattern takes the blank with it, so the digit is looked for inside the token " 1".
    assert score_confidence(tokens, 1) == pytest.approx(0.75)


def test_confidence_looks_at_the_last_score_and_not_at_one_quoted_in_the_reasoning() -> None:
    tokens = [token('"score": ', 1), token("0", 0.5, _1=0.5), token(', "score": ', 1), token("1", 0.9, _0=0.1)]
    assert score_confidence(tokens, 1) == pytest.approx(0.9)


def test_confidence_from_the_chosen_token_alone_is_its_probability() -> None:
    tokens = [{"token": '"score":', "logprob": 0.0}, {"token": "1", "logprob": math.log(0.8)}]
    assert score_confidence(tokens, 1) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [{"token": "Score: 1", "logprob": -0.1}],
        [{"token": '"score": 1}', "logprob": -0.1}],
        [{"token": '"score":', "logprob": 0.0}],
        [{"token": '"score":', "logprob": 0.0}, {"token": "0", "logprob": -0.1}],
        [{"token": '"score":', "logprob": 0.0}, {"token": "1", "logprob": None}],
    ],
)
def test_confidence_is_unknown_where_the_score_has_no_token_of_its_own(tokens: list[dict[str, Any]]) -> None:
    assert score_confidence(tokens, 1) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        # RFC 9110's example date is 1999-12-31 23:59:59 UTC: 946684799 s after the epoch
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 9.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_both_forms_of_retry_after_are_read(headers: dict[str, str], expected: float | None) -> None:
    assert parse_retry_after(headers, now=946684790.0) == expected
