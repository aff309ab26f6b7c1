"""`dagster dev` as a person starts it: what the UI lists, a launch from it, and the loop that its daemon turns."""

import csv
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from caliber_pipeline_tests.dagster_dev import STOP_S, DagsterDev

pytestmark = pytest.mark.slow

RUN_S = 300
PAGE_MS = 60_000
EDGES = {
    "criteria": set(),
    "records": set(),
    "rejected_records": set(),
    "annotations": {"records"},
    "rejected_annotations": {"records"},
    "judge_scores": {"records", "annotations", "criteria"},
    "all_scores": {"records", "criteria"},
    "alignment_metrics": {"annotations", "judge_scores"},
    "annotator_agreement": {"annotations"},
    "drift": {"annotations", "judge_scores"},
    "patterns": {"annotations", "alignment_metrics"},
    "misalignments": {"judge_scores", "annotations", "patterns"},
    "learnings": {"judge_scores", "patterns"},
    "relabel_queue": {"annotations", "misalignments"},
    "optimized_criteria": {"misalignments", "patterns", "alignment_metrics"},
    "calibration_history": {"alignment_metrics", "optimized_criteria"},
    "report": {"calibration_history"},
    "calibrated_judge": {"calibration_history"},
}
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
REPOSITORY = """
{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"""
LATEST = """
query ($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 1) { partition } } }
}"""


def write_input(folder: Path) -> None:
    """Sixty judged and annotated records, of which one in six is a false positive and one in six a false negative."""
    path = folder / "data" / "input" / "records.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "query", "output", "human_score", "llm_score", "llm_reasoning"])
        for i in range(60):
            human = i % 2
            llm = 1 - human if i % 6 in {0, 1} else human
            writer.writerow([f"r{i}", f"question number {i}", f"answer {i}", human, llm, "by its looks"])
    criteria = folder / "data" / "criteria" / "v001.yaml"
    criteria.parent.mkdir()
    criteria.write_text("criteria: Score 1 if the answer is right, otherwise 0\n")


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    folder = tmp_path_factory.mktemp("project")
    write_input(folder)
    settings = {"CALIBER_JUDGE": "recorded", "CALIBER_MAX_ITERATIONS": "0"}
    with DagsterDev(folder, settings) as started:
        yield started


def has_partition(dev: DagsterDev, asset: str, partition: str | None) -> bool | None:
    latest = dev.ask(LATEST, key={"path": [asset]})["assetOrError"].get("assetMaterializations")
    return True if latest and latest[0]["partition"] == partition else None


def test_it_answers_over_http_and_keeps_its_instance_in_the_project(dev: DagsterDev) -> None:
    with urllib.request.urlopen(f"{dev.url}/server_info", timeout=60) as response:  # noqa: S310 - http to loopback
        assert response.status == 200
    assert (dev.folder / ".dagster" / "history").is_dir()


def test_it_lists_all_assets_with_exactly_the_upstream_edges_of_the_design(dev: DagsterDev) -> None:
    nodes = dev.ask("{ assetNodes { assetKey { path } dependencyKeys { path } } }")["assetNodes"]
    listed = {node["assetKey"]["path"][-1]: {key["path"][-1] for key in node["dependencyKeys"]} for node in nodes}
    assert listed == EDGES


def test_a_materialization_that_is_launched_there_succeeds(dev: DagsterDev) -> None:
    (repository,) = dev.ask(REPOSITORY)["repositoriesOrError"]["nodes"]
    selector = {
        "repositoryName": repository["name"],
        "repositoryLocationName": repository["location"]["name"],
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["records"]}, {"path": ["rejected_records"]}],
    }
    launched = dev.ask(LAUNCH, params={"selector": selector, "mode": "default"})["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def ended() -> str | None:
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        status = str(dev.ask(query, id=run_id)["runOrError"]["status"])
        return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

    assert dev.wait_for(ended, RUN_S) == "SUCCESS"
    assert (dev.folder / "data" / "assets" / "records.parquet").exists()


def test_its_daemon_evaluates_the_first_version_with_nobody_touching_it(dev: DagsterDev) -> None:
    assert dev.wait_for(lambda: has_partition(dev, "optimized_criteria", "v001"), RUN_S)
    assert dev.wait_for(lambda: has_partition(dev, "calibration_history", None), RUN_S)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1500, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PAGE_MS)
    yield page
    context.close()


def test_the_lineage_page_shows_the_whole_loop(dev: DagsterDev, page: Page) -> None:
    page.goto(f"{dev.url}/asset-groups")
    expect(page.get_by_text("optimization").first).to_be_visible(timeout=PAGE_MS)
    page.keyboard.press("Alt+e")  # groups are collapsed at first
    for asset in ("records", "annotations", "judge_scores", "alignment_metrics", "patterns", "misalignments"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible(timeout=PAGE_MS)


def test_an_asset_page_shows_its_figures_and_its_plots(dev: DagsterDev, page: Page) -> None:
    page.goto(f"{dev.url}/assets/alignment_metrics?view=events")
    expect(page.get_by_role("cell", name="people accept", exact=True)).to_be_visible(timeout=PAGE_MS)
    for plot in ("Confusion matrix on dev", "Kappa by version", "Kappa over time"):  # without a click
        picture = page.get_by_role("img", name=plot)
        expect(picture).to_be_visible(timeout=PAGE_MS)
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 0


def test_a_failed_check_says_what_to_do(dev: DagsterDev, page: Page) -> None:
    page.goto(f"{dev.url}/assets/alignment_metrics?view=checks")
    page.get_by_text("kappa_reaches_target").first.click()
    # two in six verdicts are wrong, one of each kind: accuracy 2/3 and chance 1/2 give a kappa near 1/3
    expect(page.get_by_text("misses the target 0.6")).to_be_visible(timeout=PAGE_MS)
    expect(page.get_by_text("What to do: read the misalignments")).to_be_visible(timeout=PAGE_MS)


def test_it_ends_on_sigterm(dev: DagsterDev) -> None:
    dev.process.send_signal(signal.SIGTERM)
    assert dev.process.wait(STOP_S) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
