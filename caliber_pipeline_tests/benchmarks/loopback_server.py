"""An OpenAI-compatible endpoint on the loopback interface, in a process of its own, with faults on demand.

Run alone: `python -m caliber_pipeline_tests.benchmarks.loopback_server '{"latency_s": 0.05}'` prints its port.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any, Final

_STATUS_TEXT: Final = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class LoopbackConfig:
    """What the endpoint does; probabilities are per call, drawn from a seeded generator.

    Attributes:
        latency_s: Time until a reply.
        p_429: Share of calls answered 429 with a wait of `retry_after_s` in the form `retry_after_form`
            ("ms", "seconds", "date" or "none").
        p_500: Share of calls answered 500.
        p_drop: Share of calls whose connection is closed without a reply.
        p_hang: Share of calls that are never answered.
        p_bad_json: Share of calls whose reply is cut: half of them in the HTTP body, half in the message.
        window_calls: Calls admitted per window of `window_s` seconds; the others get 429 until it ends.
        formats: Accepted types of response_format; another one is a 400.
        refused_parameters: A 400 if sent.
        api_key: Calls without this key, as a bearer token or an `api-key` header, get 401.
        echoes_key: The message of such a 401 holds the key that was sent.
        model: Calls for another model get 404.
        reject_if: The verdict is 0 where this text is in the last record shown, else 1; empty for a hash of the record.
        replies: Message texts by a text in the last message, instead of a verdict.
        errors: HTTP status and error code by a text in the last message.
        p_flip: Share of verdicts turned round.
        has_logprobs: Whether log-probabilities are given where asked for.
        prompt_tokens: Tokens of a prompt, as reported.
        completion_tokens: Tokens of a reply, as reported.
        seed: Of the generator.
    """

    latency_s: float = 0.0
    p_429: float = 0.0
    retry_after_s: float = 0.02
    retry_after_form: str = "ms"
    p_500: float = 0.0
    p_drop: float = 0.0
    p_hang: float = 0.0
    p_bad_json: float = 0.0
    window_calls: int = 0
    window_s: float = 1.0
    formats: tuple[str, ...] = ("json_schema", "json_object", "text")
    refused_parameters: tuple[str, ...] = ()
    api_key: str | None = None
    echoes_key: bool = False
    model: str | None = None
    reject_if: str = ""
    replies: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    p_flip: float = 0.0
    has_logprobs: bool = True
    prompt_tokens: int = 300
    completion_tokens: int = 20
    seed: int = 1


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; status 0 drops the connection, status -1 never answers."""

    status: int
    body: bytes = b""
    headers: str = ""


