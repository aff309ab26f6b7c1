import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from caliber_pipeline.annotate.app import MAX_BODY_BYTES, PageSettings, create_app
from caliber_pipeline.annotate.records import Assets
from caliber_pipeline.annotate.security import allowed_hosts
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.stores.annotation_store import AnnotationStore
from caliber_pipeline_tests.annotate.sample_records import HOSTILE, write_judge_and_patterns, write_records

TOKEN = "a-token-of-24-characters"  # noqa: S105


class Browser(TestClient):
    """A client that keeps cookies and sends the page's CSRF token, as the page does."""

    csrf = ""

    def open(self, path: str = "/") -> str:
        page = self.get(path).text
        self.csrf = re.findall(r'name="csrf-token" content="(\w+)"', page)[0]
        return page

    def change(self, path: str, content: object, **headers: str) -> Response:
        return self.post(path, json=content, headers={"x-csrf-token": self.csrf} | headers)

    def sign_in(self, name: str, token: str = "") -> Response:
        self.open()
        answer = self.change("/session", {"annotator": name, "token": token})
        if answer.status_code == 200:
            self.open()
        return answer

    def judge(
        self, annotator: str, record_id: str, score: int | None, event_id: str | None = None, **more: object
    ) -> Response:
        event = {
            "event_id": event_id or f"{annotator}-{record_id}-{score}",
            "record_id": record_id, "action": "annotate", "score": score,
        } | more  # fmt: skip
        return self.change("/api/events", {"annotator": annotator, "events": [event]})


