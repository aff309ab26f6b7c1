"""An endpoint with files and batches on the loopback interface, in a thread of the test; its batches end as told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from caliber_pipeline_tests.benchmarks.loopback_server import Endpoint, LoopbackConfig


@dataclass
class BatchConfig:
    """How batches end.

    Attributes:
        n_looks: How often a batch is seen under way before it has ended.
        ends: The statuses with which the batches end, in the order in which they were sent; the last for all others.
        n_answered: Lines that are answered in a batch that expires or is cancelled.
        fails: A line whose record holds this text fails with a 500.
        breaks: A line whose record holds this text gets a reply without a verdict.
        max_open: Batches that may be under way at once; a further one fails for want of room.
        status: Of the reply to a look at a batch.
        refuses: Whether it takes files, but no batch of them.
        deletes: Whether it deletes files when asked.
    """

    n_looks: int = 2
    ends: tuple[str, ...] = ("completed",)
    n_answered: int = 3
    fails: str = "\0"
    breaks: str = "\0"
    max_open: int = 1_000
    status: int = 200
    refuses: bool = False
    deletes: bool = True


@dataclass
class BatchServer:
    config: BatchConfig
    base_url: str = ""
    endpoint: Endpoint = field(default_factory=lambda: Endpoint(LoopbackConfig()))
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    n_files: int = 0
    n_single: int = 0
    max_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, headers: str, body: bytes) -> tuple[int, bytes]:
        parts = path.partition("?")[0].removeprefix("/v1/").split("/")
        if parts[0] == "chat":
            self.n_single += 1
            reply = self.endpoint.answer(path, headers.encode(), body)
            return reply.status, reply.body
        if parts[0] == "files":
            if method == "POST":
                return 200, json.dumps(self._store(_uploaded(headers, body))).encode()
            if method == "DELETE":
                return self._delete(parts[1])
            content = self.files.get(parts[1])
            return (404, b'{"error": {"message": "no such file"}}') if content is None else (200, content)
        if method == "POST":
            if self.config.refuses:
                return 400, b'{"error": {"message": "no batches of this model"}}'
            return 200, json.dumps(self._create(json.loads(body))).encode()
        if len(parts) == 1:
            listed = {"object": "list", "data": list(self.batches.values()), "has_more": False}
            return 200, json.dumps(listed).encode()
        return self.config.status, json.dumps(self._look(parts[1])).encode()

    def _store(self, content: bytes) -> dict[str, Any]:
        name = f"file-{self.n_files}"
        self.n_files += 1
        self.files[name] = content
        return {"id": name, "object": "file", "bytes": len(content), "created_at": 1, "filename": name,
                "purpose": "batch", "status": "processed"}  # fmt: skip

    def _delete(self, name: str) -> tuple[int, bytes]:
        if not self.config.deletes or self.files.pop(name, None) is None:
            return 404, b'{"error": {"message": "no such file"}}'
        return 200, json.dumps({"id": name, "object": "file", "deleted": True}).encode()

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"batch-{len(self.batches)}"
        self.looks[name] = 0
        batch = {**asked, "id": name, "object": "batch", "status": "validating", "created_at": 1}
        n_open = 1 + sum(other["status"] in {"validating", "in_progress"} for other in self.batches.values())
        if n_open > self.config.max_open:
            self._end(batch, "failed")
        else:
            self.max_open = max(self.max_open, n_open)
        self.batches[name] = batch
        return batch

    def _look(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        self.looks[name] += 1
        if batch["status"] == "failed":
            return batch
        if self.looks[name] <= self.config.n_looks:
            batch["status"] = "in_progress"
        elif batch["status"] in {"validating", "in_progress"}:
            self._end(batch, self.config.ends[min(int(name[6:]), len(self.config.ends) - 1)])
        return batch

    def _end(self, batch: dict[str, Any], status: str) -> None:
        batch["status"] = status
        if status == "failed":
            fault = {"code": "token_limit_exceeded", "message": "too many tokens queued"}
            batch["errors"] = {"object": "list", "data": [fault]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        answered = lines if status == "completed" else lines[: self.config.n_answered]
        results = [self._result(line) for line in reversed(answered)]
        good = [line for line in results if line["response"]["status_code"] == 200]
        bad = [line for line in results if line["response"]["status_code"] != 200]
        if status == "expired":
            bad += [{"custom_id": line["custom_id"], "response": None,
                     "error": {"code": "batch_expired", "message": "not in time"}}
                    for line in lines[self.config.n_answered:]]  # fmt: skip
        for key, kept in (("output_file_id", good), ("error_file_id", bad)):
            if kept:
                batch[key] = self._store(
                    "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept).encode()
                )["id"]

    def _result(self, line: dict[str, Any]) -> dict[str, Any]:
        shown = line["body"]["messages"][-1]["content"]
        if self.config.fails in shown:
            response = {"status_code": 500, "body": {"error": {"message": "the server had an error"}}}
        else:
            reply = self.endpoint.answer("/chat/completions", b"", json.dumps(line["body"]).encode())
            body = json.loads(reply.body)
            if self.config.breaks in shown:
                body["choices"][0]["message"]["content"] = "I cannot tell."
            response = {"status_code": reply.status, "body": body}
        return {"id": "r", "custom_id": line["custom_id"], "response": response, "error": None}


def _uploaded(headers: str, body: bytes) -> bytes:
    boundary = headers.partition("boundary=")[2].partition("\r\n")[0].partition("\n")[0].strip().strip('"')
    for part in body.split(b"--" + boundary.encode()):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise AssertionError("no file in the upload")


@contextmanager
def batch_server(config: BatchConfig | None = None) -> Iterator[BatchServer]:
    server = BatchServer(config or BatchConfig())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with server.lock:
                status, content = server.answer(self.command, self.path, str(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815 the base class's names

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
