"""What the UI shows of patterns and enrichment."""

from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.notes import theme_texts
from caliber_pipeline.core.pattern_map import map_notes
from caliber_pipeline.core.stability import MIN_STABILITY
from caliber_pipeline.encoders.protocol import Encoder
from caliber_pipeline.renderers.markdown import render_table
from caliber_pipeline.renderers.pattern_charts import embed_svg, render_pattern_counts, render_pattern_map

MAX_SHOWN = 20  # patterns per chart and rows per table


def encode_notes(encoder: Encoder, notes: pd.DataFrame) -> NDArray[np.float32]:
    """The vectors that themes are found by, in the notes' order."""
    return encoder.encode(theme_texts(list(notes["text"])))


def show_patterns(notes: pd.DataFrame, vectors: NDArray[np.float32], patterns: pd.DataFrame) -> dict[str, Any]:
    """Counts, names, and for each polarity a map, a bar chart and a table with examples."""
    is_unclustered = patterns["is_unclustered"].astype(bool)
    themes = patterns[~is_unclustered]
    is_unstable = (themes["stability"] < MIN_STABILITY).fillna(value=False).astype(bool)
    metadata: dict[str, Any] = {
        "n_notes": len(notes),
        "n_patterns": len(themes),
        "n_unclustered": int(patterns.loc[is_unclustered, "count"].sum()),
        "n_unstable_patterns": int(is_unstable.sum()),
        "names": list(themes["name"].astype(str)),
    }
    points = map_notes(notes, vectors, patterns)
    for polarity, own in themes.groupby("polarity"):
        shown = own.head(MAX_SHOWN)
        title = f"Notes on {polarity}s"
        names = dict(zip(shown["pattern_id"], shown["name"], strict=True))
        own_points = points[points["polarity"] == polarity]
        remarks = ["unstable" if value else "" for value in is_unstable[shown.index]]
        bars = list(zip(shown["name"], shown["count"], remarks, strict=True))
        metadata[f"map_of_{polarity}s"] = _picture(render_pattern_map(own_points, names, title=title), title)
        metadata[f"counts_of_{polarity}s"] = _picture(render_pattern_counts(bars, title=title), title)
        metadata[f"examples_of_{polarity}s"] = dg.MetadataValue.md(_examples(shown))
    return metadata


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


def _picture(svg: str, title: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.md(embed_svg(svg, title))


def _examples(patterns: pd.DataFrame) -> str:
    rows = [
        [row["name"], str(row["count"]), _number(row["stability"]), " / ".join(list(row["examples"])[:3])]
        for row in patterns.to_dict("records")
    ]
    return render_table(["pattern", "notes", "stability", "examples"], rows)


def _number(value: Any) -> str:  # noqa: ANN401 - a float or one of pandas' nulls
    return "n/a" if pd.isna(value) else f"{value:.2f}"