class Site:
    def __init__(self, folder: Path) -> None:
        self.assets = folder / "assets"
        self.ids = write_records(self.assets, texts={"r05": {"output": HOSTILE, "reference": "**fine**"}})
        self.store = AnnotationStore(folder / "a.sqlite")

    def browser(self, host: str = "127.0.0.1:8765", **settings: Any) -> Browser:  # noqa: ANN401 - of create_app
        app = create_app(
            Assets(self.assets), self.store, port=8765, **({"hosts": allowed_hosts("127.0.0.1")} | settings)
        )
        return Browser(app, base_url=f"http://{host}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def ada(site: Site) -> Browser:
    browser = site.browser()
    browser.sign_in("ada")
    return browser


def test_a_new_browser_is_asked_who_sits_there(site: Site) -> None:
    browser = site.browser()
    assert "Who is annotating?" in browser.open()
    assert browser.get("/api/overview").status_code == 401
    assert browser.sign_in("  Ada Lovelace  ").json() == {"annotator": "Ada Lovelace"}
    assert '<meta name="annotator" content="Ada Lovelace">' in browser.open()
    assert "Who is annotating?" in browser.open("/?who")


def test_the_annotator_can_be_given_at_the_start(site: Site) -> None:
    browser = site.browser(settings=PageSettings(default_annotator="ben"))
    assert '<meta name="annotator" content="ben">' in browser.open()
    assert browser.get("/api/overview").status_code == 200


def test_a_name_is_escaped_on_the_page_and_gold_is_refused(site: Site) -> None:
    browser = site.browser()
    browser.sign_in('"><script>alert(1)</script>')
    assert "<script>alert(1)" not in browser.open()
    assert browser.sign_in("Gold").status_code == 400
    assert browser.sign_in(" ").status_code == 400
    assert browser.sign_in("a\tb").status_code == 400


def test_a_verdict_is_stored_once_however_often_it_is_sent(site: Site, ada: Browser) -> None:
    for _ in range(2):
        answer = ada.judge("ada", "r03", 0, notes="too short", severity=2).json()
        assert answer["results"] == [{"event_id": "ada-r03-0", "status": "stored"}]
    assert answer["progress"] == {"open": 29, "accepted": 0, "rejected": 1, "skipped": 0, "total": 30}
    history = site.store.history()
    assert history[["record_id", "annotator", "score", "notes", "severity"]].to_numpy().tolist() == [
        ["r03", "ada", 0, "too short", 2.0]
    ]


def test_of_a_batch_only_what_cannot_be_meant_is_refused_and_named(site: Site, ada: Browser) -> None:
    events = [
        {"event_id": "e1", "record_id": "r01", "action": "annotate", "score": 1},
        {"event_id": "e2", "record_id": "gone", "action": "annotate", "score": 1},
        {"event_id": "e3", "record_id": "r02", "action": "annotate"},
        {"event_id": "e4", "record_id": "r02", "action": "skip", "is_skipped": True},
    ]
    results = ada.change("/api/events", {"annotator": "ada", "events": events}).json()["results"]
    assert [r["status"] for r in results] == ["stored", "refused", "refused", "stored"]
    assert "no record 'gone'" in results[1]["reason"]
    assert "has no score" in results[2]["reason"]
    assert site.store.history()["event_id"].tolist() == ["e1", "e4"]


@pytest.mark.parametrize(
    "events",
    [
        [{"event_id": "e", "record_id": "r01", "action": "import", "score": 1}],
        [{"event_id": "e", "record_id": "r01", "action": "annotate", "score": 2}],
        [{"event_id": "e", "record_id": "r01", "action": "annotate", "score": 1, "notes": "a\0b"}],
        [{"event_id": "e", "record_id": "r01", "action": "annotate", "score": 1, "created_at": "2020-01-01"}],
        [{"event_id": "e", "record_id": "r01", "action": "annotate", "score": 1, "annotator": "ben"}],
        [{"event_id": "e", "record_id": "r01", "action": "annotate", "score": 1, "severity": -1}],
        [{"event_id": str(i), "record_id": "r01", "action": "annotate", "score": 1} for i in range(51)],
        "none",
    ],
)
def test_what_the_page_never_sends_is_refused_whole(site: Site, ada: Browser, events: object) -> None:
    assert ada.change("/api/events", {"annotator": "ada", "events": events}).status_code == 400
    assert site.store.last_seq() == 0


def test_a_body_that_is_too_large_or_no_json_is_refused(ada: Browser) -> None:
    assert ada.post("/api/events", content=b"{", headers={"x-csrf-token": ada.csrf}).status_code == 400
    large = ada.post("/api/events", content=b"x" * (MAX_BODY_BYTES + 1), headers={"x-csrf-token": ada.csrf})
    assert large.status_code == 413
    surrogate = b'{"annotator": "ada", "events": [{"event_id": "\\ud800"}]}'
    assert ada.post("/api/events", content=surrogate, headers={"x-csrf-token": ada.csrf}).status_code == 400


def test_a_page_of_somebody_who_left_cannot_judge_for_the_one_who_came(site: Site, ada: Browser) -> None:
    ada.sign_in("ben")
    answer = ada.judge("ada", "r01", 1)
    assert answer.status_code == 409
    assert "signed in as ben" in answer.json()["error"]
    assert site.store.last_seq() == 0


def test_changes_need_the_token_of_their_own_session(site: Site, ada: Browser) -> None:
    other = site.browser()
    other.sign_in("mallory")
    for token in ("", "x", other.csrf):
        ada.csrf = token
        assert ada.judge("ada", "r01", 1).status_code == 403
    assert site.store.last_seq() == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8765"},
        {"host": "192.168.1.7:8765"},
        {"host": "[bad"},
    ],
)
def test_requests_from_elsewhere_or_for_another_host_are_refused(
    site: Site, ada: Browser, headers: dict[str, str]
) -> None:
    answer = ada.change("/api/events", {"annotator": "ada", "events": []}, **headers)
    assert answer.status_code == 403
    own = ada.change("/api/events", {"annotator": "ada", "events": []}, origin="http://127.0.0.1:8765")
    assert own.status_code == 200
    if "host" in headers:
        assert ada.get("/", headers=headers).status_code == 403


def test_beyond_loopback_any_address_or_allowed_name_is_answered_but_no_other(site: Site) -> None:
    hosts = allowed_hosts("0.0.0.0", ["notes.example"])  # noqa: S104
    for host, status in (("192.168.1.7:8765", 200), ("notes.example", 200), ("[::1]:8765", 200), ("evil.example", 403)):
        assert site.browser(host, hosts=hosts, is_open=True, token=TOKEN).get("/").status_code == status


def test_the_token_is_demanded_once_and_kept_out_of_the_address(site: Site) -> None:
    browser = site.browser(token=TOKEN)
    assert "Token" in browser.open()
    assert browser.sign_in("ada", "wrong").status_code == 403
    assert browser.get("/?token=wrong", follow_redirects=False).headers["location"] == "/"
    assert browser.get("/api/overview").status_code == 401
    assert browser.sign_in("ada", TOKEN).status_code == 200
    assert browser.get("/api/overview").status_code == 200
    by_link = site.browser(token=TOKEN)
    assert 'id="token"' not in by_link.open(f"/?token={TOKEN}")
    assert by_link.sign_in("ben").status_code == 200


