"""The map holds a mark for each note and nothing that the notes could break."""

import pandas as pd

from caliber_pipeline.renderers.pattern_charts import render_pattern_map


def test_the_map_holds_every_mark_and_escapes_names() -> None:
    points = pd.DataFrame({"pattern_id": ["p0", "p1", "p2"] * 4, "x": range(12), "y": range(12)})
    svg = render_pattern_map(points, {"p1": "Fees <wrong> & old", "p2": "Tone"}, title="Notes")
    # 12 notes and 3 legend marks, the unclustered among them hollow
    assert svg.count("<circle") == 15
    assert svg.count('fill="none" stroke="#b8bcc4"') == 5
    assert "Fees &lt;wrong&gt; &amp; old (4)" in svg
    assert "Unclustered (4)" in svg