class Endpoint:
    """Decides what each call is answered, and counts."""

    def __init__(self, config: LoopbackConfig) -> None:
        self.config = config
        self._random = random.Random(config.seed)
        self._windows: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self.last_path = ""

    def answer(self, path: str, headers: bytes, body: bytes) -> Reply:
        if path.endswith("/stats"):
            return Reply(200, json.dumps(self.stats()).encode())
        self.last_path = path
        self.counts["calls"] += 1
        config = self.config
        reply = self._fault()
        if reply is None:
            key = _key_of(headers)
            if config.api_key is not None and key != config.api_key:
                shown = f": {key}" if config.echoes_key else ""
                reply = _error(401, "invalid_api_key", f"Incorrect API key provided{shown}")
            else:
                reply = self._completion(json.loads(body))
        self.counts[str(reply.status)] += 1
        return reply

    def stats(self) -> dict[str, Any]:
        return {
            **self.counts,
            "distinct_answered": len(self.answered),
            "max_answers_to_one": max(self.answered.values(), default=0),
            "max_in_flight": self.max_in_flight,
            "last_path": self.last_path,
        }

    def _fault(self) -> Reply | None:
        config = self.config
        if config.window_calls:
            now = time.monotonic()
            window = int(now / config.window_s)
            self._windows[window] += 1
            if self._windows[window] > config.window_calls:
                return self._too_many((window + 1) * config.window_s - now)
        draw = self._random.random()
        if draw < config.p_429:
            return self._too_many(config.retry_after_s)
        faults = (
            (config.p_500, _error(500, "server_error", "The server had an error")),
            (config.p_drop, Reply(0)),
            (config.p_hang, Reply(-1)),
        )
        draw -= config.p_429
        for share, reply in faults:
            if draw < share:
                return reply
            draw -= share
        return None

    def _too_many(self, wait_s: float) -> Reply:
        form = self.config.retry_after_form
        header = {
            "ms": f"retry-after-ms: {wait_s * 1000:.0f}\r\n",
            "seconds": f"Retry-After: {wait_s:.3f}\r\n",
            "date": f"Retry-After: {formatdate(time.time() + wait_s, usegmt=True)}\r\n",
            "none": "",
        }[form]
        error = _error(429, "rate_limit_exceeded", "Rate limit reached")
        return Reply(429, error.body, header)

    def _completion(self, request: dict[str, Any]) -> Reply:
        config = self.config
        if config.model is not None and request["model"] != config.model:
            return _error(404, "model_not_found", f"The model `{request['model']}` does not exist")
        form = request.get("response_format", {}).get("type", "text")
        if form not in config.formats:
            return _error(
                400, "invalid_request_error", f"response_format type {form} is unavailable", "response_format"
            )
        for name in config.refused_parameters:
            if name in request:
                return _error(400, "unsupported_parameter", f"Unsupported parameter: '{name}'", name)
        last = request["messages"][-1]["content"]
        self.answered[zlib.crc32(last.encode())] += 1
        for text, (status, code) in config.errors.items():
            if text in last:
                return _error(status, code, f"The call failed: {code}")
        return self._message(request, last)

    def _message(self, request: dict[str, Any], last: str) -> Reply:
        config = self.config
        contents = [message["content"] for message in reversed(request["messages"])]
        record = next((content for content in contents if content.startswith("Record ")), last)
        rejects = config.reject_if in record if config.reject_if else zlib.crc32(record.encode()) % 2 == 0
        score = int(rejects) ^ 1 ^ int(self._random.random() < config.p_flip)
        content = next((reply for text, reply in config.replies.items() if text in last), None)
        if content is None:
            content = json.dumps({"reasoning": f"The loopback server says {score}.", "score": score})
        cut = self._random.random() < config.p_bad_json
        cut_body = cut and self._random.random() < 0.5
        if cut and not cut_body:
            content = content[: len(content) // 2]
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content, "refusal": None},
        }
        if content.startswith("refusal:"):
            choice["message"] |= {"content": None, "refusal": content.removeprefix("refusal:").strip()}
        if request.get("logprobs") and config.has_logprobs:
            choice["logprobs"] = {"content": _logprobs(content)}
        n_prompt, n_completion = config.prompt_tokens, config.completion_tokens
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_completion, "total_tokens": n_prompt + n_completion}
        completion = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": request["model"],
            "choices": [choice],
            "usage": usage,
        }
        body = json.dumps(completion).encode()
        return Reply(200, body[: len(body) // 2] if cut_body else body)


def _key_of(headers: bytes) -> str:
    for line in headers.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() in {"authorization", "api-key"}:
            return value.removeprefix("Bearer ")
    return ""


def _logprobs(content: str) -> list[dict[str, Any]]:
    """One token per character; a score of 0 or 1 has probability 0.9, the other one 0.05."""
    tokens = []
    for place, character in enumerate(content):
        token: dict[str, Any] = {"token": character, "logprob": 0.0, "top_logprobs": []}
        if character in "01" and content[:place].rstrip().endswith('"score":'):
            other = "0" if character == "1" else "1"
            top = [{"token": character, "logprob": -0.1053605}, {"token": other, "logprob": -2.9957323}]
            token |= {"logprob": -0.1053605, "top_logprobs": top}
        tokens.append(token)
    return tokens


def _error(status: int, code: str, message: str, parameter: str | None = None) -> Reply:
    error = {"message": message, "type": code, "param": parameter, "code": code}
    return Reply(status, json.dumps({"error": error}).encode())


class _Connection(asyncio.Protocol):
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._buffer = b""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        endpoint = self._endpoint
        endpoint.in_flight += 1
        endpoint.max_in_flight = max(endpoint.max_in_flight, endpoint.in_flight)
        path = head.split(b" ", 2)[1].decode()
        reply = endpoint.answer(path, head, rest[:length])
        if reply.status == -1:
            endpoint.in_flight -= 1
            return
        self._loop.call_later(endpoint.config.latency_s if length else 0, self._send, reply)

    def _send(self, reply: Reply) -> None:
        self._endpoint.in_flight -= 1
        assert self._transport is not None
        if reply.status == 0:
            self._transport.abort()
            return
        head = (
            f"HTTP/1.1 {reply.status} {_STATUS_TEXT.get(reply.status, 'Error')}\r\nContent-Type: application/json\r\n"
            f"{reply.headers}Content-Length: {len(reply.body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + reply.body)


async def serve(config: LoopbackConfig) -> None:
    """Listen on a free port, print it, and answer until the process ends."""
    endpoint = Endpoint(config)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(endpoint), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 the parent reads it
    await server.serve_forever()


@dataclass(frozen=True)
class Loopback:
    """A running server."""

    base_url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base_url}/stats", timeout=10) as answer:  # noqa: S310 our own
            counts: dict[str, Any] = json.load(answer)
        return counts


@contextmanager
def loopback(config: LoopbackConfig | None = None) -> Iterator[Loopback]:
    """A server in a process of its own, ended with the block."""
    arguments = json.dumps(asdict(config or LoopbackConfig()))
    command = [sys.executable, "-m", "caliber_pipeline_tests.benchmarks.loopback_server", arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Loopback(f"http://127.0.0.1:{port}/v1")
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(LoopbackConfig(**json.loads(sys.argv[1]))))
