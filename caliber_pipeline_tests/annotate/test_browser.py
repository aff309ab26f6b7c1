from collections.abc import Callable, Sequence
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from caliber_pipeline_tests.annotate.page_server import PageServer
from caliber_pipeline_tests.annotate.sample_records import HOSTILE, write_judge_and_patterns, write_records

pytestmark = pytest.mark.slow

Open = Callable[..., Page]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
CODE = (
    "Intro **bold**\n\n```python\nx = 1  # "
    + "long " * 60
    + "\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one\n2. two"
)
TEXTS: dict[str, dict[str, str | None]] = {
    "r02": {"query": HOSTILE, "output": HOSTILE, "reference": HOSTILE},
    "r03": {"output": CODE, "reference": "with a reference"},
    "r04": {"query": "מתי תגיע ההזמנה?", "output": "שלום! ביום חמישי.\nBy Thursday.", "reference": "يوم الخميس 🚚"},
    "r05": {"output": ("A long answer. " * 60 + "\n\n") * 30 + "word" * 200},
}


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    write_records(folder, 30, TEXTS)
    write_judge_and_patterns(folder)
    return folder


def at(page: Page, record_id: str) -> None:
    expect(page.locator("#sheet")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#where")).to_contain_text(record_id)


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("Saved")


def wait_for(page: Page, held: Sequence[object], act: Callable[[], None] = lambda: None) -> None:
    """Wait until a request is held, acting now and then, as long as the page's other waits do."""
    for _ in range(750):
        if held:
            return
        act()
        page.wait_for_timeout(20)
    pytest.fail("no request came within 15 s")


def stored(server: PageServer, annotator: str) -> dict[str, tuple[int, str | None]]:
    table = server.store.annotations()
    own = table[table["annotator"] == annotator]
    notes = own["notes"].astype(object).where(own["notes"].notna(), None)
    return {r: (int(s), n) for r, s, n in zip(own["record_id"], own["score"], notes, strict=True)}


def test_twenty_records_are_annotated_by_keyboard_alone(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    expected: dict[str, tuple[int, str | None]] = {}
    for i in range(20):
        at(page, f"r{i:02d}")
        if i % 4 == 0:  # a note first, then the verdict
            page.keyboard.press("n")
            page.keyboard.type(f"note {i} ar")
            page.keyboard.press("Escape")
            page.keyboard.press("3")
            page.keyboard.press("a")
            expected[f"r{i:02d}"] = (1, f"note {i} ar")
        elif i % 4 == 1:  # a reject asks why
            page.keyboard.press("r")
            expect(page.locator("#note")).to_be_focused()
            page.keyboard.type(f"bad {i}")
            page.keyboard.press("Enter")
            expected[f"r{i:02d}"] = (0, f"bad {i}")
        elif i % 4 == 2:
            page.keyboard.press("s")
        else:
            page.keyboard.press("a")
            expected[f"r{i:02d}"] = (1, None)
    at(page, "r20")
    saved(page)
    assert stored(server, "ada") == expected
    expect(page.locator("#progress-text")).to_have_text("15 of 30 · 5 skipped")
    table = server.store.annotations().set_index("record_id")
    assert table["severity"].dropna().to_dict() == {f"r{i:02d}": 2.0 for i in range(0, 20, 4)}


def test_writing_a_note_does_not_move_the_record(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada", viewport={"width": 1180, "height": 500})
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    at(page, "r05")
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(300)
    place = page.evaluate("scrollY")
    assert place > 200
    page.keyboard.press("r")
    page.keyboard.type("a note that is long enough to fill a line and more than one " * 4)
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    saved(page)
    assert page.evaluate("scrollY") == place


def test_arrows_walk_and_undo_takes_verdicts_back_one_by_one(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    for key in ("a", "s", "a"):
        page.keyboard.press(key)
    at(page, "r03")
    page.keyboard.press("ArrowLeft")
    at(page, "r02")
    expect(page.locator("#accept")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("r")
    page.keyboard.type("changed my mind")
    page.keyboard.press("Escape")
    saved(page)
    assert stored(server, "ada")["r02"] == (0, "changed my mind")
    page.keyboard.press("ArrowRight")
    at(page, "r03")
    for record, verdict in (("r02", "✓ Accepted"), ("r02", ""), ("r01", ""), ("r00", "")):
        page.keyboard.press("u")
        at(page, record)
        expect(page.locator("#verdict")).to_have_text(verdict)
    expect(page.locator("#undo")).to_be_disabled()
    saved(page)
    assert stored(server, "ada") == {}
    assert (server.store.history()["action"] == "undo").sum() == 4


def test_an_impatient_second_press_does_not_undo_a_second_time(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("a")
    page.keyboard.press("a")
    saved(page)
    page.reload()
    at(page, "r02")
    held: list[Route] = []
    page.route("**/api/records?id=r01", lambda route: held.append(route))
    page.keyboard.press("u")
    wait_for(page, held, lambda: page.keyboard.press("u"))
    page.keyboard.press("u")
    for route in held:
        route.continue_()
    at(page, "r01")
    saved(page)
    assert set(stored(server, "ada")) == {"r00"}
    assert (server.store.history()["action"] == "undo").sum() == 1


def test_two_annotators_at_once_do_not_see_or_disturb_each_other(server: PageServer, open_page: Open) -> None:
    ada, ben = open_page(server, "ada"), open_page(server, "ben")
    for _ in range(5):
        ada.keyboard.press("a")
        ben.keyboard.press("r")
        ben.keyboard.type("no")
        ben.keyboard.press("Enter")
    for page in (ada, ben):
        at(page, "r05")
        saved(page)
    assert set(stored(server, "ada").values()) == {(1, None)}
    assert set(stored(server, "ben").values()) == {(0, "no")}
    ada.keyboard.press("ArrowLeft")
    at(ada, "r04")
    assert "ben" not in ada.content()
    ada.keyboard.press("o")
    expect(ada.locator("#revealed")).to_contain_text("ben rejects")
    ada.keyboard.press("r")
    ada.keyboard.press("Escape")
    saved(ada)
    assert server.store.history().iloc[-1]["saw_others"]


def test_the_judge_is_shown_only_on_request(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    assert "clear" not in page.content()
    page.keyboard.press("j")
    expect(page.locator("#revealed")).to_contain_text("The judge (m) accepts, 90 % sure")
    expect(page.locator("#revealed")).to_contain_text("clear <b>answer</b>")
    page.keyboard.press("j")
    expect(page.locator("#revealed")).to_be_empty()
    page.keyboard.press("j")
    page.keyboard.press("r")  # what was asked for stays while one says why
    expect(page.locator("#note")).to_be_focused()
    expect(page.locator("#revealed")).to_contain_text("clear <b>answer</b>")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    at(page, "r01")
    expect(page.locator("#revealed")).to_be_empty()
    saved(page)
    assert server.store.history().iloc[-1]["saw_judge"]


def test_a_reload_in_the_middle_of_a_note_loses_nothing(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("a")
    page.keyboard.press("n")
    page.keyboard.type("half a thou")
    page.reload()
    at(page, "r01")
    expect(page.locator("#note")).to_have_value("half a thou")
    page.keyboard.press("n")
    page.keyboard.press("End")
    page.keyboard.type("ght")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    saved(page)
    assert stored(server, "ada") == {"r00": (1, None), "r01": (0, "half a thought")}


def test_a_record_whose_text_changes_is_open_again_and_says_so(
    server: PageServer, open_page: Open, assets: Path
) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("r")
    page.keyboard.type("the date is wrong")
    page.keyboard.press("Enter")
    page.keyboard.press("a")
    at(page, "r02")
    saved(page)
    write_records(assets, 30, TEXTS | {"r00": {"output": "The date is 7 May."}})
    page.keyboard.press("u")  # back to r01, whose text is the same
    at(page, "r01")
    saved(page)
    page.goto(server.url)
    expect(page.locator("#progress-text")).to_have_text("0 of 30")
    page.keyboard.press("f")
    page.select_option("#filter", "all")
    page.select_option("#filter", "open")
    at(page, "r00")
    expect(page.locator("#changed")).to_have_text(
        "You rejected this record when its text was another. Please judge it as it is now."
    )
    expect(page.locator("#note")).to_have_value("the date is wrong")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    at(page, "r01")
    expect(page.locator("#changed")).to_be_hidden()
    saved(page)
    last = server.store.state("r00", "ada")
    assert last is not None
    assert (last.status, last.notes) == ("accepted", "the date is wrong")


def test_work_goes_on_while_the_server_is_away_and_arrives_once_it_is_back(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("a")
    saved(page)
    server.stop()
    for i in range(1, 6):
        at(page, f"r{i:02d}")
        page.keyboard.press("r")
        page.keyboard.type(f"typed offline {i}")
        page.keyboard.press("Enter")
    at(page, "r06")
    expect(page.locator("#saved")).to_contain_text("kept here")
    page.keyboard.press("n")
    page.keyboard.type("still here")
    server.start()
    page.reload()
    at(page, "r06")
    expect(page.locator("#note")).to_have_value("still here")
    saved(page)
    assert stored(server, "ada") == {"r00": (1, None)} | {f"r0{i}": (0, f"typed offline {i}") for i in range(1, 6)}
    assert server.store.history()["event_id"].is_unique


def test_a_search_without_a_connection_claims_nothing_and_is_answered_once_it_is_back(
    server: PageServer, open_page: Open
) -> None:
    page = open_page(server, "ada")
    server.stop()
    page.fill("#search", "number 17")
    expect(page.locator("#nothing-text")).to_have_text("The records come as soon as the server answers.")
    expect(page.locator("#notice")).to_contain_text("No connection to the server.")
    server.start()
    at(page, "r17")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_page_that_could_ask_nothing_at_first_catches_up(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    page.route("**/api/**", lambda route: route.abort())
    page.reload()
    expect(page.locator("#nothing-text")).to_have_text("The records come as soon as the server answers.")
    page.unroute_all()
    expect(page.locator("#where")).to_have_text("Record 1 of 30 · r00")
    expect(page.locator("#progress-text")).to_have_text("0 of 30")
    expect(page.locator("#filter")).to_have_value("open")


def test_a_lost_answer_does_not_double_what_was_stored(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    lost: list[int] = []

    def lose_the_first(route: object) -> None:
        if lost:
            route.continue_()  # type: ignore[attr-defined]
            return
        lost.append(route.fetch().status)  # type: ignore[attr-defined]  # the server stores it
        route.abort()  # type: ignore[attr-defined]  # and the browser never hears of it

    page.route("**/api/events", lose_the_first)
    page.keyboard.press("a")
    wait_for(page, lost)
    saved(page)
    assert lost == [200]
    assert len(server.store.history()) == 1


def test_a_second_person_in_the_same_browser_leaves_the_firsts_work_alone(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    other = page.context.new_page()
    other.goto(f"{server.url}?who")
    other.fill("#annotator", "ben")
    other.click("button[type=submit]")
    other.wait_for_selector("#sheet:not([hidden])")
    page.keyboard.press("a")
    expect(page.locator("#notice")).to_contain_text("signed in as ben")
    assert stored(server, "ada") == stored(server, "ben") == {}
    page.goto(f"{server.url}?who")
    page.fill("#annotator", "ada")
    page.click("button[type=submit]")
    saved(page)
    assert stored(server, "ada") == {"r00": (1, None)}


def test_hostile_record_text_is_shown_and_never_runs(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada", viewport={"width": 1200, "height": 800})
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    at(page, "r02")
    for _ in range(2):
        for name in ("query", "output", "reference"):
            expect(page.locator(f"#{name}")).to_contain_text("<script>window.ran = 1</script>")
            expect(page.locator(f"#{name}")).to_contain_text("{{ 7+7 }} ${7+7}")
        page.keyboard.press("m")
    assert page.evaluate("window.ran") is None
    assert page.locator("main :is(script, img, svg, iframe, a, style)").count() == 0
    blocked = page.evaluate("""() => {
        try {
            document.querySelector('#output').innerHTML = '<b>x</b>';
            return 'set';
        } catch (error) {
            return error.name;
        }
    }""")
    assert blocked == "TypeError"  # trusted types: even a fault of ours could not turn text into HTML


def test_right_to_left_text_code_and_tables_are_laid_out(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    at(page, "r03")
    assert page.locator("#output :is(pre, table, ol, strong)").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("m")
    expect(page.locator("#output")).to_contain_text("```python")
    page.keyboard.press("ArrowRight")
    at(page, "r04")
    assert page.evaluate("""() => {
        const range = document.createRange();
        range.selectNodeContents(document.querySelector('#query'));
        const text = range.getBoundingClientRect(), box = document.querySelector('#query').getBoundingClientRect();
        return box.right - text.right < 2 && text.left - box.left > 50;
    }"""), "a right-to-left text starts at the right"


@pytest.mark.parametrize("width", [320, 360, 768])
def test_at_phone_width_nothing_sticks_out_and_touch_suffices(server: PageServer, open_page: Open, width: int) -> None:
    page = open_page(server, "ada", **(PHONE | {"viewport": {"width": width, "height": 740}}))
    for i in range(6):
        at(page, f"r{i:02d}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#accept").bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= 740
        page.tap("#accept")
    page.tap("#undo")
    at(page, "r05")
    saved(page)
    assert list(stored(server, "ada")) == [f"r{i:02d}" for i in range(5)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(server: PageServer, open_page: Open, scheme: str) -> None:
    page = open_page(server, "ada", color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    page.evaluate(AXE)

    def violations() -> list[str]:
        found = page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        return [f"{v['impact']} {v['id']}: {v['nodes'][0]['html'][:200]}" for v in found["violations"]]

    page.keyboard.press("j")
    expect(page.locator("#revealed .opinion")).to_be_visible()
    assert violations() == []
    page.keyboard.press("r")
    assert violations() == []
    page.keyboard.press("Enter")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    at(page, "r03")
    assert violations() == []
    page.keyboard.press("?")
    assert violations() == []
    page.goto(f"{server.url}?who")
    page.evaluate(AXE)
    assert violations() == []


def test_every_control_is_reached_by_tab_with_a_visible_focus(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        id_, outline = page.evaluate("""() => {
            const element = document.activeElement;
            const target = element.matches('[type=radio]') ? element.nextSibling : element;
            return [element.id || element.name || element.className, getComputedStyle(target).outlineStyle];
        }""")
        if id_ in {"", None}:
            break
        assert outline != "none", f"no visible focus on {id_}"
        reached.append(id_)
    expected = ["skip-link", "filter", "search", "show-menu", "show-judge", "show-others", "note", "severity", "accept",
                "reject", "skip", "previous", "next"]  # fmt: skip
    assert [name for name in reached if name in expected][: len(expected)] == expected


def test_search_filters_and_the_end_of_the_list(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("/")
    page.keyboard.type("number 17")
    at(page, "r17")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#nothing-text")).to_contain_text("number 17")
    page.click("text=Search in all records")
    at(page, "r17")
    expect(page.locator("#search")).to_have_value("number 17")
    page.fill("#search", "nowhere")
    expect(page.locator("#back")).to_be_hidden()
    page.click("text=Show all records")
    at(page, "r00")
    expect(page.locator("#search")).to_have_value("")
    page.select_option("#filter", "pattern-p1")
    at(page, "r03")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    at(page, "r04")
    page.select_option("#filter", "done")
    at(page, "r03")
    page.select_option("#filter", "abstained")
    at(page, "r02")
    saved(page)
    assert sorted(stored(server, "ada")) == ["r03", "r17"]


def test_the_last_record_ends_with_thanks_and_the_way_back(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    for i in range(30):
        at(page, f"r{i:02d}")
        page.keyboard.press("s" if i % 2 else "a")
    expect(page.locator("#nothing-text")).to_have_text("Every record is annotated or skipped. Thank you.")
    page.click("text=Back to the last record")
    at(page, "r29")
    page.keyboard.press("u")
    expect(page.locator("#verdict")).to_have_text("")
    page.keyboard.press("a")
    expect(page.locator("#nothing-text")).to_be_visible()
    saved(page)
    assert len(stored(server, "ada")) == 16


def test_an_answer_older_than_a_verdict_does_not_open_the_record_again(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    held: list[tuple[Route, APIResponse]] = []
    for i in range(12):
        at(page, f"r{i:02d}")
        page.keyboard.press("a")
    at(page, "r12")
    page.route("**/api/records?*", lambda route: held.append((route, route.fetch())))
    for i in range(12, 18):
        at(page, f"r{i:02d}")
        page.keyboard.press("ArrowRight")
    at(page, "r18")
    wait_for(page, held)  # what comes after r23: the end, and r12 to r17, still open when the server looked
    page.keyboard.press("ArrowLeft")
    at(page, "r17")
    page.keyboard.press("a")
    at(page, "r18")
    saved(page)
    for route, answer in held:
        route.fulfill(response=answer)
    page.unroute_all()
    for i in [*range(18, 30), *range(12, 17)]:
        at(page, f"r{i:02d}")
        page.keyboard.press("a")
    expect(page.locator("#nothing-text")).to_be_visible()
    saved(page)
    assert set(stored(server, "ada")) == {f"r{i:02d}" for i in range(30)}


def test_a_choice_made_while_the_page_opens_is_not_mixed_with_what_it_opens(
    server: PageServer, open_page: Open
) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("ArrowRight")
    at(page, "r01")
    held: list[Route] = []
    page.route("**/api/records?id=r01", lambda route: held.append(route))
    page.goto(server.url, wait_until="commit")
    wait_for(page, held)
    page.select_option("#filter", "all")
    held[0].continue_()
    at(page, "r00")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    at(page, "r29")  # the records go round


def test_single_key_shortcuts_can_be_turned_off(server: PageServer, open_page: Open) -> None:
    page = open_page(server, "ada")
    page.keyboard.press("?")
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    at(page, "r00")
    page.keyboard.press("ArrowRight")
    at(page, "r01")
    assert stored(server, "ada") == {}
