"""What an endpoint accepts: the request's form, and how it changes after a refusal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from caliber_pipeline.core.criteria import Sampling
from caliber_pipeline.core.judge_prompt import REPLY_SCHEMA, Message
from caliber_pipeline.judges.providers import FORMATS, Provider, ReplyFormat

_FORMAT_WORDS: Final = ("response_format", "json_schema", "json_object", "structured output", "json mode")
_MAX_TOKENS_NAMES: Final = ("max_tokens", "max_completion_tokens")
_TOP_LOGPROBS: Final = 5


@dataclass(frozen=True)
class Dialect:
    """The form of a request: model, reply format and parameters, as far as the endpoint accepts them.

    A reply is a verdict, unless another schema is given.
    """

    model: str
    format: ReplyFormat
    parameters: Mapping[str, Any]
    refused: tuple[str, ...] = ()
    reply_name: str = "verdict"
    reply_schema: Mapping[str, Any] = field(default_factory=lambda: REPLY_SCHEMA)

    @classmethod
    def start(
        cls, provider: Provider, model: str, sampling: Sampling, *, max_output_tokens: int, logprobs: bool
    ) -> Self:
        """The strictest form that is worth trying."""
        parameters: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            provider.max_tokens_name: sampling.max_tokens or max_output_tokens,
        }
        if logprobs and sampling.n_votes == 1:
            parameters |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        return cls(model, provider.first_format, {k: v for k, v in parameters.items() if v is not None})

    def body(self, messages: Sequence[Message], vote: int = 0) -> dict[str, Any]:
        """The request for these messages; each vote has a seed of its own."""
        body: dict[str, Any] = {"model": self.model, "messages": messages, **self.parameters}
        if vote and "seed" in body:
            body["seed"] += vote
        if self.format == "json_schema":
            schema = {"name": self.reply_name, "strict": True, "schema": self.reply_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    @property
    def max_output_tokens(self) -> int | None:
        """The limit of a reply's length; None where the endpoint takes none."""
        return next((self.parameters[name] for name in _MAX_TOKENS_NAMES if name in self.parameters), None)

    def after_refusal(self, parameter: str | None, message: str) -> Self | None:
        """The next form to try after a 400 that names something in the request; None where it names nothing of ours."""
        text = f"{parameter or ''} {message}".lower()
        if any(word in text for word in _FORMAT_WORDS) and self.format != "text":
            return replace(self, format=FORMATS[FORMATS.index(self.format) + 1])
        for name in sorted(self.parameters, key=len, reverse=True):
            if name in text and (parameter is None or parameter == name or name not in _MAX_TOKENS_NAMES):
                return self._without(name)
        return None

    def _without(self, name: str) -> Self:
        dropped = {"logprobs", "top_logprobs"} if name.endswith("logprobs") else {name}
        parameters = {key: value for key, value in self.parameters.items() if key not in dropped}
        if name in _MAX_TOKENS_NAMES:
            other = _MAX_TOKENS_NAMES[1 - _MAX_TOKENS_NAMES.index(name)]
            if other not in self.refused:
                parameters[other] = self.parameters[name]
        return replace(self, parameters=parameters, refused=(*self.refused, name))
