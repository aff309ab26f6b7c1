import pytest
from pydantic import SecretStr

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, JudgeError
from caliber_pipeline.core.pricing import FREE, Price
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings, shown_url
from caliber_pipeline.judges.providers import PROVIDERS


def test_the_environment_gives_settings_and_arguments_go_before_it() -> None:
    environ = {
        "CALIBER_PROVIDER": "groq",
        "CALIBER_MODEL": "llama",
        "CALIBER_MAX_CONCURRENCY": "7",
        "CALIBER_REQUESTS_PER_MINUTE": "3000",
        "CALIBER_LOGPROBS": "no",
        "CALIBER_MAX_COST_USD": " ",
        "GROQ_API_KEY": "gk",
    }
    settings = OpenAIJudgeSettings.from_env(environ, model="other", base_url=None)
    assert (settings.provider, settings.model, settings.max_concurrency) == ("groq", "other", 7)
    assert settings.requests_per_minute == 3000.0
    assert settings.logprobs is False
    assert settings.max_cost_usd is None
    assert settings.key == "gk"
    assert settings.endpoint_url == "https://api.groq.com/openai/v1"


def test_no_environment_gives_the_defaults() -> None:
    assert OpenAIJudgeSettings.from_env({}) == OpenAIJudgeSettings()


def test_the_openai_packages_own_variables_are_honoured() -> None:
    settings = OpenAIJudgeSettings.from_env({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://localhost:9/v1"})
    assert (settings.key, settings.endpoint_url, settings.provider_name) == ("k", "http://localhost:9/v1", "custom")


def test_caliber_variables_go_before_the_providers_own() -> None:
    environ = {"OPENAI_API_KEY": "theirs", "CALIBER_API_KEY": "ours", "OPENAI_BASE_URL": "http://a/v1"}
    settings = OpenAIJudgeSettings.from_env(environ | {"CALIBER_BASE_URL": "http://b/v1"})
    assert (settings.key, settings.endpoint_url) == ("ours", "http://b/v1")


def test_openais_base_url_is_not_used_for_another_provider() -> None:
    environ = {"CALIBER_PROVIDER": "mistral", "MISTRAL_API_KEY": "k", "OPENAI_BASE_URL": "http://a/v1"}
    assert OpenAIJudgeSettings.from_env(environ).endpoint_url == "https://api.mistral.ai/v1"


@pytest.mark.parametrize("name", sorted(set(PROVIDERS) - {"custom", "azure"}))
def test_every_provider_of_the_table_has_a_url_and_a_key_or_needs_none(name: str) -> None:
    provider = PROVIDERS[name]
    environ = dict.fromkeys(provider.key_variables[-1:], f"key-of-{name}")
    settings = OpenAIJudgeSettings.from_env(environ, provider=name, model="m")
    assert settings.endpoint_url == provider.base_url
    assert settings.key == ("none" if provider.is_local else f"key-of-{name}")
    assert OpenAIJudge(settings).provider == name


def test_azure_takes_its_endpoint_and_version_from_its_own_variables() -> None:
    environ = {
        "AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com",
        "AZURE_OPENAI_API_KEY": "k",
        "OPENAI_API_VERSION": "2025-01-01",
    }
    settings = OpenAIJudgeSettings.from_env(environ, provider="azure")
    assert (settings.endpoint_url, settings.api_version) == ("https://mine.openai.azure.com", "2025-01-01")
    assert settings.provider_name == "azure"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"provider": "opnai"}, "unknown provider 'opnai'; known are openai, azure, anthropic"),
        ({"max_concurrency": 0}, "max_concurrency is 0; it must be above 0"),
        ({"max_cost_usd": -1.0}, "max_cost_usd is -1.0; it must not be below 0"),
        ({"requests_per_minute": 0.0}, "requests_per_minute is 0.0; it must be above 0"),
        ({"transport": "pigeon"}, "transport is 'pigeon'"),
        ({"base_url": "https://h/v1?api-version=1&key=canary"}, "base URL 'https://h/v1' holds 'key' in its query"),
        ({"base_url": "https://u:canary@h/v1?k=canary"}, "base URL 'https://h/v1' holds a user or password; leave"),
        ({"base_url": "https://canary@h/v1"}, "put the key into CALIBER_API_KEY"),
        ({"base_url": "http://h:1/v1\n2"}, "holds white space; give one like"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_their_value(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OpenAIJudgeSettings.from_env({}, **arguments)


def test_a_password_in_a_url_of_the_environment_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="holds a user or password") as caught:
        OpenAIJudgeSettings.from_env({"OPENAI_BASE_URL": "https://u:canary@h/v1"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CALIBER_MAX_RETRIES", "many", "CALIBER_MAX_RETRIES is 'many'; it must be a whole number"),
        ("CALIBER_MAX_COST_USD", "$5", "CALIBER_MAX_COST_USD is '\\$5'; it must be a number"),
        ("CALIBER_LOGPROBS", "perhaps", "CALIBER_LOGPROBS is 'perhaps'; it must be true or false"),
    ],
)
def test_variables_that_cannot_be_read_are_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OpenAIJudgeSettings.from_env({variable: text})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"api_key": "k"}, "no model is set for provider 'openai'; set CALIBER_MODEL"),
        ({"model": "m"}, "no key for provider 'openai'; set OPENAI_API_KEY or CALIBER_API_KEY"),
        ({"model": "m", "provider": "gemini"}, "set GEMINI_API_KEY or GOOGLE_API_KEY or CALIBER_API_KEY"),
        ({"model": "m", "provider": "custom"}, "provider 'custom' has no base URL of its own; set CALIBER_BASE_URL"),
        ({"model": "m", "provider": "azure"}, "set AZURE_OPENAI_ENDPOINT"),
        ({"model": "m", "base_url": "localhost:80"}, "base URL 'localhost:80' is not an http or https URL"),
    ],
)
def test_a_judge_without_model_key_or_url_is_one_clear_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        OpenAIJudge(OpenAIJudgeSettings.from_env({}, **arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (None, "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.openai.com.evil.example/v1", "custom"),
        ("https://notopenai.com/v1", "custom"),
        ("http://127.0.0.1:8000/v1", "custom"),
    ],
)
def test_a_base_url_that_is_not_the_providers_own_is_a_custom_endpoint(base_url: str | None, name: str) -> None:
    assert OpenAIJudgeSettings(base_url=base_url).provider_name == name


