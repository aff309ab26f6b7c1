"""The criteria folder: read whole, added to exclusively, never changed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError, InputError
from caliber_pipeline.stores.criteria_files import CriteriaFiles

ONE = Criteria(criteria="one")


def test_what_was_added_is_read(tmp_path: Path) -> None:
    files = CriteriaFiles(tmp_path / "criteria")
    assert files.add(ONE) == "v001"
    assert files.add(ONE) == "v002"
    assert files.load("v002") == ONE
    assert list(files.load_all().valid) == ["v001", "v002"]


def test_a_version_is_written_once(tmp_path: Path) -> None:
    files = CriteriaFiles(tmp_path)
    assert files.add_as("mine", ONE)
    assert not files.add_as("mine", Criteria(criteria="two"))
    assert files.load("mine") == ONE


def test_writers_at_the_same_time_get_different_numbers(tmp_path: Path) -> None:
    files = CriteriaFiles(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: files.add(ONE), range(24)))
    assert sorted(versions) == [f"v{i:03d}" for i in range(1, 25)]


def test_files_that_are_no_version_are_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "v001.yaml").write_text("criteria: fine")
    (tmp_path / "v002.yaml").write_text("criteria: [")
    (tmp_path / "v003.yml").write_text("criteria: fine")
    (tmp_path / "my rubric.yaml").write_text("criteria: fine")
    (tmp_path / "v004.yaml").write_bytes(b"criteria: \xff")
    (tmp_path / "notes.txt").write_text("not ours")
    listing = CriteriaFiles(tmp_path).load_all()
    assert list(listing.valid) == ["v001"]
    assert set(listing.invalid) == {"v002.yaml", "v003.yml", "my rubric.yaml", "v004.yaml"}
    assert "rename it to v003.yaml" in listing.invalid["v003.yml"]
    assert "'my rubric' is no version name" in listing.invalid["my rubric.yaml"]


def test_a_missing_file_and_a_missing_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CriteriaError, match="no such criteria file"):
        CriteriaFiles(tmp_path).load("v009")
    with pytest.raises(InputError, match="cannot read the criteria folder"):
        CriteriaFiles(tmp_path / "none").load_all()
