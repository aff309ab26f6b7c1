"""Endpoints that speak OpenAI's chat completions: where they are, which key they take, what they support."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

ReplyFormat = Literal["json_schema", "json_object", "text"]
FORMATS: Final[tuple[ReplyFormat, ...]] = ("json_schema", "json_object", "text")
"""From the strictest form of reply to the loosest."""

CUSTOM: Final = "custom"


@dataclass(frozen=True)
class Provider:
    """One endpoint; what it turns out not to accept is found out by its first refusal and remembered for the run.

    Attributes:
        name: As in settings and tables.
        base_url: None where the user has to give it.
        key_variables: Environment variables that may hold the key, the first one set is taken; none for no key.
        first_format: The strictest form of reply worth asking for.
        has_logprobs: Whether token probabilities are worth asking for.
        is_local: Runs on the user's own machines: no key needed, no price.
        max_tokens_name: What the limit of a reply's length is called.
    """

    name: str
    base_url: str | None
    key_variables: tuple[str, ...] = ()
    first_format: ReplyFormat = "json_schema"
    has_logprobs: bool = False
    is_local: bool = False
    max_tokens_name: str = "max_tokens"


_TABLE: Final = (
    Provider("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",), has_logprobs=True,
             max_tokens_name="max_completion_tokens"),
    Provider("azure", None, ("AZURE_OPENAI_API_KEY",), has_logprobs=True, max_tokens_name="max_completion_tokens"),
    Provider("anthropic", "https://api.anthropic.com/v1", ("ANTHROPIC_API_KEY",), first_format="text"),
    Provider("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    Provider("openrouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    Provider("groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    Provider("together", "https://api.together.xyz/v1", ("TOGETHER_API_KEY",)),
    Provider("mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
    Provider("deepseek", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), first_format="json_object",
             has_logprobs=True),
    Provider("ollama", "http://localhost:11434/v1", is_local=True),
    Provider("vllm", "http://localhost:8000/v1", has_logprobs=True, is_local=True),
    Provider("llamacpp", "http://localhost:8080/v1", has_logprobs=True, is_local=True),
    Provider(CUSTOM, None, has_logprobs=True),
)  # fmt: skip

PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({provider.name: provider for provider in _TABLE})


def is_own_url(provider: Provider, base_url: str) -> bool:
    """Whether the URL is one of the provider's own: on its host, or under its domain."""
    if provider.base_url is None:
        return True
    own, host = (urlsplit(url).hostname or "" for url in (provider.base_url, base_url))
    domain = ".".join(own.split(".")[-2:])
    return host == own or (not provider.is_local and host.endswith(f".{domain}"))
