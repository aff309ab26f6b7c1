import csv
import re
import shutil
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

import caliber_pipeline
from caliber_pipeline_tests.markdown_blocks import find_blocks, run_blocks

ROOT = Path(__file__).parent.parent
DOCS = Path(caliber_pipeline.__file__).parent / "docs"
# what makes a block need the encoder or a subprocess, and so more than a few seconds
SLOW_WORDS = ("local", "iterate", "discover", "PatternDiscovery", "EvidencePipeline", "demo", "optimize", "analyze")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def page_parameters() -> list[ParameterSet]:
    parameters = []
    for page in pages():
        is_slow = any(word in block.code for block in find_blocks(page) for word in SLOW_WORDS)
        marks = [pytest.mark.slow] if is_slow else []
        parameters.append(pytest.param(page, id=page.name, marks=marks))
    return parameters


@pytest.mark.parametrize("page", page_parameters())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page's blocks run from a checkout's root, here a copy of what they may read."""
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("assets"))
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    assert run_blocks(page) == len(list(find_blocks(page)))


def test_finds_and_runs_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, second = "import asyncio\nx = 1\n", "await asyncio.sleep(0)\nx += 1\n"
    page.write_text(f"text\n\n```python\n{first}```\n\n```sh\nfalse\n```\n```python\n{second}```\n")

    assert [str(block) for block in find_blocks(page)] == ["page.md:4", "page.md:12"]
    assert run_blocks(page) == 2
    page.write_text("```python\nx = 1\nraise ValueError('no')\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:2 raised ValueError: no"):
        run_blocks(page)


def find_dead_links(page: Path) -> list[str]:
    """The page's links and pictures whose file, or whose heading there, does not exist; the web is not asked."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in links if not link.startswith(("http:", "https:")) and not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not anchor or not target.is_file():
        return target.is_file()
    headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    # as GitHub makes anchors: lower case, hyphens for spaces, no other punctuation
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in pages()])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert find_dead_links(page) == []


def test_finds_dead_links(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The gate's p\n[a](#the-gates-p) [b](#gone) ![c](gone.png) [d](page.md#gone) [e](https://example.com)\n"
    )

    assert find_dead_links(page) == ["#gone", "gone.png", "page.md#gone"]


def test_the_sample_is_what_its_page_says() -> None:
    page = (ROOT / "data" / "input" / "README.md").read_text()
    for name in ("records.csv", "annotations.csv"):
        with (ROOT / "data" / "input" / name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert f"| `{name}` | {len(rows):,} |" in page
    assert "`notes` (on every reject" in page
    assert not [row for row in rows if row["score"] == "0" and not row["notes"].strip()]
