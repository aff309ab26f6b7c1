"""A language model that answers from a function, and remembers what it was asked."""

from collections.abc import Callable

from pydantic import BaseModel, ValidationError

from caliber_pipeline.core.errors import ReplyError
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.judges.language_model import ReplyT

Answer = Callable[[str, type[BaseModel]], BaseModel | str]


class ScriptedModel:
    """Speaks the `LanguageModel` protocol; text is parsed as a reply would be, and refused if it does not fit."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.prompts: list[str] = []

    @property
    def name(self) -> str:
        return "scripted/model"

    @property
    def usage(self) -> Usage:
        return Usage(n_calls=len(self.prompts))

    async def ask(self, prompt: str, reply: type[ReplyT], *, system: str | None = None) -> ReplyT:
        self.prompts.append(f"{system or ''}\n{prompt}")
        answered = self._answer(prompt, reply)
        try:
            return reply.model_validate(answered if isinstance(answered, dict) else _loads(answered))
        except (ValidationError, ValueError) as error:
            raise ReplyError(f"not a {reply.__name__}") from error


def _loads(answered: BaseModel | str) -> object:
    import json

    return json.loads(answered) if isinstance(answered, str) else answered.model_dump()
