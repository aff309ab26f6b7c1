"""What the UI shows of patterns and enrichment."""

import textwrap
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.assets.metadata import show_table
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.core.pattern_map import map_notes
from caliber_pipeline.core.stability import MIN_STABILITY
from caliber_pipeline.renderers.markdown import render_table
from caliber_pipeline.renderers.pattern_charts import render_pattern_map
from caliber_pipeline.renderers.pictures import embed_picture

MAX_SHOWN = 20  # patterns per map and rows per table
BAR_LENGTH = 12  # characters
MAX_EXAMPLE_CHARS = 90  # so that a row stays low


def show_patterns(notes: pd.DataFrame, vectors: NDArray[np.floating], patterns: pd.DataFrame) -> dict[str, Any]:
    """Counts, names, and for each polarity a table with bars and examples, and a map."""
    is_unclustered = patterns["is_unclustered"].astype(bool)
    themes = patterns[~is_unclustered]
    is_unstable = (themes["stability"] < MIN_STABILITY).fillna(value=False).astype(bool)
    metadata: dict[str, Any] = {
        "n_notes": len(notes),
        "n_patterns": len(themes),
        "n_unclustered": int(patterns.loc[is_unclustered, "count"].sum()),
        "n_unstable_patterns": int(is_unstable.sum()),
    }
    points = map_notes(notes, vectors, patterns)
    for polarity in ("reject", "accept"):
        own = themes[themes["polarity"] == polarity]
        if own.empty:
            continue
        shown = own.head(MAX_SHOWN)
        names = dict(zip(shown["pattern_id"], shown["name"], strict=True))
        own_points = points[points["polarity"] == polarity]
        title = _title_map(polarity, len(own_points), int((notes["polarity"] == polarity).sum()))
        others = "Unclustered" if len(own) == len(shown) else "Further patterns, and unclustered"
        metadata[f"patterns_of_{polarity}s"] = show_table(_rows(shown.assign(is_unstable=is_unstable)))
        metadata[f"map_of_{polarity}s"] = dg.MetadataValue.md(
            embed_picture(render_pattern_map(own_points, names, title=title, others=others), title)
        )
    return metadata


def _title_map(polarity: str, n_drawn: int, n: int) -> str:
    return f"Notes on {polarity}s" if n_drawn == n else f"Notes on {polarity}s: {n_drawn:,} of {n:,} are drawn"


def show_enrichment(enrichment: pd.DataFrame) -> dg.MetadataValue[Any]:
    """A table of the themes, those that the judge misses most first."""
    rows = []
    for row in enrichment.head(MAX_SHOWN).to_dict("records"):
        missed = f"{row['n_missed']} of {row['n_missed'] + row['n_caught']}"
        others = f"{row['n_other_missed']} of {row['n_other_missed'] + row['n_other_caught']}"
        mark = "yes" if row["is_enriched"] else ""
        rows.append([row["name"], row["kind"], missed, others, f"{row['p_value']:.3g}", f"{row['q_value']:.3g}", mark])
    return dg.MetadataValue.md(
        render_table(["theme", "error", "missed", "missed elsewhere", "p", "q", "enriched"], rows)
    )


def _rows(patterns: pd.DataFrame) -> list[dict[str, Any]]:
    most = max(patterns["count"], default=1)
    return [
        {
            "pattern": str(row["name"]),
            "notes": int(row["count"]),
            "share": "█" * max(1, round(BAR_LENGTH * row["count"] / most)),
            "stability": plain_cell(row["stability"]),
            "mark": "unstable" if row["is_unstable"] else "",
            "an example": textwrap.shorten(next(iter(row["examples"]), ""), MAX_EXAMPLE_CHARS, placeholder=" …"),
        }
        for row in patterns.to_dict("records")
    ]
