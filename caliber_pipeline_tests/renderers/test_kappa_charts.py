import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.renderers.kappa_charts import (
    MAX_EVALUATIONS,
    MAX_VERSIONS,
    Evaluation,
    plot_kappa_by_version,
    plot_kappa_over_time,
)
from caliber_pipeline.renderers.pictures import embed_picture
from caliber_pipeline.renderers.plots import plot_confusion_matrix
from caliber_pipeline_tests.renderers.shown import SHOWN_AT_ONCE

MAX_BYTES = 200_000
START = datetime(2026, 1, 5, 6, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def elements(svg: str, name: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{SVG}{name}"))  # noqa: S314 - our own


def texts(svg: str) -> list[str]:
    return [(element.text or "").replace("\N{NO-BREAK SPACE}", " ").strip() for element in elements(svg, "text")]


def dots(svg: str) -> dict[str, list[tuple[float, float]]]:
    """The places of the dots, which are lines without length, by colour."""
    return {
        path.attrib["stroke"]: [(float(x), float(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", path.attrib["d"])]
        for path in elements(svg, "path")
        if "h0" in path.attrib["d"]
    }


def evaluation(version: str, kappa: float | None, decision: str = "rejected", day: int = 0) -> Evaluation:
    low, high = (None, None) if kappa is None else (kappa - 0.1, kappa + 0.1)
    return Evaluation(version, decision, kappa, low, high, START + timedelta(days=day))


def test_versions_show_their_kappa_and_the_winners_stand_out() -> None:
    svg = plot_kappa_by_version(
        [evaluation("v001", 0.25, "baseline"), evaluation("v002", 0.5, "promoted"), evaluation("v003", 0.4)],
        {"target": 0.6, "people": 0.77},
    )
    figures, decisions = texts(svg)[-2:]
    assert figures.split() == ["v001", "0.25", "v002", "0.50", "v003", "0.40"]
    assert decisions.split() == ["baseline", "promoted", "rejected"]
    assert {"target 0.60", "people 0.77"} <= set(texts(svg))
    assert {colour: len(places) for colour, places in dots(svg).items()} == {"#0072b2": 2, "#7fb8d8": 1}


def test_higher_kappa_stands_higher_also_below_zero() -> None:
    svg = plot_kappa_by_version([evaluation("a", -0.25), evaluation("b", 0.9)], {})
    (low, high) = (y for _, y in dots(svg)["#7fb8d8"])
    assert high < low
    assert "-0.4" in texts(svg)  # the tick under -0.25 - 0.1, the interval's lower end


def test_names_of_levels_that_lie_near_each_other_do_not_overlap() -> None:
    svg = plot_kappa_by_version([evaluation("a", 0.5)], {"target": 0.6, "people": 0.61})
    tops = [
        float(element.attrib["y"])
        for element in elements(svg, "text")
        if (element.text or "").startswith(("target", "people"))
    ]
    assert abs(tops[0] - tops[1]) >= 16


def test_an_undefined_kappa_is_no_dot() -> None:
    svg = plot_kappa_by_version([evaluation("v001", None, "baseline")], {"target": 0.6})
    assert dots(svg) == {}
    assert "v001 n/a" in texts(svg)


def test_evaluations_of_a_version_are_joined_in_the_order_of_time() -> None:
    evaluations = [evaluation("v001", 0.5, day=14), evaluation("v002", 0.6, day=1), evaluation("v001", 0.3)]
    svg = plot_kappa_over_time(evaluations)
    lines = [path.attrib["d"] for path in elements(svg, "path") if "L" in path.attrib["d"]]
    assert len(lines) == 1  # v002 was evaluated once
    (x0, y0), (x1, y1) = (tuple(map(float, point.split())) for point in lines[0].removeprefix("M").split("L"))
    assert x0 < x1
    assert y0 > y1  # 0.3 is drawn below 0.5
    assert texts(svg).count("v001") == 1


def test_many_evaluations_stay_light_and_the_latest_are_shown() -> None:
    many = [evaluation(f"v{i:03d}", 0.5, day=i) for i in range(1000)]
    by_version, in_time = plot_kappa_by_version(many, {}), plot_kappa_over_time(many)
    assert "v999" in texts(by_version)[-2]
    assert sum(map(len, dots(by_version).values())) == MAX_VERSIONS
    assert in_time.count("h0") == MAX_EVALUATIONS
    assert len([text for text in texts(in_time) if text.startswith("v")]) == MAX_VERSIONS
    assert max(len(by_version), len(in_time)) < MAX_BYTES


def test_nothing_evaluated_yet_is_an_empty_plot() -> None:
    assert dots(plot_kappa_over_time([])) == {}
    assert dots(plot_kappa_by_version([], {"target": 0.6})) == {}


def test_the_plots_of_a_calibration_of_some_rounds_are_seen_without_a_click() -> None:
    rounds = [evaluation(f"v{i:03d}", 0.1 * i, "promoted", day=i) for i in range(1, 6)]
    by_version = embed_picture(plot_kappa_by_version(rounds, {"target": 0.6, "people": 0.77}), "Kappa by version")
    in_time = embed_picture(plot_kappa_over_time(rounds), "Kappa over time")
    matrix = embed_picture(plot_confusion_matrix(ConfusionMatrix(50_000, 4_000, 3_000, 20_000)), "Confusion matrix")
    assert max(map(len, (by_version, in_time, matrix))) < SHOWN_AT_ONCE


def test_names_from_files_are_text() -> None:
    svg = plot_kappa_by_version([evaluation("<b>&", 0.5)], {})
    assert "<b>& 0.50" in texts(svg)


def test_a_picture_in_markdown_is_the_drawing_on_a_light_ground() -> None:
    svg = plot_kappa_by_version([evaluation("50 % <b>\\", 0.5)], {})
    markdown = embed_picture(svg, "Kappa [by] version")
    start = "![Kappa [by] version](<data:image/svg+xml,"
    assert markdown.startswith(start)
    carried = unquote(markdown.removeprefix(start).removesuffix(">)"))
    assert texts(carried) == texts(svg)
    assert "background:#fff" in ET.fromstring(carried).attrib["style"]  # noqa: S314 - our own
