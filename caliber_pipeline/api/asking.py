"""Who is asked about the judge's errors: a language model, or without one the encoder and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from caliber_pipeline.api.judging import DEFAULT_MODEL, default_encoder, open_language_model
from caliber_pipeline.core.arguments import INTEGER, TEXT, accepts
from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.language_model import LanguageModel

MAX_EXAMPLES: Final = 10


class Asking:
    """A step that learns from errors."""

    @accepts(instruction=TEXT.or_none, max_examples=INTEGER)
    def __init__(
        self,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        instruction: str | None = None,
        max_examples: int = MAX_EXAMPLES,
        *,
        model: LanguageModel | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Say who is asked.

        Args:
            model_name: The language model.
            llm_provider: Its provider; None takes the one whose key the environment has, else 'local', which asks none.
            instruction: What the language model is told; None for a general one.
            max_examples: How many errors it is shown at most.
            model: A language model of one's own, whatever the provider.
            encoder: Of notes; None takes the packaged one.

        Raises:
            InputError: max_examples is under 1.
        """
        if max_examples < 1:
            raise InputError(f"max_examples is {max_examples}; give 1 or more")
        self._model_name = model_name
        self._provider = llm_provider
        self._instruction = instruction
        self._max_examples = max_examples
        self._model = model
        self._encoder = encoder

    def _open_model(self) -> LanguageModel | None:
        """The language model, None where none is to be asked."""
        return self._model or open_language_model(self._provider, self._model_name)

    def _open_encoder(self) -> Encoder:
        return self._encoder or default_encoder()
