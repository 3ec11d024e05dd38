"""Charts of many lines: each can be told from the others, and the legend fits."""

import re

from kdtool.plotting.chart import Chart, Panel, Point
from kdtool.plotting.svg import COLORS, draw_chart, marker_of


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
