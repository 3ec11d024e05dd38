"""Charts of many lines: each can be told from the others, and the legend fits."""

import re
from xml.etree import ElementTree

from kdtool.plotting.chart import Chart, Panel, Point
from kdtool.plotting.svg import COLORS, draw_chart, draw_panels, marker_of


def test_lines_of_one_color_have_different_markers():
    marks = [(COLORS[index % len(COLORS)], marker_of(index)) for index in range(64)]
    assert len(set(marks)) == 64


def test_the_legend_of_many_long_names_stays_in_the_picture():
    names = [f"a-rather-long-name-{number}" for number in range(16)]
    lines = {name: [Point(index / 16, 0.9)] for index, name in enumerate(names)}
    svg = draw_chart(Chart("t", "x", "y", [Panel(title, lines, {}) for title in ("latency", "MACs", "bytes")]))
    places = dict((name, float(x)) for x, name in re.findall(r'x="([-\d.]+)"[^>]*>(a-rather[^<]*)<', svg))
    assert set(places) == set(names)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    # A name of 21 characters is about 100 points wide.
    assert 20 < min(places.values()) < max(places.values()) < width - 80


def test_a_chart_is_xml_whatever_its_texts_hold():
    odd = "a\x1b[31m\x0b<b>&"
    svg = draw_chart(Chart(odd, odd, "y", [Panel(odd, {odd: [Point(1, 0.9)]}, {})]))
    assert "a?[31m?<b>&" in "".join(ElementTree.fromstring(svg).itertext())


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_panels_of_other_values_share_an_axis_on_which_all_have_their_place():
    panels = [Panel("latency", {"a": [Point(0.7, 0.4), Point(1, 0.1)]}, {}), Panel("MACs", {"a": [Point(1, 0.4)]}, {})]
    share = Chart("t", "x", "y", panels, from_zero=True)
    # The ticks were those of the last panel, so that 0.7 had none, and the axis began at 0.7.
    for svg in (draw_chart(share), *draw_panels(share)):
        assert {"0.0", "0.6", "1.0"} <= set(texts(svg))
    assert {"0.7", "1"} <= set(texts(draw_chart(Chart("t", "x", "y", panels))))


def test_panels_that_stand_alone_have_the_axes_the_colors_and_a_legend_of_their_own():
    panels = [Panel("one", {"a": [Point(1, 0.1)], "b": [Point(2, 0.2)]}, {}), Panel("two", {"b": [Point(3, 0.9)]}, {})]
    one, two = draw_panels(Chart("t", "x", "y", panels))
    assert {"one", "a", "b"} <= set(texts(one))
    assert {"two", "b"} <= set(texts(two))
    assert not {"one", "a"} & set(texts(two))
    assert COLORS[1] in two
    assert COLORS[0] not in two
    ticks = [[text for text in texts(svg) if re.fullmatch(r"[\d.]+", text)] for svg in (one, two)]
    assert ticks[0] == ticks[1]


def test_a_chart_draws_as_many_lines_as_can_be_told_apart(monkeypatch):
    monkeypatch.setattr("kdtool.plotting.svg.MOST_LINES", 2)
    lines = {f"line{number}": [Point(1, number)] for number in range(3)}
    shown = texts(draw_chart(Chart("t", "x" * 1000, "y", [Panel("", lines, {"level": 1})])))
    assert [text for text in shown if text.startswith("l")] == ["line0", "line1"]
    assert max(map(len, shown)) == 60
