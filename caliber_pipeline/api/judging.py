"""Finds who gives the verdicts: an endpoint, the verdicts that came with the records, or the embedded default."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Final

from caliber_pipeline.core.arguments import TEXT, accepts
from caliber_pipeline.core.errors import JudgeError, JudgeSettingsError

if TYPE_CHECKING:
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.budget import Budget
    from caliber_pipeline.judges.language_model import LanguageModel
    from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
    from caliber_pipeline.judges.protocol import Judge

LOCAL: Final = "local"
RECORDED: Final = "recorded"
DEFAULT_MODEL: Final = "gpt-4o"


def open_judge(provider: str, model_name: str | None = None, max_concurrent: int | None = None) -> Judge:
    """The judge of a provider.

    Args:
        provider: 'local', 'recorded', or a provider of an OpenAI-compatible endpoint; its key comes from the
            environment.
        model_name: The endpoint's model; the other two have none.
        max_concurrent: Calls to the endpoint under way at once at most.

    Raises:
        JudgeError: the provider is unknown or its key is missing.
        InputError: a setting of the environment cannot work.
    """
    if provider == LOCAL:
        from caliber_pipeline.judges.local import LocalJudge

        return LocalJudge(default_encoder())
    if provider == RECORDED:
        from caliber_pipeline.judges.recorded import RecordedJudge

        return RecordedJudge()
    from caliber_pipeline.judges.openai_judge import OpenAIJudge

    settings = _settings(provider, model_name, max_concurrent)
    return OpenAIJudge(settings, _shared_budget(settings.max_cost_usd))


@accepts(provider=TEXT.or_none, model_name=TEXT)
def find_judge(provider: str | None, model_name: str) -> tuple[str, str]:
    """Provider and model that were asked for, else the environment's where it has what they need, else 'local'.

    Where the provider is the environment's, so is the model (CALIBER_MODEL), unless one was asked for.
    """
    if provider is not None:
        return provider.strip().lower(), model_name
    from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings

    settings = OpenAIJudgeSettings.from_env(os.environ)
    try:
        _ = settings.endpoint_url, settings.key
    except JudgeError:
        return LOCAL, model_name
    return settings.provider, settings.model if settings.model and model_name == DEFAULT_MODEL else model_name


@accepts(provider=TEXT.or_none, model_name=TEXT)
def open_language_model(provider: str | None, model_name: str) -> LanguageModel | None:
    """The language model of a provider, None for 'local' and 'recorded', and where the environment has no key."""
    found, model = find_judge(provider, model_name)
    if found in {LOCAL, RECORDED}:
        return None
    from caliber_pipeline.judges.openai_language_model import OpenAILanguageModel

    settings = _settings(found, model, None)
    return OpenAILanguageModel(settings, _shared_budget(settings.max_cost_usd))


def _settings(provider: str, model_name: str | None, max_concurrent: int | None) -> OpenAIJudgeSettings:
    from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
    from caliber_pipeline.judges.providers import PROVIDERS

    if provider not in PROVIDERS:
        raise JudgeSettingsError(f"unknown provider '{provider}'; known are {', '.join((LOCAL, RECORDED, *PROVIDERS))}")
    return OpenAIJudgeSettings.from_env(os.environ, provider=provider, model=model_name, max_concurrency=max_concurrent)


@cache
def _shared_budget(max_cost_usd: float | None) -> Budget:
    """One budget for the process: judges and language models spend from CALIBER_MAX_COST_USD together.

    A cap that was changed since is a new budget.
    """
    from caliber_pipeline.judges.budget import Budget

    return Budget.of(max_cost_usd)


@cache
def default_encoder() -> Encoder:
    """The embedded encoder, one for the process: loading it takes seconds."""
    from caliber_pipeline.encoders.sentence_transformer import SentenceTransformerEncoder

    return SentenceTransformerEncoder()
