"""Fixtures that all tests share: small real projects, and the real data sets where they are at hand."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import hypothesis
import pytest
import sqlalchemy as sa
from pytest_socket import socket_allow_hosts

from caliber_pipeline.resources import Project
from caliber_pipeline_tests.projects import make_planted

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
REAL_DATA = Path(__file__).parents[2] / "shared" / "datasets"

# a busy machine takes longer than any deadline at times, and none of these tests is about time
hypothesis.settings.register_profile("caliber", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("caliber")

# Ray's workers have niceness 15 of their own, at which they wait for whatever tests run beside them
os.environ.update(RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")


@sa.event.listens_for(sa.Engine, "connect")
def write_without_waiting(connection: Any, _: object) -> None:  # noqa: ANN401 any driver's
    """Do not wait for the disk: no test's Dagster storage need survive a loss of power."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(autouse=True)
def stay_on_this_machine(request: pytest.FixtureRequest) -> None:
    """Refuse connections beyond loopback; the plugin lifts that after each test.

    Slow tests drive programs that look further for reasons of their own, such as Ray for this machine's address.
    """
    if request.node.get_closest_marker("slow") is None:
        socket_allow_hosts(["127.0.0.0/8", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real human judgments beside the checkout."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"{REAL_DATA} is not at hand")
    return REAL_DATA


@pytest.fixture
def planted(tmp_path: Path) -> Project:
    """A project whose judge ignores every rule that its criteria do not quote; nothing is ingested yet."""
    return make_planted(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of its own."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The URL of an S3 server on loopback.

    One for all tests of a process: s3fs keeps its clients, and with them the server that the first one found.
    """
    pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            url = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
            # it goes on telling of every request, and would wait if nobody read that
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield url
        finally:
            server.kill()


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, with the variables that lead there."""
    from upath import UPath

    monkeypatch.setenv("AWS_ENDPOINT_URL", object_store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    url = f"s3://{uuid.uuid4().hex}"
    UPath(url).mkdir()
    return url


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """The system's Chromium, headless.

    Not for longer than a module: Playwright's loop runs on as long as it is open, and no other may run in the thread.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # what is expected comes at once; a busy machine takes longer
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
