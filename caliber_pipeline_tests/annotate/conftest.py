from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from caliber_pipeline_tests.annotate.page_server import PageServer

Open = Callable[..., Page]


@pytest.fixture
def server(tmp_path: Path, assets: Path) -> Iterator[PageServer]:
    """The annotation page over the records of the `assets` fixture."""
    started = PageServer(assets, f"sqlite:///{tmp_path}/annotations.sqlite")
    yield started
    started.stop()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """Opens the page as somebody, in a browser of their own; fails the test where a page reports an error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_(server: PageServer, annotator: str, **context_settings: object) -> Page:
        context = chromium.new_context(**context_settings)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.fill("#annotator", annotator)
        page.click("button[type=submit]")
        page.wait_for_selector("#sheet:not([hidden])")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
