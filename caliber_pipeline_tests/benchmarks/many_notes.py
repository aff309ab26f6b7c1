"""Many distinct notes with known themes, put together from phrases.

They are templated, and say so. Ten themes, each with eight ways to say it, about seven of 24 things (neighbouring
themes share five), in three frames: 1,680 notes.
"""

import csv
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.consensus_clustering import unit

PHRASES = Path(__file__).parent / "notes" / "phrases.csv"
THINGS = """
the parcel; the refund; a lamp; the return label; the garden chair; a gift card; the drill; delivery; the
warranty; the paint; an invoice; the compost; their account; the parasol; a discount; the heater; the mower; a
plant; the voucher; the sofa; the fence panels; the membership; a late order; the trimmer
"""
FRAMES = ["{}", "again: {}", "{}, sadly"]
THINGS_PER_THEME = 7
_BLOCK = 65_536


def build_notes() -> tuple[list[str], NDArray[np.int64]]:
    """The notes and the index of each one's theme."""
    with PHRASES.open(encoding="utf-8", newline="") as file:
        phrases = [(row["theme"], row["phrase"]) for row in csv.DictReader(file)]
    things = [" ".join(thing.split()) for thing in THINGS.split(";")]
    themes = sorted({theme for theme, _ in phrases})
    notes, labels = [], []
    for (theme, phrase), i, frame in itertools.product(phrases, range(THINGS_PER_THEME), FRAMES):
        label = themes.index(theme)
        notes.append(frame.format(phrase.format(things[(2 * label + i) % len(things)])))
        labels.append(label)
    return notes, np.array(labels, dtype=np.int64)


def interpolate(
    rows: NDArray[np.floating], themes: NDArray[np.int64], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`n` vectors on the lines between notes of one theme: the shape of text, for numbers that nobody encodes here.

    Returns:
        The vectors, and for each the note that it is nearest to.
    """
    first = rng.integers(0, len(rows), n)
    order = np.argsort(themes, kind="stable")
    sizes = np.bincount(themes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    second = order[starts[themes[first]] + rng.integers(0, sizes[themes[first]])]
    weight = rng.uniform(0, 0.4, (n, 1)).astype(np.float32)
    source = rows.astype(np.float32)
    mixed = np.empty((n, rows.shape[1]), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        mixed[block] = unit((1 - weight[block]) * source[first[block]] + weight[block] * source[second[block]])
    return mixed, first
