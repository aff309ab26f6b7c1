"""A language model behind any OpenAI-compatible endpoint, for the steps that ask for more than a verdict."""

import json
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from caliber_pipeline.core.criteria import Sampling
from caliber_pipeline.core.errors import JudgeSettingsError, ReplyError, SpendingCapError
from caliber_pipeline.core.judge_prompt import Message
from caliber_pipeline.core.pricing import usd
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.judges.budget import Budget, CapReachedError
from caliber_pipeline.judges.caller import Caller, CallFailedError, RefusedError, Tally, require_price
from caliber_pipeline.judges.dialect import Dialect
from caliber_pipeline.judges.language_model import ReplyT
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.rate_limiter import RateLimiter
from caliber_pipeline.judges.transport import open_transport

_FENCE: Final = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$", re.IGNORECASE)


class OpenAILanguageModel:
    """Asks an endpoint through the same client, retries and limits as the judge; implements `LanguageModel`."""

    def __init__(self, settings: OpenAIJudgeSettings, budget: Budget | None = None) -> None:
        """A language model of these settings; nothing is sent yet.

        Args:
            settings: The endpoint, and how hard it may be driven.
            budget: What may be spent, where others spend from it too; else the settings' cap, for all questions.

        Raises:
            JudgeSettingsError: there is no model, no base URL or no key, or a spending cap but no price.
        """
        if not settings.model:
            raise JudgeSettingsError(
                f"no model is set for provider '{settings.provider}'; set CALIBER_MODEL or give one"
            )
        _ = settings.endpoint_url, settings.key
        require_price(settings)
        self._budget = budget or Budget.of(settings.max_cost_usd)
        self._settings = settings
        self._model = settings.model
        self._dialect: Dialect | None = None
        self._usage = Usage()

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"{self._settings.provider_name}/{self._model}"

    @property
    def usage(self) -> Usage:
        """What all questions so far took; the cost is None where the price is unknown."""
        return self._usage

    def __repr__(self) -> str:
        """Provider and model; no key."""
        return f"OpenAILanguageModel({self.name!r})"

    async def ask(self, prompt: str, reply: type[ReplyT], *, system: str | None = None) -> ReplyT:
        """The reply to a prompt, as `LanguageModel.ask` says.

        Raises:
            JudgeError, ReplyError: as there.
            SpendingCapError: the spending cap leaves no room for the question.
        """
        schema = _strict(reply.model_json_schema())
        form = f"Reply with one JSON object of this schema and nothing else:\n{json.dumps(schema)}"
        messages = [
            Message(role="system", content=f"{system}\n\n{form}" if system else form),
            Message(role="user", content=prompt),
        ]
        settings = self._settings
        transport = open_transport(settings)
        async with aclosing(transport):
            caller = Caller(settings, self._form(reply, schema), transport, _open_limiter(settings), self._budget)
            text = await self._call(caller, messages)
            try:
                parsed = _parse(text, reply)
            except ValidationError as error:
                messages += [
                    Message(role="assistant", content=text),
                    Message(role="user", content=f"That reply is not of the schema: {_faults(error)}. {form}"),
                ]
                parsed = _parse_again(await self._call(caller, messages), reply)
            self._dialect = caller.dialect
        return parsed

    async def _call(self, caller: Caller, messages: list[Message]) -> str:
        tally = Tally()
        try:
            return await _call(caller, messages, tally)
        finally:
            self._usage += Usage(
                tally.n_attempts,
                tally.prompt_tokens + tally.completion_tokens if tally.is_counted else None,
                None if self._settings.price is None else usd(tally.spent),
            )

    def _form(self, reply: type[BaseModel], schema: Mapping[str, Any]) -> Dialect:
        settings = self._settings
        known = self._dialect or Dialect.start(
            settings.table_entry,
            self._model,
            Sampling(),
            max_output_tokens=settings.max_output_tokens,
            logprobs=False,
        )
        return replace(known, reply_name=reply.__name__, reply_schema=schema)


async def _call(caller: Caller, messages: list[Message], tally: Tally) -> str:
    try:
        completion = await caller.call(messages, tally)
    except (CallFailedError, RefusedError) as error:
        raise ReplyError(f"the language model gave no reply: {error}") from None
    except CapReachedError:
        raise SpendingCapError("the spending cap was reached before the language model was asked") from None
    if completion.refusal:
        raise ReplyError(f"the language model refused: {completion.refusal}")
    return completion.text


def _parse(text: str, reply: type[ReplyT]) -> ReplyT:
    """The reply in a text that may fence it or talk around it.

    Raises:
        ValidationError: there is none in it.
    """
    bare = _FENCE.sub("", text)
    start, end = bare.find("{"), bare.rfind("}")
    return reply.model_validate_json(bare[start : end + 1] if 0 <= start < end else bare)


def _parse_again(text: str, reply: type[ReplyT]) -> ReplyT:
    try:
        return _parse(text, reply)
    except ValidationError as error:
        raise ReplyError(f"the language model's reply is not of the form {reply.__name__}: {_faults(error)}") from None


def _faults(error: ValidationError) -> str:
    """What is wrong where, without the reply's text."""
    found = error.errors(include_input=False, include_url=False)[:5]
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'reply'}: {e['msg']}" for e in found)


def _strict(schema: Any) -> Any:  # noqa: ANN401 - any node of a JSON schema
    """The schema as structured output wants it: every property required, no others, no defaults."""
    if isinstance(schema, list):
        return [_strict(node) for node in schema]
    if not isinstance(schema, dict):
        return schema
    node = {key: _strict(value) for key, value in schema.items() if key not in {"default", "title"}}
    if isinstance(schema.get("properties"), dict):
        node["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        node |= {"required": list(schema["properties"]), "additionalProperties": False}
    return node


def _open_limiter(settings: OpenAIJudgeSettings) -> RateLimiter:
    return RateLimiter(
        settings.max_concurrency,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
    )
