from datetime import UTC, datetime
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect

from caliber_pipeline.renderers.report import load_report_source, render_report
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline_tests.renderers.stored_runs import store_run

pytestmark = pytest.mark.slow

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store_run(folder)
    tables, files = TableStore(str(folder)), CriteriaFiles(folder / "criteria")
    html = render_report(load_report_source(tables, files, kappa_target=0.6), made_at=datetime(2030, 1, 3, tzinfo=UTC))
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder / "report.html"


def open_report(chromium: Browser, report: Path, **settings: object) -> tuple[Page, list[str]]:
    page = chromium.new_context(**settings).new_page()  # type: ignore[arg-type]
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: requests.append(f"error: {error}"))
    page.on("console", lambda message: requests.append(f"console: {message.text}"))
    page.goto(report.as_uri())
    return page, requests


def test_it_opens_from_disk_alone_and_runs_nothing_of_the_data(chromium: Browser, report: Path) -> None:
    page, requests = open_report(chromium, report)
    expect(page.locator("h1")).to_have_text("Can you trust judge v002?")
    assert requests == [report.as_uri()]
    assert page.evaluate("window.ran") is None
    page.context.close()


def test_the_cases_are_filtered_by_kind_split_and_text(chromium: Browser, report: Path) -> None:
    page, _ = open_report(chromium, report)
    shown = page.locator(".case:visible")
    n = shown.count()
    page.select_option("[name=kind]", "false positive")
    n_false_positives = shown.count()
    page.select_option("[name=kind]", "false negative")
    assert n_false_positives + shown.count() == n
    page.select_option("[name=kind]", "")
    page.select_option("[name=split]", "dev")
    assert 0 < shown.count() < n
    page.select_option("[name=fault]", "judge error unverified")
    assert 0 < shown.count() < n
    page.fill("[name=text]", "people")  # a heading of each case, and in no text
    expect(page.locator("#filters output")).to_have_text(f"0 of {n}")
    page.fill("[name=text]", "NO SUCH TEXT")
    expect(page.locator("#filters output")).to_have_text(f"0 of {n}")
    page.context.close()


def test_without_scripts_every_case_is_there(chromium: Browser, report: Path) -> None:
    page, _ = open_report(chromium, report, java_script_enabled=False)
    assert page.locator(".case:visible").count() > 0
    assert not page.locator("#filters").is_visible()
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_axe_finds_no_violation_and_nothing_sticks_out(
    chromium: Browser, report: Path, scheme: str, width: int
) -> None:
    page, _ = open_report(
        chromium, report, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})")
    assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found["violations"]] == []
    page.context.close()


def test_it_prints_without_the_filters(chromium: Browser, report: Path) -> None:
    page, _ = open_report(chromium, report)
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert page.locator(".verdict").is_visible()
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.context.close()
