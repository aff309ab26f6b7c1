import asyncio
import json
from typing import Literal

import pytest
from pydantic import BaseModel, SecretStr

from caliber_pipeline.core.errors import JudgeError, ReplyError
from caliber_pipeline.judges.openai_language_model import OpenAILanguageModel
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback


class Theme(BaseModel):
    name: str
    verdict: Literal[0, 1] = 0


class Themes(BaseModel):
    themes: list[Theme]


GOOD = json.dumps({"themes": [{"name": "late", "verdict": 0}]})


def ask(config: LoopbackConfig, prompt: str, **settings: object) -> tuple[Themes, int]:
    with loopback(config) as server:
        values = {"model": "m", "base_url": server.base_url, "api_key": SecretStr("k")} | settings
        model = OpenAILanguageModel(OpenAIJudgeSettings(**values))  # type: ignore[arg-type]
        themes = asyncio.run(model.ask(prompt, Themes, system="You name themes."))
        return themes, server.stats()["calls"]


@pytest.mark.parametrize(
    ("reply", "formats"),
    [
        (GOOD, ("json_schema",)),
        (f"```json\n{GOOD}\n```", ("json_object",)),
        (f"Here you are: {GOOD} Is that all?", ("text",)),
    ],
)
def test_reads_the_reply_in_whatever_form_the_endpoint_gives_it(reply: str, formats: tuple[str, ...]) -> None:
    themes, _ = ask(LoopbackConfig(replies={"name them": reply}, formats=formats), "name them")

    assert themes == Themes(themes=[Theme(name="late", verdict=0)])


def test_asks_once_more_after_a_reply_of_another_form() -> None:
    config = LoopbackConfig(replies={"That reply is not of the schema": GOOD, "name them": '{"themes": [{}]}'})

    themes, n_calls = ask(config, "name them")

    assert themes.themes[0].name == "late"
    assert n_calls == 2


def test_gives_up_on_a_reply_that_stays_of_another_form() -> None:
    config = LoopbackConfig(replies={"That reply is not": "never", "name": '{"themes": 1}'})

    with pytest.raises(ReplyError, match="is not of the form Themes: reply: Invalid JSON"):
        ask(config, "name them")


def test_retries_what_may_pass() -> None:
    themes, n_calls = ask(LoopbackConfig(p_500=0.5, p_429=0.2, seed=3, replies={"name them": GOOD}), "name them")

    assert themes.themes
    assert n_calls >= 1


def test_says_what_is_missing() -> None:
    with pytest.raises(JudgeError, match="no model is set for provider 'openai'"):
        OpenAILanguageModel(OpenAIJudgeSettings())
    with pytest.raises(JudgeError, match="no key for provider 'openai'"):
        OpenAILanguageModel(OpenAIJudgeSettings(model="m"))
    model = OpenAILanguageModel(OpenAIJudgeSettings(model="m", api_key=SecretStr("canary")))
    assert (model.name, "canary" in repr(model)) == ("openai/m", False)
