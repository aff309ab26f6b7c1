"""Fixtures that all tests share: small real projects, and the real data sets where they are at hand."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import hypothesis
import pytest
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


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """The system's Chromium, headless.

    Not for longer than a module: Playwright's loop runs on as long as it is open, and no other may run in the thread.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
