"""What discovery says of 20, 60 and 200 notes, kept in a snapshot for a person to read."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from caliber_pipeline.api.discovery import PatternDiscovery
from caliber_pipeline.api.discovery_results import PatternDiscoveryResult

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "caliber_pipeline_tests" / "benchmarks" / "notes"


@pytest.fixture(scope="module")
def discovery() -> PatternDiscovery:
    return PatternDiscovery()


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _discover(discovery: PatternDiscovery, notes: Sequence[str]) -> PatternDiscoveryResult:
    annotations = [{"id": f"{i:03}", "score": 0, "notes": note} for i, note in enumerate(notes)]
    result = discovery.discover_sync(annotations)
    found = [i for pattern in result.patterns for i in pattern.record_ids] + list(result.uncategorized)
    assert sorted(found) == [f"{i:03}" for i in range(len(notes))]
    return result


def _page(result: PatternDiscoveryResult) -> str:
    lines = [f"{result.total_analyzed} notes by {result.method}, {len(result.uncategorized)} uncategorized"]
    for pattern in result.patterns:
        mark = " unstable" if pattern.is_unstable else ""
        lines += ["", f"{pattern.count} {pattern.category} (stability {pattern.stability:.1f}{mark})"]
        lines += [f"  keywords: {', '.join(pattern.keywords)}", *(f"  - {note}" for note in pattern.examples[:4])]
    return "\n".join(lines)


def test_20_notes(discovery: PatternDiscovery, snapshot: SnapshotAssertion) -> None:
    notes = [row["note"] for row in _read(NOTES / "travel.csv")][::4][:20]
    result = _discover(discovery, notes)
    assert 3 <= len(result.patterns) <= 8
    assert len(result.uncategorized) <= 4
    assert _page(result) == snapshot


def test_60_notes(discovery: PatternDiscovery, snapshot: SnapshotAssertion) -> None:
    result = _discover(discovery, [row["note"] for row in _read(NOTES / "meetings.csv")][:60])
    assert 5 <= len(result.patterns) <= 14
    assert len(result.uncategorized) <= 6
    assert _page(result) == snapshot


@pytest.mark.slow
def test_200_notes(discovery: PatternDiscovery, snapshot: SnapshotAssertion) -> None:
    rows = _read(ROOT / "data" / "input" / "annotations.csv")
    rejects = [r["notes"] for r in rows if r["annotator"] == "annotator_1" and r["score"] == "0" and r["notes"]]
    result = _discover(discovery, rejects[:200])
    assert 8 <= len(result.patterns) <= 30
    assert len(result.uncategorized) <= 10
    assert _page(result) == snapshot
