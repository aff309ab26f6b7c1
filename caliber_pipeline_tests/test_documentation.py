import csv
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


def test_the_sample_is_what_its_page_says() -> None:
    page = (ROOT / "data" / "input" / "README.md").read_text()
    for name in ("records.csv", "annotations.csv"):
        with (ROOT / "data" / "input" / name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert f"| `{name}` | {len(rows):,} |" in page
    assert "`notes` (on every reject" in page
    assert not [row for row in rows if row["score"] == "0" and not row["notes"].strip()]
