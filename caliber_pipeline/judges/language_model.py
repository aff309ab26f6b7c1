"""What a language model is, for everything that asks one for more than a verdict."""

from typing import Protocol, TypeVar

from pydantic import BaseModel

from caliber_pipeline.core.usage import Usage

ReplyT = TypeVar("ReplyT", bound=BaseModel)


class LanguageModel(Protocol):
    """Answers a prompt with a reply of a given form."""

    @property
    def name(self) -> str:
        """Provider and model, as 'openai/gpt-4o'."""
        ...

    @property
    def usage(self) -> Usage:
        """What all questions so far took."""
        ...

    async def ask(self, prompt: str, reply: type[ReplyT], *, system: str | None = None) -> ReplyT:
        """The reply to a prompt, parsed into the Pydantic model whose JSON schema the language model was given.

        Raises:
            JudgeError: the model cannot be asked at all (no key, refused connection, unknown model).
            SpendingCapError: the spending cap leaves no room for the question.
            ReplyError: the reply is not of the form, after one attempt to have it mended.
        """
        ...
