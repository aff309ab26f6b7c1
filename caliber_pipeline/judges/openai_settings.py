"""Settings of the OpenAI-compatible judge, from the environment or from Python alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, JudgeSettingsError
from caliber_pipeline.core.pricing import FREE, Price, price_of
from caliber_pipeline.judges.providers import CUSTOM, PROVIDERS, Provider, is_own_url
from caliber_pipeline.settings import find_secret

Transport = Literal["direct", "package"]
_URL_VARIABLES: Final = {"openai": "OPENAI_BASE_URL", "azure": "AZURE_OPENAI_ENDPOINT"}
_VERSION_VARIABLE: Final = "OPENAI_API_VERSION"
_NO_KEY: Final = "none"  # the package insists on a key; endpoints that need none ignore it


@dataclass(frozen=True)
class OpenAIJudgeSettings:
    """How to reach the judge, and how hard it may be driven.

    Attributes:
        provider: A name of the provider table.
        model: The model; None is an error as soon as a judge is made.
        base_url: Instead of the provider's own; one that is not the provider's makes the provider "custom".
        api_key: Instead of the provider's own environment variable.
        api_version: Azure's API version.
        max_concurrency: Calls under way at once at most; fewer while the endpoint answers 429.
        max_retries: Further attempts after a call that failed in a way that may pass.
        attempt_timeout_s: Seconds for one call.
        record_timeout_s: Seconds for all calls of one record with the waits between them; waits that the endpoint
            asked for do not count.
        max_wait_s: The longest wait that an endpoint may ask for; a longer one ends the run.
        requests_per_minute: The endpoint's limit, kept on this side; None for no limit.
        tokens_per_minute: The same for tokens, sent and received.
        max_cost_usd: Spending cap of a run; None for no cap.
        input_price: US dollars per million tokens sent, instead of the price table's.
        output_price: The same for tokens received.
        max_output_tokens: Limit of a reply where the criteria file gives none.
        logprobs: Ask for token probabilities; None where the provider is known to give them.
        transport: "direct" repeats the request that the `openai` package made for the first call; "package" has the
            package make every request.
        keys: Keys by provider, for criteria files that name another provider.
    """

    provider: str = "openai"
    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = field(default=None, repr=False)
    api_version: str = "2024-10-21"
    max_concurrency: int = 32
    max_retries: int = 8
    attempt_timeout_s: float = 60.0
    record_timeout_s: float = 300.0
    max_wait_s: float = 600.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_cost_usd: float | None = None
    input_price: float | None = None
    output_price: float | None = None
    max_output_tokens: int = 2048
    logprobs: bool | None = None
    transport: Transport = "direct"
    keys: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the value.

        Raises:
            InputError: a value cannot work.
        """
        if self.provider not in PROVIDERS:
            raise InputError(f"unknown provider '{self.provider}'; known are {', '.join(PROVIDERS)}")
        if self.transport not in get_args(Transport):
            raise InputError(f"transport is '{self.transport}'; it must be one of {', '.join(get_args(Transport))}")
        _refuse_secrets(self.base_url)
        for name in ("max_concurrency", "attempt_timeout_s", "record_timeout_s", "max_wait_s", "max_output_tokens"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("max_retries", "max_cost_usd", "input_price", "output_price"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} is {value}; it must not be below 0")
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be above 0, or left out for no limit")

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **arguments: object) -> Self:
        """Settings from `CALIBER_<NAME>` variables and the providers' own; arguments that are not None go before both.

        Raises:
            InputError: a value cannot be read or used; the message names its variable or the value.
        """
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable = f"CALIBER_{setting.name.upper()}"
            text = environ.get(variable, "").strip()
            if text and setting.name != "keys":
                values[setting.name] = _parse_setting(variable, text, setting.type)
        values |= {name: value for name, value in arguments.items() if value is not None}
        if isinstance(values.get("api_key"), str):
            values["api_key"] = SecretStr(values["api_key"])
        url = environ.get(_URL_VARIABLES.get(values.get("provider", "openai"), ""), "").strip()
        if "base_url" not in values and url:
            values["base_url"] = url
        if "api_version" not in values and environ.get(_VERSION_VARIABLE, "").strip():
            values["api_version"] = environ[_VERSION_VARIABLE].strip()
        keys = {
            provider.name: SecretStr(environ[variable].strip())
            for provider in PROVIDERS.values()
            for variable in reversed(provider.key_variables)
            if environ.get(variable, "").strip()
        }
        return cls(**{"keys": keys, **values})

    def with_judge(self, provider: str | None, model: str | None) -> Self:
        """The same settings for the provider and model that a criteria version is bound to; None changes nothing."""
        changed = replace(self, model=model or self.model)
        if provider is None or provider in {self.provider, self.provider_name}:
            return changed
        return replace(changed, provider=provider, base_url=None, api_key=None, logprobs=None)

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The names of all environment variables that `from_env` reads."""
        own = [f"CALIBER_{setting.name.upper()}" for setting in fields(cls) if setting.name != "keys"]
        keys = [variable for provider in PROVIDERS.values() for variable in provider.key_variables]
        return (*own, *keys, *_URL_VARIABLES.values(), _VERSION_VARIABLE)

    def bound_to(self, criteria: Criteria, first: tuple[str, str] | None) -> Self:
        """The same settings for a criteria version.

        Args:
            criteria: Its provider and model, where the file names them, go before all.
            first: Provider and model of the version's first evaluation, where there was one: a version whose file names
                no model keeps the one that it was first judged by, so that its history compares like with like.
        """
        provider, model = first or (None, None)
        return self.with_judge(criteria.provider or provider, criteria.model or model)

    @property
    def table_entry(self) -> Provider:
        """What is known of the endpoint."""
        return PROVIDERS[self.provider_name]

    @property
    def provider_name(self) -> str:
        """The provider that answers: "custom" where the base URL is not the named provider's own."""
        provider = PROVIDERS[self.provider]
        if self.base_url is None or provider.is_local or is_own_url(provider, self.base_url):
            return self.provider
        return CUSTOM

    @property
    def endpoint_url(self) -> str:
        """Where calls go.

        Raises:
            JudgeSettingsError: the provider has no URL of its own and none was given.
        """
        url = self.base_url or PROVIDERS[self.provider].base_url
        if not url:
            where = "AZURE_OPENAI_ENDPOINT" if self.provider == "azure" else "CALIBER_BASE_URL"
            raise JudgeSettingsError(f"provider '{self.provider}' has no base URL of its own; set {where}")
        if urlsplit(url).scheme not in {"http", "https"}:
            raise JudgeSettingsError(f"base URL '{shown_url(url)}' is not an http or https URL")
        return url

    @property
    def key(self) -> str:
        """The key, or a stand-in where the endpoint needs none.

        Raises:
            JudgeSettingsError: the provider needs a key and there is none.
        """
        found = self.api_key or self.keys.get(self.provider)
        if found is not None and found.get_secret_value():
            return found.get_secret_value()
        entry = PROVIDERS[self.provider]
        if entry.is_local or self.provider_name == CUSTOM:
            return _NO_KEY
        names = " or ".join((*entry.key_variables, "CALIBER_API_KEY"))
        raise JudgeSettingsError(f"no key for provider '{self.provider}'; set {names}")

    @property
    def price(self) -> Price | None:
        """What tokens cost; None where it is not known."""
        if self.input_price is not None and self.output_price is not None:
            return Price(self.input_price, self.output_price)
        if self.table_entry.is_local:
            return FREE
        return price_of(self.model or "")


def _refuse_secrets(url: str | None) -> None:
    """Refuse a base URL with a key in it, which logs and tables would show, or with what no URL holds."""
    if url is not None and not (url.isprintable() and url.split() == [url]):
        raise InputError(f"base URL {shown_url(url)!r} holds white space; give one like http://localhost:8000/v1")
    if url is not None and (what := find_secret(url)):
        raise InputError(
            f"base URL '{shown_url(url)}' holds {what}; leave it out, and put the key into CALIBER_API_KEY"
        )


def shown_url(url: str) -> str:
    """The URL without user, password and query, fit to be shown and stored."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _parse_setting(variable: str, text: str, annotation: object) -> object:
    kind: Any = next(iter(get_args(annotation)), annotation)  # the first of a union with None; a literal's first value
    try:
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except (ValueError, KeyError):
        names = {int: "a whole number", float: "a number", bool: "true or false"}
        raise InputError(f"{variable} is '{text}'; it must be {names[kind]}") from None
    return SecretStr(text) if kind is SecretStr else text
