from typing import Any

import pytest

from caliber_pipeline.core.criteria import Sampling
from caliber_pipeline.judges.dialect import Dialect
from caliber_pipeline.judges.providers import PROVIDERS


def start(provider: str = "openai", logprobs: bool = False, **sampling: Any) -> Dialect:  # noqa: ANN401, FBT
    return Dialect.start(PROVIDERS[provider], "m", Sampling(**sampling), max_output_tokens=100, logprobs=logprobs)


def test_a_request_holds_what_the_sampling_gives_and_nothing_else() -> None:
    body = start(temperature=None).body([])
    assert set(body) == {"model", "messages", "max_completion_tokens", "response_format"}
    body = start(temperature=0.5, top_p=0.9, max_tokens=7, seed=3).body([])
    assert (body["temperature"], body["top_p"], body["max_completion_tokens"], body["seed"]) == (0.5, 0.9, 7, 3)


def test_each_vote_has_a_seed_of_its_own() -> None:
    dialect = start(seed=3, temperature=1, n_votes=3)
    assert [dialect.body([], vote)["seed"] for vote in range(3)] == [3, 4, 5]
    assert "seed" not in start(temperature=1, n_votes=3).body([], 2)


def test_token_probabilities_are_asked_for_only_without_votes() -> None:
    assert start(logprobs=True).body([])["logprobs"] is True
    assert "logprobs" not in start(logprobs=True, n_votes=3, temperature=1).body([])


def test_the_format_steps_down_to_plain_text_and_no_further() -> None:
    dialect: Dialect | None = start()
    forms = []
    while dialect is not None:
        forms.append(dialect.body([]).get("response_format", {}).get("type"))
        dialect = dialect.after_refusal(None, "'response_format' is not supported")
    assert forms == ["json_schema", "json_object", None]


@pytest.mark.parametrize(
    ("parameter", "message", "gone", "added"),
    [
        ("temperature", "Unsupported value: 0 is not supported", {"temperature"}, set()),
        (None, "temperature is not supported with this model", {"temperature"}, set()),
        ("logprobs", "not supported", {"logprobs", "top_logprobs"}, set()),
        (None, "top_logprobs: extra inputs are not permitted", {"logprobs", "top_logprobs"}, set()),
        ("max_completion_tokens", "use 'max_tokens' instead", {"max_completion_tokens"}, {"max_tokens"}),
    ],
)
def test_a_parameter_that_the_endpoint_names_is_left_out(
    parameter: str | None, message: str, gone: set[str], added: set[str]
) -> None:
    before = start(logprobs=True)
    after = before.after_refusal(parameter, message)
    assert after is not None
    assert set(after.parameters) == set(before.parameters) - gone | added
    assert after.format == before.format


def test_both_names_of_the_length_limit_are_tried_once_each() -> None:
    dialect = start("groq")
    assert dialect.max_output_tokens == 100
    other = dialect.after_refusal("max_tokens", "use max_completion_tokens instead")
    assert other is not None
    assert other.parameters["max_completion_tokens"] == 100
    neither = other.after_refusal("max_completion_tokens", "unknown")
    assert neither is not None
    assert neither.max_output_tokens is None


def test_a_refusal_that_names_nothing_of_ours_changes_nothing() -> None:
    assert start().after_refusal(None, "the prompt is too long") is None
    assert start().after_refusal("messages", "invalid content") is None
