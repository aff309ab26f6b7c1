import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from caliber_pipeline.cli import main
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.core.report import ReportSource, build_report, diff_words
from caliber_pipeline.renderers.report import load_report_source, render_report
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline_tests.renderers.stored_runs import store_run

MADE_AT = datetime(2030, 1, 3, 12, tzinfo=UTC)


class Elements(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def load(folder: Path, version: str | None = None, target: float = 0.6) -> ReportSource:
    return load_report_source(
        TableStore(str(folder)), CriteriaFiles(folder / "criteria"), version=version, kappa_target=target
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    store_run(folder)
    return folder


def test_the_report_says_all_that_it_must(stored: Path) -> None:
    page = Elements(render_report(load(stored), made_at=MADE_AT))
    text = " ".join(page.text.split())
    for wanted in (
        "Can you trust judge v002?", "v002 is the champion", "People accept", "95 % interval", "Gwet's AC1",
        "Every evaluation", "Patterns in people", "not true at all", "false positive", "note on r",
        "Where each clause comes from", "on 2 records: r1, r2", "an interval of kappa of ± 0.1", "points in accuracy",
        "How this was made", "Wilson", "test records, counted but not shown", "2030-01-03 12:00 UTC",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert {"ins", "del", "svg", "form"} <= set(page.tags)


def test_what_comes_from_data_is_escaped_everywhere(stored: Path) -> None:
    html = render_report(load(stored), made_at=MADE_AT)
    page = Elements(html)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert "window.ran=1</script>" not in html
    assert "{{ 7+7 }}" in page.text
    assert [name for name, _ in page.attributes if name.startswith("on") or name == "style"] == []


def test_the_file_needs_no_network_and_runs_nothing_but_its_own_script(stored: Path) -> None:
    html = render_report(load(stored), made_at=MADE_AT)
    page = Elements(html)
    links = [value for name, value in page.attributes if name in {"src", "href", "action", "srcset", "data"}]
    assert all(link and link.startswith("#") for link in links)
    assert re.search(r"@import|url\(", html) is None
    policy = next(value for name, value in page.attributes if name == "content" and value and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_a_report_on_ten_thousand_records_with_long_texts_stays_under_two_megabytes(tmp_path: Path) -> None:
    store_run(tmp_path, n=10_000, output="<long & hostile> " * 200)
    source = load(tmp_path)
    html = render_report(source, made_at=MADE_AT)
    assert len(html.encode()) < 2_000_000
    shown = build_report(source)["misalignments"]
    assert 0 < shown["n_shown"] < shown["n_total"] - shown["n_test"]
    assert f"The worst {shown['n_shown']} are shown" in html


def test_labels_needed_count_in_that_records_come_in_groups(stored: Path) -> None:
    source = load(stored)
    alone = build_report(source)["planning"]
    assert (alone["n"], alone["design_effect"]) == (source.dev_sample.n_units, pytest.approx(1.0, abs=0.01))
    copies = replace(source.dev_sample, vectors=source.dev_sample.vectors * 5, is_simple=False)
    grouped = build_report(replace(source, dev_sample=copies))["planning"]
    assert grouped["design_effect"] == pytest.approx(5, abs=0.05)
    for single, row in zip(alone["intervals"], grouped["intervals"], strict=True):
        # the shares that are plausible lie nearer to those seen, the more are seen
        assert row["needed"] == pytest.approx(5 * single["needed"], rel=0.1)
    page = Elements(render_report(replace(source, dev_sample=copies), made_at=MADE_AT))
    assert "need 5.0 times the records" in " ".join(page.text.split())
    assert "times the records" not in render_report(source, made_at=MADE_AT)


@pytest.mark.parametrize(("stability", "is_unstable"), [(0.0, True), (0.5, True), (0.7, False), (None, False)])
def test_a_pattern_that_resampling_loses_is_marked(stored: Path, stability: float | None, *, is_unstable: bool) -> None:
    source = load(stored)
    patterns = source.patterns.assign(stability=pd.array([stability] * len(source.patterns), "Float64"))
    shown = build_report(replace(source, patterns=patterns))["patterns"]
    assert {pattern["is_unstable"] for pattern in shown} == {is_unstable}


@pytest.mark.parametrize(
    ("target", "tone", "words"),
    [
        (0.5, "good", "even the low end of the interval reaches the target of 0.5"),
        (0.95, "bad", "all of the interval is below the target of 0.95"),
        (0.7, "unsure", "reaches the target of 0.7, but the labels do not rule out that it falls short"),
        (0.85, "unsure", "falls short of the target of 0.85, though the labels do not rule it out"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_target(
    stored: Path, target: float, tone: str, words: str
) -> None:
    # kappa on dev is 0.80 with an interval from 0.62 to 0.90
    verdict = build_report(load(stored, target=target))["verdict"]
    assert words in verdict["sentence"]
    assert verdict["tone"] == tone


def test_with_few_labels_it_says_how_many_are_missing(tmp_path: Path) -> None:
    store_run(tmp_path, n=40)
    verdict = build_report(load(tmp_path))["verdict"]
    assert verdict["tone"] == "unsure"
    assert re.search(r"not enough labels to say .*; about \d+ more are needed on dev", verdict["sentence"])


def test_few_groups_are_no_verdict_however_many_records_they_hold(stored: Path) -> None:
    source = load(stored, target=0.5)
    kappa = source.metrics["metric"] == "cohen_kappa"
    source.metrics.loc[kappa, "reason"] = "only 4 groups: the interval may be too narrow"
    verdict = build_report(source)["verdict"]
    assert verdict["tone"] == "unsure"
    assert "cannot be held against the target of 0.5 (only 4 groups" in verdict["sentence"]


def test_how_the_champion_became_one_is_told(stored: Path) -> None:
    source = load(stored)
    assert build_report(source)["standing"] == "v002 is the champion: the version that last won on dev."
    source.history["is_by_hand"] = True
    assert build_report(source)["standing"] == "v002 is the champion: a person made it so."
    alone = replace(load(stored, "v001"), history=source.history.head(1).assign(is_by_hand=False))
    assert build_report(alone)["standing"] == "v001 is the champion: the first version."


def test_how_the_figures_were_made_is_told_as_it_was(stored: Path) -> None:
    source = load(stored)
    plain = Elements(render_report(source, made_at=MADE_AT)).text
    assert "1 annotator; a gold label where there is one, else the majority" in plain
    for absent in ("set aside", "count by its inverse", "annotation store place", "has test"):
        assert absent not in plain, absent
    source.metrics.attrs |= {"consensus": "dawid_skene", "has_test": "True", "annotation_store_place": "0"}
    source.metrics.loc[source.metrics["metric"] == "n_calibration", "value"] = 17.0
    text = Elements(render_report(replace(source, is_weighted=True), made_at=MADE_AT)).text
    assert "estimated skills (Dawid and Skene)" in text
    assert "Of test, 17 annotated records are set aside" in text
    assert "count by its inverse" in text
    assert "has test" not in text
    assert "Gold labels alone." in Elements(render_report(replace(source, n_annotators=0), made_at=MADE_AT)).text


def test_without_any_verdict_it_says_so(stored: Path) -> None:
    source = load(stored)
    kappa = source.metrics["metric"] == "cohen_kappa"
    source.metrics.loc[kappa, ["value", "ci_low", "ci_high"]] = None
    source.metrics.loc[kappa, "reason"] = "no record is both annotated and judged"
    report = build_report(source)
    assert report["verdict"]["sentence"] == "Nothing can be said of v002 yet: no record is both annotated and judged."
    assert "n/a" in render_report(source, made_at=MADE_AT)


def test_the_first_version_has_no_difference_to_show(stored: Path) -> None:
    report = build_report(load(stored, "v001"))
    assert report["criteria"]["diff"] is None
    assert report["champion"] == "v002"
    assert "not this version" in render_report(load(stored, "v001"), made_at=MADE_AT)


def test_the_test_figures_of_a_promoted_version_are_shown(stored: Path) -> None:
    source = load(stored)
    report = build_report(source)
    matrix = next(matrix for matrix in report["matrices"] if matrix["split"] == "test")
    assert matrix["total"] == 40
    accuracy = next(row for row in report["figures"] if row["label"] == "Accuracy")
    right = matrix["true_positives"][0] + matrix["true_negatives"][0]
    at = [split["name"] for split in report["splits"]].index("test")
    assert accuracy["by_split"][at]["value"] == right / 40


def test_sealed_test_figures_are_left_out(stored: Path) -> None:
    source = load(stored)
    source.history["is_test_sealed"] = True
    report = build_report(source)
    assert [split["name"] for split in report["splits"]] == ["dev", "all", "train"]
    assert "Test is sealed" in render_report(source, made_at=MADE_AT)


def test_the_worst_misalignments_come_first_and_none_of_test(stored: Path) -> None:
    source = load(stored)
    cases = source.misalignments
    severity = pd.Series([1.0] * len(cases), dtype="float64[pyarrow]")
    is_dev = (cases["split"] == "dev").to_numpy()
    severity[int(is_dev.argmax())] = 4.0
    source.misalignments["severity"] = severity
    rows = build_report(source)["misalignments"]["rows"]
    assert rows[0]["record_id"] == cases["record_id"].iloc[int(is_dev.argmax())]
    assert {row["split"] for row in rows} == {"train", "dev"}


def test_people_are_compared_with_each_other_and_not_named(stored: Path) -> None:
    source = load(stored)
    rows = [("(all)", None, "krippendorff_alpha", 0.5, 9), ("nia", "oto", "cohen_kappa", 0.5, 9)]
    rows += [("nia", None, "accept_rate", 0.25, 9), ("nia", None, "bias", -0.125, 9), ("oto", None, "bias", 0.125, 12)]
    agreement = pd.DataFrame(rows, columns=["annotator", "other", "metric", "value", "n"])
    kappa = source.metrics[(source.metrics["metric"] == "cohen_kappa") & (source.metrics["split"] == "dev")]
    among = [kappa.assign(metric=name, value=0.75) for name in ("human_human_kappa", "judge_annotator_kappa")]
    metrics = pd.concat([source.metrics, *among], ignore_index=True)
    html = render_report(replace(source, metrics=metrics, annotator_agreement=agreement), made_at=MADE_AT)
    assert "Two people agree by a kappa of 0.75" in html
    assert html.count('<th scope="row">Annotator ') == 2
    assert '<th scope="row">nia' not in html
    assert 'id="people"' not in render_report(source, made_at=MADE_AT)


def test_a_difference_of_texts_holds_both_whole() -> None:
    before, after = "Score 1 if it is polite,\n otherwise 0.", "Score 1 if it is kind and short, otherwise 0."
    parts = list(diff_words(before, after))
    assert "".join(text for kind, text in parts if kind != "new") == before
    assert "".join(text for kind, text in parts if kind != "gone") == after
    assert list(diff_words("same", "same")) == [("same", "same")]


def test_the_command_writes_the_file_and_names_what_is_missing(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["report", "--assets", str(stored), "--to", str(tmp_path / "r.html")]
    assert main([*options, "--version", "v001"]) == 0
    assert "report on v001" in capsys.readouterr().err
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([*options, "--version", "v009"]) == 2
    assert "'v009' is no evaluated version; evaluated are v001, v002" in capsys.readouterr().err
    assert main(["report", "--assets", str(tmp_path / "none"), "--to", str(tmp_path / "r.html")]) == 1
    assert f"{tmp_path / 'none'}: nothing was evaluated yet" in capsys.readouterr().err
    assert main(["report", "--assets", str(stored), "--to", str(tmp_path / "no" / "r.html")]) == 2


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    store_run(tmp_path, n=40)
    (tmp_path / "patterns" / "v002.parquet").unlink()
    with pytest.raises(MissingStepError, match="materialize 'patterns' first"):
        load(tmp_path)


def test_criteria_without_clauses_and_examples_render(stored: Path) -> None:
    source = load(stored, "v001")
    assert isinstance(source.criteria, Criteria)
    assert "Where each clause comes from" not in render_report(source, made_at=MADE_AT)
