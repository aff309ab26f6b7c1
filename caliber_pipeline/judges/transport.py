"""One call to a chat completions endpoint and its raw reply; no retries, no limits.

The `openai` package makes the client: base URL, authentication, Azure's paths. Two ways lead from there: each request
by the package, or the package's first request repeated with other bodies, which takes a third of the CPU time.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings

if TYPE_CHECKING:
    import aiohttp
    import httpx2
    import openai

_PATH: Final = "/chat/completions"
_NOT_REPEATED: Final = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding"}
_OPENAI_ONLY: Final = ("OpenAI-Organization", "OpenAI-Project")


@dataclass(frozen=True)
class HttpReply:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class ConnectionFailedError(Exception):
    """No reply came: refused, dropped, or not in time.

    Attributes:
        is_timeout: It took too long, so that a wait before the next attempt has been had.
        is_unreachable: Nothing answers at that address, so trying again at once is in vain.
        may_have_run: The request may have reached the model, and may be billed.
    """

    def __init__(
        self, reason: str, *, is_timeout: bool = False, is_unreachable: bool = False, may_have_run: bool = True
    ) -> None:
        """An error with its reason in words."""
        super().__init__(reason)
        self.is_timeout = is_timeout
        self.is_unreachable = is_unreachable
        self.may_have_run = may_have_run


class Transport(Protocol):
    """Sends one request body and returns the raw reply."""

    async def post(self, body: Mapping[str, Any], timeout_s: float) -> HttpReply:
        """Send the body, and wait so many seconds for the reply at most.

        Raises:
            ConnectionFailedError: there was no reply.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


def open_transport(settings: OpenAIJudgeSettings) -> Transport:
    """The transport that the settings name; must be called in the event loop that will use it, and closed there."""
    package = PackageTransport(settings)
    return package if settings.transport == "package" else DirectTransport(package, settings)


class PackageTransport:
    """Every request by the `openai` package, through its aiohttp transport, read without its typed models."""

    def __init__(self, settings: OpenAIJudgeSettings) -> None:
        """A client for the settings' endpoint."""
        self.last_request: httpx2.Request | None = None
        self._client = _make_client(settings, self._remember)

    async def _remember(self, request: "httpx2.Request") -> None:
        self.last_request = request

    async def post(self, body: Mapping[str, Any], timeout_s: float) -> HttpReply:
        """Send the body."""
        import httpx2
        import openai

        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._client.post(_PATH, body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            reply = error.response
        except TimeoutError:
            raise _timed_out(timeout_s) from None
        except openai.APIConnectionError as error:
            raise _connection_failed(error.__cause__ or error) from None
        return HttpReply(reply.status_code, dict(reply.headers), reply.content)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


class DirectTransport:
    """The package's first request, repeated with other bodies over a bare aiohttp session."""

    def __init__(self, package: PackageTransport, settings: OpenAIJudgeSettings) -> None:
        """Takes the package's transport over, and closes it with itself."""
        self._package = package
        self._timeout_s = settings.attempt_timeout_s
        self._concurrency = settings.max_concurrency
        self._session: aiohttp.ClientSession | None = None
        self._url: Any = None

    async def post(self, body: Mapping[str, Any], timeout_s: float) -> HttpReply:
        """Send the body."""
        import aiohttp

        if self._session is None:
            return await self._first_post(body, timeout_s)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(self._url, data=json.dumps(body).encode(), allow_redirects=False) as reply,
            ):
                content = await reply.read()
        except TimeoutError:
            raise _timed_out(timeout_s) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _connection_failed(error) from None
        headers = {} if reply.status == 200 else {name.lower(): value for name, value in reply.headers.items()}
        return HttpReply(reply.status, headers, content)

    async def _first_post(self, body: Mapping[str, Any], timeout_s: float) -> HttpReply:
        reply = await self._package.post(body, timeout_s)
        request = self._package.last_request
        if request is not None and self._session is None:
            self._open_session(request)
        return reply

    def _open_session(self, request: "httpx2.Request") -> None:
        import aiohttp
        import httpx2
        import yarl

        self._url = yarl.URL(str(request.url), encoded=True)
        connector = aiohttp.TCPConnector(limit=self._concurrency, ssl=httpx2.create_ssl_context())
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=[(name, value) for name, value in request.headers.items() if name not in _NOT_REPEATED],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=any(name.lower().endswith("_proxy") for name in os.environ),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
        await self._package.aclose()


def _make_client(settings: OpenAIJudgeSettings, on_request: Any) -> "openai.AsyncOpenAI":  # noqa: ANN401 a hook
    import httpx2
    import openai

    n = settings.max_concurrency
    http_client = openai.DefaultAioHttpClient(
        event_hooks={"request": [on_request]},
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=n, max_keepalive_connections=n),
    )
    common: dict[str, Any] = {"api_key": settings.key, "http_client": http_client, "max_retries": 0}
    if settings.provider_name == "azure":
        return openai.AsyncAzureOpenAI(azure_endpoint=settings.endpoint_url, api_version=settings.api_version, **common)
    if settings.provider_name != "openai":
        common["default_headers"] = {name: openai.Omit() for name in _OPENAI_ONLY}
    return openai.AsyncOpenAI(base_url=settings.endpoint_url, **common)


def _timed_out(timeout_s: float) -> ConnectionFailedError:
    return ConnectionFailedError(f"no reply within {timeout_s:g} s", is_timeout=True)


def _connection_failed(error: BaseException) -> ConnectionFailedError:
    """What went wrong below, in words that hold no request."""
    import aiohttp

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError | ConnectionRefusedError):
            reason = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else "host not found"
            return ConnectionFailedError(reason, is_unreachable=True, may_have_run=False)
        cause = cause.__cause__ or cause.__context__
    return ConnectionFailedError(f"connection failed ({type(error).__name__})")
