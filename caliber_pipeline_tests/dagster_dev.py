"""`dagster dev` of a temporary project, as a person starts it, and its GraphQL."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

REPO = Path(__file__).parents[1]
START_S = 180  # the code server imports everything; slow where other processes share the cores
STOP_S = 60
POLL_S = 0.5

T = TypeVar("T")


class DagsterDev:
    """`dagster dev` on a free loopback port, in a folder that holds the repository's own settings and some input."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """Start it.

        Args:
            folder: The project's folder; its `data/input` is there already.
            settings: `CALIBER_*` variables.
        """
        for name in ("workspace.yaml", ".env", ".dagster/dagster.yaml"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(REPO / name, folder / name)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CALIBER_", "DAGSTER_"))}
        command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self._log = folder / "dev.log"
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
            signal.signal(signal.SIGINT, signal.default_int_handler)  # dagster would ignore SIGTERM along with it
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, "PWD": str(folder), **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Wait until it answers with the code location loaded."""
        try:
            self.wait_for(self._is_loaded, START_S)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it and what it started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ask(self, query: str, **variables: object) -> Any:  # noqa: ANN401 - the shape is the query's
        """The data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310 - http to loopback
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait_for(self, look: Callable[[], T | None], timeout_s: float) -> T:
        """What `look` returns as soon as that is not None."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.tail()
            if (found := look()) is not None:
                return found
            time.sleep(POLL_S)
        raise TimeoutError(self.tail())

    def tail(self) -> str:
        """The end of what it logged."""
        return self._log.read_text()[-4000:]

    def _is_loaded(self) -> bool | None:
        try:
            workspace = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None
        entries = workspace["workspaceOrError"]["locationEntries"]
        return True if entries and all(entry["loadStatus"] == "LOADED" for entry in entries) else None