def test_another_token_ends_the_sessions_of_the_earlier_one(site: Site) -> None:
    browser = site.browser(token=TOKEN)
    browser.sign_in("ada", TOKEN)
    later = site.browser(token=TOKEN[::-1])
    later.cookies = browser.cookies
    assert later.get("/api/overview").status_code == 401


def test_a_forged_cookie_is_worth_nothing(site: Site, ada: Browser) -> None:
    name, value = next(iter(ada.cookies.items()))
    for forged in (value[:-1], f"x{value}", "", ".", value.split(".")[0]):
        browser = site.browser()
        browser.cookies.set(name, forged)
        assert browser.get("/api/overview").status_code == 401


def test_a_restarted_server_knows_its_annotators(site: Site, ada: Browser) -> None:
    restarted = site.browser()
    restarted.cookies, restarted.csrf = ada.cookies, ada.csrf
    assert restarted.judge("ada", "r01", 1).status_code == 200


def test_every_answer_carries_the_security_headers(site: Site, ada: Browser) -> None:
    answers = [ada.get(path) for path in ("/", "/static/app.js", "/api/overview", "/nowhere")]
    answers.append(ada.get("/", headers={"host": "evil.example"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "trusted-types 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    cookie = site.browser().get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_no_page_has_script_or_style_of_its_own(site: Site, ada: Browser) -> None:
    for page in (ada.get("/").text, site.browser().get("/").text):
        assert re.search(r"<style|\sstyle=|\son\w+=|javascript:", page) is None
        assert re.findall(r"<script(?![^>]*src=)", page) == []


def test_static_files_stay_in_their_folder(ada: Browser) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert ada.get(path).status_code == 404


def ids(browser: Browser, **query: str) -> list[str]:
    return [record["id"] for record in browser.get("/api/records", params=query).json()["records"]]


def test_records_come_in_order_around_the_end_and_backwards(site: Site, ada: Browser) -> None:
    assert ids(ada, n="3") == ["r00", "r01", "r02"]
    assert ids(ada, n="3", **{"from": "r28"}) == ["r29", "r00", "r01"]
    assert ids(ada, n="2", direction="previous", **{"from": "r01"}) == ["r00", "r29"]
    assert {len(ids(ada, n=n)) for n in ("9999", "9" * 9999, "\u00b2", "-1", "")} == {20}
    assert ids(ada, id="r07") == ["r07"]
    assert ada.get("/api/records", params={"id": "gone"}).status_code == 404


def test_filters_show_what_the_person_did_and_what_the_pipeline_asks_for(site: Site, ada: Browser) -> None:
    write_judge_and_patterns(site.assets)
    planned = ["r20", "r08", "not-there", "r11"]
    plan = pa.table({"record_id": planned, "inclusion_probability": [1.0, 0.25, 0.5, 0.75]})
    pq.write_table(plan, site.assets / "label_plan.parquet")
    ada.judge("ada", "r00", 1)
    ada.judge("ada", "r01", None, action="skip", is_skipped=True)
    overview = ada.get("/api/overview").json()
    assert {f["key"]: (f["label"], f["count"]) for f in overview["filters"]} == {
        "open": ("Not annotated", 28), "done": ("Annotated", 1), "skipped": ("Skipped", 1), "all": ("All records", 30),
        "plan": ("To label next", 3), "relabel": ("To relabel", 2), "abstained": ("Judge abstained", 2),
        "pattern-p1": ("Too vague", 2),
    }  # fmt: skip
    assert ids(ada, filter="done") == ["r00"]
    assert ids(ada, filter="skipped") == ["r01"]
    assert ids(ada, filter="relabel") == ["r05", "r06"]
    assert ids(ada, filter="abstained") == ["r02", "r06"]
    assert ids(ada, filter="pattern-p1") == ["r03", "r04"]
    assert ids(ada, filter="open", n="2") == ["r02", "r03"]
    assert ada.get("/api/records", params={"filter": "none"}).status_code == 400
    # the plan's own order: it is random, so that a part of it is a sample too
    assert ids(ada, filter="plan") == ["r20", "r08", "r11"]
    assert ids(ada, filter="plan", **{"from": "r08"}) == ["r11", "r20"]
    assert ids(ada, filter="plan", direction="previous", **{"from": "r08"}) == ["r20", "r11"]
    ada.judge("ada", "r08", 0)
    assert ids(ada, filter="plan", **{"from": "r08"}) == ["r11", "r20"]
    assert site.store.annotations().set_index("record_id")["inclusion_probability"]["r08"] == 0.25


def test_search_is_in_all_texts_whatever_the_case(ada: Browser) -> None:
    assert ids(ada, filter="all", q="NUMBER 17") == ["r17"]
    assert ids(ada, filter="all", q="**FINE**") == ["r05"]
    assert ids(ada, filter="all", q="r02") == ["r02"]
    assert ids(ada, filter="all", q="(no such") == []


def test_another_persons_verdicts_come_only_when_asked_for(site: Site, ada: Browser) -> None:
    write_judge_and_patterns(site.assets)
    ben = site.browser()
    ben.sign_in("ben")
    ben.judge("ben", "r00", 0, notes="secret reason")
    seen = ada.get("/").text + ada.get("/api/overview").text + ada.get("/api/records", params={"filter": "all"}).text
    assert "secret reason" not in seen
    assert "clear <b>answer" not in seen
    assert '"state":null' in seen.replace(" ", "")
    asked = ada.get("/api/reveal", params={"id": "r00", "what": "others"}).json()["others"]
    assert [(o["annotator"], o["score"], o["notes"]) for o in asked] == [("ben", 0, "secret reason")]
    verdict = ada.get("/api/reveal", params={"id": "r00", "what": "judge"}).json()["judge"]
    assert (verdict["llm_score"], verdict["llm_reasoning"]) == (1, "clear <b>answer</b>")
    assert ada.get("/api/reveal", params={"id": "r09", "what": "judge"}).json() == {"judge": None}
    ada.judge("ada", "r00", 1, saw_others=True, saw_judge=True)
    last = site.store.history().iloc[-1]
    assert (last["saw_others"], last["saw_judge"]) == (True, True)


def test_metadata_is_shown_only_where_asked_for(site: Site, ada: Browser) -> None:
    assert ada.get("/api/records").json()["records"][0]["metadata"] == []
    browser = site.browser(settings=PageSettings(default_annotator="x", shown_columns=("topic", "none")))
    browser.open()
    assert browser.get("/api/records").json()["records"][1]["metadata"] == [["topic", "t1"]]


@pytest.mark.parametrize("format_", ["csv", "label-studio", "argilla"])
def test_an_export_from_the_page_holds_ones_own_annotations_alone(site: Site, ada: Browser, format_: str) -> None:
    ben = site.browser()
    ben.sign_in("ben")
    ben.judge("ben", "r01", 0, notes="of ben")
    ada.judge("ada", "r02", 1, notes="of ada")
    answer = ada.get(f"/api/export/{format_}")
    assert "of ada" in answer.text
    assert "ben" not in answer.text
    assert "attachment" in answer.headers["content-disposition"]
    assert format_ == "csv" or len(json.loads(answer.text)) == 1
    assert ada.get("/api/export/xlsx").status_code == 404


def test_new_records_appear_without_a_restart(site: Site, ada: Browser) -> None:
    ada.judge("ada", "r29", 1)
    write_records(site.assets, n=40)
    os.utime(site.assets / "records.parquet", ns=(1, 1))
    overview = ada.get("/api/overview").json()
    assert (overview["progress"]["total"], overview["progress"]["accepted"]) == (40, 1)


def test_work_done_through_another_server_on_the_store_counts(site: Site, ada: Browser) -> None:
    elsewhere = site.browser()
    elsewhere.cookies, elsewhere.csrf = ada.cookies, ada.csrf
    ada.judge("ada", "r00", 1)
    elsewhere.judge("ada", "r01", 0)
    assert ids(ada, n="1") == ["r02"]
    ada.judge("ada", "r01", None, action="undo", event_id="u")
    assert ids(elsewhere, n="1") == ["r01"]


def test_the_criteria_of_the_champion_are_offered(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "criteria"
    folder.mkdir()
    (folder / "v001.yaml").write_text("criteria: be kind\n")
    (folder / "v002.yaml").write_text("criteria: [broken\n")
    assert Assets(site.assets, criteria_folder=folder).records().criteria_version == "v001"
    write_judge_and_patterns(site.assets, "v002")
    assert Assets(site.assets, criteria_folder=folder).records().criteria_version is None
    times = pd.to_datetime(["2030-01-02", "2030-01-01"], utc=True)
    history = pa.table({"evaluated_at": pa.array(times), "champion": ["v001", "v002"]})
    pq.write_table(history, site.assets / "calibration_history.parquet")
    assert Assets(site.assets, criteria_folder=folder).records().criteria_text == "be kind"


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"records\.parquet: no such file; run"):
        Assets(tmp_path)