def test_a_local_provider_keeps_its_name_on_another_machine() -> None:
    settings = OpenAIJudgeSettings(provider="vllm", base_url="http://gpu-box:8000/v1", model="m")
    assert (settings.provider_name, settings.price) == ("vllm", FREE)


def test_prices_come_from_the_user_then_from_the_table() -> None:
    assert OpenAIJudgeSettings(model="gpt-4o").price == Price(2.5, 10)
    assert OpenAIJudgeSettings(model="gpt-4o", input_price=1.0, output_price=2.0).price == Price(1, 2)
    assert OpenAIJudgeSettings(model="unheard-of").price is None


def test_a_version_bound_to_another_provider_takes_that_providers_key_and_url() -> None:
    environ = {"OPENAI_API_KEY": "ok", "GROQ_API_KEY": "gk", "CALIBER_API_KEY": "ck", "CALIBER_MODEL": "m"}
    bound = OpenAIJudgeSettings.from_env(environ).with_judge("groq", "llama")
    assert (bound.provider_name, bound.model, bound.key) == ("groq", "llama", "gk")
    assert bound.endpoint_url == "https://api.groq.com/openai/v1"


def test_a_version_bound_to_the_same_endpoint_changes_only_the_model() -> None:
    settings = OpenAIJudgeSettings(base_url="http://localhost:1/v1", model="a", api_key=SecretStr("k"))
    assert settings.with_judge("custom", "b") == OpenAIJudgeSettings(
        base_url="http://localhost:1/v1", model="b", api_key=SecretStr("k")
    )
    assert settings.with_judge(None, None) == settings


def test_a_version_keeps_the_model_of_its_file_else_of_its_first_evaluation() -> None:
    settings = OpenAIJudgeSettings.from_env({"GROQ_API_KEY": "gk"}, model="new", api_key="k")
    unbound, bound = Criteria(criteria="c"), Criteria(criteria="c", model="file", provider="groq")
    assert settings.bound_to(unbound, None).model == "new"
    assert settings.bound_to(unbound, ("openai", "old")).model == "old"
    first = settings.bound_to(bound, ("openai", "old"))
    assert (first.provider, first.model, first.key) == ("groq", "file", "gk")


def test_urls_are_shown_without_user_password_and_query() -> None:
    assert shown_url("https://user:pw@host:8/v1?key=k#x") == "https://host:8/v1"


def test_no_repr_holds_a_key() -> None:
    environ = {"OPENAI_API_KEY": "canary-1", "GROQ_API_KEY": "canary-2", "CALIBER_API_KEY": "canary-3"}
    settings = OpenAIJudgeSettings.from_env(environ, model="m", base_url="http://h/v1?tenant=canary-4")
    judge = OpenAIJudge(settings)
    assert "canary" not in repr(judge)
    assert "canary" not in str(judge.identity)
    assert "canary" not in repr(settings).replace("canary-4", "")
