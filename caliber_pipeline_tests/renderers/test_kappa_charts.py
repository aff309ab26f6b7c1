import base64
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.renderers.kappa_charts import (
    MAX_EVALUATIONS,
    MAX_VERSIONS,
    Evaluation,
    embed_on_card,
    plot_kappa_by_version,
    plot_kappa_over_time,
)
from caliber_pipeline.renderers.plots import plot_confusion_matrix

MAX_BYTES = 200_000
START = datetime(2026, 1, 5, 6, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - our own


def circles(svg: str) -> list[dict[str, str]]:
    return [element.attrib for element in ET.fromstring(svg).iter(f"{SVG}circle")]  # noqa: S314 - our own


def evaluation(version: str, kappa: float | None, decision: str = "rejected", day: int = 0) -> Evaluation:
    low, high = (None, None) if kappa is None else (kappa - 0.1, kappa + 0.1)
    return Evaluation(version, decision, kappa, low, high, START + timedelta(days=day))


def test_versions_show_their_kappa_and_the_winners_are_filled() -> None:
    svg = plot_kappa_by_version(
        [evaluation("v001", 0.25, "baseline"), evaluation("v002", 0.5, "promoted"), evaluation("v003", 0.4)],
        {"target": 0.6, "people": 0.77},
    )
    shown = texts(svg)
    assert {"v001", "v002", "v003", "0.25", "0.50", "0.40", "target 0.60", "people 0.77", "promoted"} <= set(shown)
    assert [circle["fill"] for circle in circles(svg)] == ["#0072b2", "#0072b2", "#ffffff"]


def test_higher_kappa_stands_higher_also_below_zero() -> None:
    svg = plot_kappa_by_version([evaluation("a", -0.25), evaluation("b", 0.9)], {})
    low, high = (float(circle["cy"]) for circle in circles(svg))
    assert high < low
    assert "-0.4" in texts(svg)  # the tick under -0.25 - 0.1, the interval's lower end
    assert "-0.6" not in texts(svg)


def test_names_of_levels_that_lie_near_each_other_do_not_overlap() -> None:
    svg = plot_kappa_by_version([evaluation("a", 0.5)], {"target": 0.6, "people": 0.61})
    tops = [
        float(element.attrib["y"])
        for element in ET.fromstring(svg).iter(f"{SVG}text")  # noqa: S314 - our own
        if (element.text or "").startswith(("target", "people"))
    ]
    assert abs(tops[0] - tops[1]) >= 16


def test_an_undefined_kappa_is_no_dot() -> None:
    svg = plot_kappa_by_version([evaluation("v001", None, "baseline")], {"target": 0.6})
    assert circles(svg) == []
    assert "n/a" in texts(svg)


def test_evaluations_of_a_version_are_joined_in_the_order_of_time() -> None:
    evaluations = [evaluation("v001", 0.5, day=14), evaluation("v002", 0.6, day=1), evaluation("v001", 0.3)]
    svg = plot_kappa_over_time(evaluations)
    lines = [element.attrib["points"] for element in ET.fromstring(svg).iter(f"{SVG}polyline")]  # noqa: S314
    assert len(lines) == 1  # v002 was evaluated once
    (x0, y0), (x1, y1) = (tuple(map(float, point.split(","))) for point in lines[0].split())
    assert x0 < x1
    assert y0 > y1  # 0.3 is drawn below 0.5
    assert texts(svg).count("v001") == 1


def test_many_evaluations_stay_light_and_the_latest_are_shown() -> None:
    many = [evaluation(f"v{i:03d}", 0.5, day=i) for i in range(1000)]
    by_version, in_time = plot_kappa_by_version(many, {}), plot_kappa_over_time(many)
    assert "v999" in texts(by_version)
    assert len(circles(by_version)) == MAX_VERSIONS
    assert len(circles(in_time)) == MAX_EVALUATIONS + MAX_VERSIONS  # the legend names the first twelve
    assert max(len(by_version), len(in_time)) < MAX_BYTES


def test_nothing_evaluated_yet_is_an_empty_plot() -> None:
    assert circles(plot_kappa_over_time([])) == []
    assert circles(plot_kappa_by_version([], {"target": 0.6})) == []


def test_names_from_files_are_text() -> None:
    svg = plot_kappa_by_version([evaluation("<b>&", 0.5)], {})
    assert "<b>&" in texts(svg)


def test_a_drawing_gets_a_ground_and_an_ink_of_its_own() -> None:
    markdown = embed_on_card(plot_confusion_matrix(ConfusionMatrix(5, 4, 3, 2)), "Confusion matrix")
    assert markdown.startswith("![Confusion matrix](data:image/svg+xml;base64,")
    root = ET.fromstring(base64.b64decode(markdown.split("base64,")[1].rstrip(")")))  # noqa: S314 - our own
    assert root.attrib["color"] == "#1f2430"
    assert root[0].attrib == {"width": "100%", "height": "100%", "fill": "#ffffff"}
