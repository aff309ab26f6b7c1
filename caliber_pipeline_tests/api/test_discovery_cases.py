"""What discovery says of 20, 60 and 200 notes, kept in a snapshot for a person to read."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from caliber_pipeline.api.discovery import DiscoveryOptions, PatternDiscovery
from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
from caliber_pipeline.encoders import Encoder, SentenceTransformerEncoder
from caliber_pipeline.encoders.remembering import RememberingEncoder

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


class _NoisyEncoder:
    """The packaged encoder on a processor of another make."""

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self._encoder = encoder
        self._rng = np.random.default_rng(seed)
        self.name = encoder.name

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._encoder.encode(texts)
        return (vectors + 1e-6 * self._rng.normal(size=vectors.shape)).astype(np.float32)


def _twenty() -> list[str]:
    return [row["note"] for row in _read(NOTES / "travel.csv")][::4][:20]


def _sixty() -> list[str]:
    return [row["note"] for row in _read(NOTES / "meetings.csv")][:60]


def _two_hundred() -> list[str]:
    rows = _read(ROOT / "data" / "input" / "annotations.csv")
    return [r["notes"] for r in rows if r["annotator"] == "annotator_1" and r["score"] == "0" and r["notes"]][:200]


@pytest.mark.parametrize("notes", [_twenty(), _sixty(), pytest.param(_two_hundred(), marks=pytest.mark.slow)], ids=len)
def test_another_processor_finds_the_same_patterns_names_examples_and_keywords(notes: list[str]) -> None:
    encoder, options = RememberingEncoder(SentenceTransformerEncoder()), DiscoveryOptions(n_resamples=0)
    expected = _discover(PatternDiscovery(encoder=encoder, options=options), notes)
    for seed in range(5):
        found = _discover(PatternDiscovery(encoder=_NoisyEncoder(encoder, seed), options=options), notes)
        assert found.uncategorized == expected.uncategorized
        seen, wanted = ([replace(p, confidence=None) for p in result.patterns] for result in (found, expected))
        assert seen == wanted


def test_20_notes(discovery: PatternDiscovery, snapshot: SnapshotAssertion) -> None:
    result = _discover(discovery, _twenty())
    assert 3 <= len(result.patterns) <= 8
    assert len(result.uncategorized) <= 4
    assert _page(result) == snapshot


def test_60_notes(discovery: PatternDiscovery, snapshot: SnapshotAssertion) -> None:
    result = _discover(discovery, _sixty())
    assert 5 <= len(result.patterns) <= 14
    assert len(result.uncategorized) <= 6
    assert _page(result) == snapshot


@pytest.mark.slow
def test_200_notes(discovery: PatternDiscovery, snapshot: SnapshotAssertion) -> None:
    result = _discover(discovery, _two_hundred())
    assert 8 <= len(result.patterns) <= 30
    assert len(result.uncategorized) <= 10
    assert _page(result) == snapshot
