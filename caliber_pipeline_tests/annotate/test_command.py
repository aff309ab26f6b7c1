import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pandas as pd
import pytest

from caliber_pipeline.annotate.security import allowed_hosts, check_token, is_loopback
from caliber_pipeline.annotate.serve import listen
from caliber_pipeline.annotate.transfer import load_annotation_file, load_records
from caliber_pipeline.cli import main
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.annotation_store import AnnotationStore
from caliber_pipeline.stores.ingest import load_annotations
from caliber_pipeline.stores.ingest import load_records as load_ingested
from caliber_pipeline_tests.annotate.sample_records import write_records


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    write_records(tmp_path / "out")
    return tmp_path / "out"


def test_annotations_go_to_a_file_of_each_format_and_come_back(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "labels.csv"
    source.write_text("record_id,annotator,score,notes\nr00,ada,1,\nr01,ben,reject,no\nr02,ben,perhaps,\nzz,ben,1,\n")
    options = ["annotate", "--assets", str(assets)]
    assert main([*options, "--import", str(source)]) == 0
    said = capsys.readouterr().err
    assert "2 annotations imported, 0 were there already, 2 rows rejected" in said
    assert "line 4: score 'perhaps' is not 0/1" in said
    for name, format_ in (("a.csv", "csv"), ("a.json", "label-studio"), ("b.json", "argilla")):
        copy = tmp_path / name
        assert main([*options, "--export", str(copy), "--format", format_]) == 0
        again = ["annotate", "--assets", str(assets), "--store", str(tmp_path / f"{format_}.sqlite")]
        assert main([*again, "--import", str(copy)]) == 0
        with AnnotationStore(tmp_path / f"{format_}.sqlite") as store:
            table = store.annotations()
        assert table[["record_id", "annotator", "score"]].to_numpy().tolist() == [["r00", "ada", 1], ["r01", "ben", 0]]
    assert main([*options, "--export", str(tmp_path / "a.csv")]) == 2
    assert "the file exists" in capsys.readouterr().err


def test_records_whose_columns_have_other_names_can_be_judged_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, labels = tmp_path / "export.csv", tmp_path / "labels.csv"
    records.write_text("Ticket;Guest asked;Bot reply\nt1;q;a\n", encoding="utf-8-sig")
    labels.write_text("record_id,score\nt1,1\n")
    command = ["annotate", "--records", str(records), "--output", str(tmp_path / "out"), "--import", str(labels)]
    assert main(command) == 2
    columns = ["query=Guest asked", "output=Bot reply", "record_id=Ticket"]
    assert main([*command, *(word for pair in columns for word in ("--column", pair))]) == 0
    assert "1 annotations imported" in capsys.readouterr().err


def test_rows_that_are_no_records_are_told_of_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records.csv").write_text("id,query,output\nr1,q,a\nr2,,a\nr3,q,\n")
    (tmp_path / "labels.csv").write_text("record_id,score\nr1,1\n")
    files = ["--records", str(tmp_path / "records.csv"), "--import", str(tmp_path / "labels.csv")]
    assert main(["annotate", *files, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "records.csv: 2 rows are no records and not shown; the first, line 3: query is blank\n" in said


@pytest.mark.parametrize(
    ("rows", "first"), [("r1,q,a\nr2,q,b\nr9,q,c\n", "r9"), ("r1,q,a\nr2,q,changed\n", "r2")], ids=["new", "text"]
)
def test_records_that_are_not_the_stored_ones_are_refused_and_the_stored_ones_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, first: str
) -> None:
    (tmp_path / "records.csv").write_text("id,query,output\nr1,q,a\nr2,q,b\n")
    (tmp_path / "others.csv").write_text(f"id,query,output\n{rows}")
    (tmp_path / "labels.csv").write_text("record_id,score\nr1,1\n")
    output = ["--output", str(tmp_path / "out")]
    assert main(["ingest", "--records", str(tmp_path / "records.csv"), *output]) == 0
    command = ["annotate", *output, "--import", str(tmp_path / "labels.csv"), "--records"]
    assert main([*command, str(tmp_path / "records.csv")]) == 0
    capsys.readouterr()
    assert main([*command, str(tmp_path / "others.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        f"others.csv: 1 records are not those in {tmp_path / 'out'}, or have other texts (the first: '{first}')" in line
    )
    assert "run `caliber ingest --records " in line


def test_an_export_that_begins_with_a_byte_order_mark_is_read(assets: Path, tmp_path: Path) -> None:
    task = {"data": {"record_id": "r00"}, "annotations": [{"result": [
        {"from_name": "verdict", "type": "choices", "value": {"choices": ["accept"]}}]}]}  # fmt: skip
    path = tmp_path / "saved_by_an_editor.json"
    path.write_text(json.dumps([task]), encoding="utf-8-sig")
    table, _, rejected = load_annotation_file(path, load_records(assets))
    assert (table["score"].tolist(), rejected) == ([1], [])


def test_files_that_do_not_say_whose_they_are_are_those_of_the_named_annotator(assets: Path, tmp_path: Path) -> None:
    for name, score in (("ada", 1), ("ben", 0)):
        (tmp_path / f"{name}.csv").write_text(f"record_id,score\nr00,{score}\n")
        options = ["--import", str(tmp_path / f"{name}.csv"), "--annotator", name]
        assert main(["annotate", "--assets", str(assets), *options]) == 0
    with AnnotationStore(assets / "annotations.sqlite") as store:
        table = store.annotations()
    assert table[["annotator", "score"]].to_numpy().tolist() == [["ada", 1], ["ben", 0]]


def test_records_that_are_not_there_are_said_to_be_missing(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["annotate", "--assets", str(assets), "--records", str(tmp_path / "nowhere.csv")]) == 2
    assert "nowhere.csv: no such file" in capsys.readouterr().err


def test_an_imported_verdict_does_not_outlive_the_text_that_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, labels, output = tmp_path / "records.csv", tmp_path / "labels.csv", tmp_path / "out"
    ingest = ["ingest", "--records", str(records), "--output", str(output)]
    options = ["annotate", "--output", str(output), "--annotator", "anna"]
    records.write_text("id,query,output\nr1,q,a\nr2,q,b\n")
    labels.write_text("id,score\nr1,1\nr2,0\n")
    assert main(ingest) == 0
    assert main([*options, "--import", str(labels)]) == 0
    records.write_text("id,query,output\nr1,q,a\nr2,q,changed\n")
    assert main([*options, "--import", str(labels)]) == 0  # the same rows again are no verdicts on the new text
    assert main(ingest) == 0
    assert main([*options, "--import", str(labels)]) == 0
    assert "0 annotations imported, 2 were there already" in capsys.readouterr().err
    settings = Settings(records=records, output=output)
    loaded = load_annotations(settings, load_ingested(settings).table)
    assert loaded.table["record_id"].tolist() == ["r1"]
    assert loaded.rejected["reason"].tolist() == ["record 'r2' had another text when it was judged; judge it again"]
    labels.write_text("id,output,score\nr1,a,1\nr2,changed,0\n")  # the same verdict, and now on this text
    assert main([*options, "--import", str(labels)]) == 0
    assert load_annotations(settings, load_ingested(settings).table).table["record_id"].tolist() == ["r1", "r2"]


@pytest.mark.parametrize("format_", ["label-studio", "argilla"])
def test_a_verdict_of_another_tool_on_another_text_is_rejected(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    source = tmp_path / "labels.csv"
    source.write_text("record_id,annotator,score\nr00,ada,1\nr01,ada,0\n")
    exported = tmp_path / "tool.json"
    options = ["annotate", "--assets", str(assets)]
    assert main([*options, "--import", str(source), "--export", str(exported), "--format", format_]) == 0
    exported.write_text(exported.read_text().replace("The answer to question 1 ", "What it said before "))
    again = tmp_path / "again.sqlite"
    capsys.readouterr()
    assert main([*options, "--store", str(again), "--import", str(exported)]) == 0
    said = capsys.readouterr().err
    assert "1 annotations imported, 0 were there already, 1 rows rejected" in said
    assert "2: record 'r01' had another text when it was judged; judge it again" in said
    with AnnotationStore(again) as store:
        annotations, fingerprints = store.annotations_with_texts()
    assert annotations["record_id"].tolist() == ["r00"]
    assert fingerprints.notna().all()  # from now on a change of the record's text is noticed


def test_a_verdict_on_an_earlier_text_leaves_and_enters_as_one(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "labels.csv"
    source.write_text(f"id,verdict,record_fingerprint\nr00,yes,{'0' * 64}\nr01,no,\n")
    options = ["annotate", "--assets", str(assets)]
    assert main([*options, "--import", str(source)]) == 0
    said = capsys.readouterr().err
    assert "1 annotations imported, 0 were there already, 1 rows rejected" in said
    assert "line 2: record 'r00' had another text when it was judged; judge it again" in said
    with AnnotationStore(assets / "annotations.sqlite") as store:
        table = load_annotation_file(source, load_records(assets))[0]
        store.import_annotations(table.assign(record_id="r02"), ["0" * 64])
    csv, task = tmp_path / "out.csv", tmp_path / "out.json"
    assert main([*options, "--export", str(csv)]) == 0
    assert main([*options, "--export", str(task)]) == 0
    assert "1 left out: their records had another text" in capsys.readouterr().err  # it would pass for one on this text
    assert main([*options, "--store", str(tmp_path / "again.sqlite"), "--import", str(csv)]) == 0
    assert "1 annotations imported, 0 were there already, 1 rows rejected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--assets", "nowhere", "--records", "none.csv"], "none.csv: no such file; give the records as"),
        (["--host", "0.0.0.0"], "set CALIBER_ANNOTATE_TOKEN"),  # noqa: S104
        (["--port", "99999"], "cannot listen on 127.0.0.1:99999"),
        (["--import", "gone.csv"], "gone.csv: no such file"),
        (["--import", "gone.json"], "cannot be read as JSON"),
        (["--export", "no/such/folder.csv"], "cannot be written"),
        (["--export", "labels.xlsx"], "labels.xlsx: annotations are written as .csv or .json"),
        (["--store", "mysql://x/y", "--export", "x.csv"], "no annotation store on 'mysql'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    output = [] if "--assets" in arguments else ["--assets", str(assets)]
    assert main(["annotate", *output, "--no-open", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", ["[" * 100_000 + "]" * 100_000, r'[{"id": "\ud800"}]', "9" * 5_000])
def test_an_import_of_what_nothing_can_read_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.json: cannot be read as JSON"):
        load_annotation_file(path, pd.DataFrame({"record_id": ["1"]}))


def test_a_port_in_use_is_refused() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(InputError, match="cannot listen on"):
            listen("127.0.0.1", taken.getsockname()[1])


def test_only_loopback_goes_without_a_token_and_no_token_is_short() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert is_loopback(host)
        check_token(host, None)
    for host in ("0.0.0.0", "::", "192.168.1.4", "notes.example"):  # noqa: S104
        assert not is_loopback(host)
        with pytest.raises(InputError, match="CALIBER_ANNOTATE_TOKEN"):
            check_token(host, None)
        check_token(host, "x" * 16)
    with pytest.raises(InputError, match="15 characters"):
        check_token("127.0.0.1", "x" * 15)
    assert "notes.example" in allowed_hosts("127.0.0.1", ["notes.example"])


class Command:
    """`caliber annotate` in a process of its own."""

    def __init__(self, assets: Path, *options: str, **environment: str) -> None:
        program = [sys.executable, "-m", "caliber_pipeline.cli", "annotate", "--assets", str(assets), *options]
        self.process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        self.url = self.said.split(" at ")[1].split()[0]
        wait_for(lambda: urlopen(self.url, timeout=5).close() is None)  # noqa: S310 our own server

    def end(self, signal_: signal.Signals) -> int:
        self.process.send_signal(signal_)
        self.process.communicate(timeout=20)
        return self.process.returncode


def wait_for(happens: Callable[[], bool]) -> None:
    for _ in range(200):
        with suppress(OSError):
            if happens():
                return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.mark.slow
def test_the_command_opens_a_browser_and_serves_the_page_until_interrupted(assets: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 > {opened}\n")
    browser.chmod(0o755)
    command = Command(assets, "--port", "0", "--annotator", "ada", BROWSER=f"{browser} %s")
    assert f"Annotating {assets} at http://127.0.0.1:" in command.said
    with urlopen(command.url, timeout=5) as answer:  # noqa: S310 our own server
        assert 'content="ada"' in answer.read().decode()
    wait_for(lambda: opened.read_text().strip() == command.url)
    assert command.end(signal.SIGINT) == 0
    assert (assets / "annotations.sqlite").exists()


@pytest.mark.slow
def test_beyond_loopback_the_command_tells_the_link_and_the_page_asks_for_the_token(assets: Path) -> None:
    token = "a-token-of-24-characters"  # noqa: S105
    command = Command(assets, "--port", "0", "--host", "0.0.0.0", "--no-open", CALIBER_ANNOTATE_TOKEN=token)  # noqa: S104
    assert command.process.stderr is not None
    link = command.process.stderr.readline()
    assert re.search(r"Others open http://\S+:\d+/\?token=…", link)
    assert token not in command.said + link
    with urlopen(command.url, timeout=5) as answer:  # noqa: S310 our own server
        assert 'id="token"' in answer.read().decode()
    assert command.end(signal.SIGTERM) in {0, -signal.SIGTERM}


@pytest.mark.slow
def test_a_server_killed_while_people_annotate_has_every_verdict_that_it_acknowledged(assets: Path) -> None:
    sent = 0
    port = "0"
    for _ in range(3):
        command = Command(assets, "--port", port, "--annotator", "ada", "--no-open")
        port = command.url.rstrip("/").rsplit(":", 1)[1]
        with httpx2.Client(base_url=command.url) as client:
            csrf = re.findall(r'csrf-token" content="(\w+)"', client.get("/").text)[0]
            for _ in range(20):
                event = {"event_id": f"e{sent}", "record_id": f"r{sent % 30:02d}", "action": "annotate", "score": 1}
                body = {"annotator": "ada", "events": [event]}
                answer = client.post("/api/events", json=body, headers={"x-csrf-token": csrf})
                assert answer.json()["results"][0]["status"] == "stored"
                sent += 1
        assert command.end(signal.SIGKILL) == -signal.SIGKILL
    with AnnotationStore(assets / "annotations.sqlite") as store:
        assert store.history()["event_id"].tolist() == [f"e{i}" for i in range(60)]


def test_records_can_be_judged_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("id,question,answer\na,q?,yes\nb,q2?,no\n")
    (tmp_path / "labels.csv").write_text("record_id,annotator,score\na,ada,1\n")
    options = ["annotate", "--assets", str(tmp_path / "out"), "--records", str(tmp_path / "records.csv")]
    assert main([*options, "--import", str(tmp_path / "labels.csv"), "--export", str(tmp_path / "x.json")]) == 0
    tasks = json.loads((tmp_path / "x.json").read_text())
    assert [len(task["annotations"]) for task in tasks] == [1, 0]
