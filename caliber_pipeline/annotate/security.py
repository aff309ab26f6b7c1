"""Who may talk to the page, and what the browser may do with it."""

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caliber_pipeline.core.errors import InputError

CSRF_HEADER: Final = "x-csrf-token"
MIN_TOKEN_LENGTH: Final = 16  # 16 random characters are beyond guessing over a network
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_HEADERS: Final = {
    # nothing but the page's own files; with trusted types no string can become HTML or script, whatever a record holds
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Session:
    """Who sits at a browser.

    Attributes:
        annotator: The name given; None before it is.
        is_admitted: The token was shown, or none is needed.
        nonce: Random, ties the CSRF token to this session.
    """

    annotator: str | None = None
    is_admitted: bool = False
    nonce: str = ""


class Sessions:
    """Sessions kept in signed cookies, so that a restarted server knows its annotators again."""

    def __init__(self, secret: str, *, token: str | None, port: int) -> None:
        """Set up.

        Args:
            secret: Signs the cookies; kept in the store.
            token: What a browser must show once; None where none is needed.
            port: Part of the cookie's name, since browsers share cookies between the ports of a host.
        """
        self._secret = secret.encode()
        self._token = token
        self.cookie_name = f"caliber_{port}"

    def read(self, cookie: str | None) -> Session:
        """The session of a cookie; a new one where it is missing, forged or of an earlier token."""
        payload, _, signature = (cookie or "").rpartition(".")
        if payload and hmac.compare_digest(signature.encode(), self._sign("session", payload).encode()):
            content = json.loads(base64.urlsafe_b64decode(payload))
            return Session(content["annotator"], self._token is None or content["is_admitted"], content["nonce"])
        return Session(None, self._token is None, secrets.token_urlsafe(16))

    def write(self, session: Session) -> str:
        """The cookie's value."""
        payload = base64.urlsafe_b64encode(json.dumps(vars(session)).encode()).decode()
        return f"{payload}.{self._sign('session', payload)}"

    def csrf_token(self, session: Session) -> str:
        """What a page of this session must send along with every change."""
        return self._sign("csrf", session.nonce)

    def is_csrf_token(self, session: Session, token: str | None) -> bool:
        """Whether the token belongs to the session."""
        return hmac.compare_digest((token or "").encode(), self.csrf_token(session).encode())

    def admit(self, session: Session, token: str) -> Session | None:
        """The session, admitted; None where the token is wrong."""
        is_right = self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())
        return replace(session, is_admitted=True) if is_right else None

    def _sign(self, purpose: str, text: str) -> str:
        # the token is part of the key: another token ends the sessions that the earlier one admitted
        key = self._secret + b"\0" + (self._token or "").encode()
        return hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, adds the security headers."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str], is_open: bool) -> None:
        """Wrap an app.

        Args:
            app: What is guarded.
            allowed_hosts: Names by which the server may be called, without ports.
            is_open: The server listens beyond loopback: it may then be called by any IP address too.
        """
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_static = scope["path"].startswith("/static/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    own[name] = value
                if is_static:
                    own["cache-control"] = "no-cache"
            await send(message)

        reason = self._reason_to_refuse(scope["method"], headers)
        answer = self._app if reason is None else JSONResponse({"error": reason}, status_code=403)
        await answer(scope, receive, send_with_headers)

    def _reason_to_refuse(self, method: str, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if not self._is_allowed(_host_name(host)):
            return f"this server does not go by the name '{host[:100]}'; start it with --allow-host to allow it"
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "the request comes from another site"
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "the request comes from another site"
        return None

    def _is_allowed(self, name: str) -> bool:
        return name in self._allowed_hosts or (self._is_open and is_address(name))


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether the name is an IP address, which no foreign name server can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether listening on the host reaches this machine alone."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def allowed_hosts(host: str, extra: Iterable[str] = ()) -> frozenset[str]:
    """The names by which a server on the host may be called."""
    names = {*_LOOPBACK_NAMES, host, *extra}
    return frozenset(names if is_loopback(host) else names | {socket.gethostname(), socket.getfqdn()})


def check_token(host: str, token: str | None) -> None:
    """Refuse to listen beyond loopback without a token that cannot be guessed.

    Raises:
        InputError: it is missing or too short.
    """
    if token is None and not is_loopback(host):
        raise InputError(
            f"{host} is reached from other machines: set CALIBER_ANNOTATE_TOKEN to at least {MIN_TOKEN_LENGTH} random "
            "characters, or listen on 127.0.0.1"
        )
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise InputError(f"the token has {len(token)} characters; give at least {MIN_TOKEN_LENGTH} random ones")
