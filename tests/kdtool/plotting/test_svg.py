"""Charts of many lines: each can be told from the others, and the legend fits."""

import itertools
import re
from xml.etree import ElementTree

import pytest

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


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws a chart of one panel and returns its figure and its axes, which have their place."""
    figures = []
    monkeypatch.setattr("kdtool.plotting.svg.as_svg", figures.append)

    def draw(lines, title="", level=None):
        draw_chart(Chart("t", "x", "y", [Panel(title, lines, level or {})]))
        figures[-1].draw_without_rendering()
        return figures[-1], figures[-1].axes[0]

    return draw


def test_a_point_without_an_interval_leaves_the_bars_of_the_others(drawn):
    _, axes = drawn({"a": [Point(1, 0.9, 0.8, 0.95), Point(2, 0.5), Point(3, 0.7, 0.6, 0.8)]})
    _, _, (bars,) = axes.containers[0].lines
    ends = {bar[0][0]: (bar[0][1], bar[1][1]) for bar in bars.get_segments() if len(bar)}
    assert ends == {1: pytest.approx((0.8, 0.95)), 3: pytest.approx((0.6, 0.8))}


def test_panels_keep_their_height_whatever_the_legend_and_the_title_hold(drawn):
    heights = []
    for count, title in ((2, "short"), (60, "short"), (2, "a title of several words " * 5)):
        lines = {f"a-rather-long-name-of-a-line-{number}": [Point(1, 0.5), Point(2, 0.6)] for number in range(count)}
        figure, axes = drawn(lines, title)
        (legend,) = figure.legends
        heights.append(axes.get_window_extent().height)
        assert legend.get_window_extent().y1 < axes.get_window_extent().y0
        assert " ".join(axes.get_title().split()) == title.strip()
        assert axes.title.get_window_extent().width < figure.bbox.width
    assert max(heights) < 1.1 * min(heights)


def test_a_text_that_is_cut_says_so(drawn):
    name = "a name that never ends " * 20
    figure, axes = drawn({name: [Point(1, 0.5)]}, name)
    (legend,) = figure.legends
    for text in (axes.title, *legend.get_texts()):
        assert text.get_text().startswith("a name that")
        assert text.get_text().endswith("…")
        assert text.get_window_extent().width < figure.bbox.width


def test_values_that_differ_by_a_factor_have_places_of_their_own(drawn):
    _, axes = drawn({"a": [Point(lr, 0.5) for lr in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)]})
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.003", "0.01", "0.03", "0.1", "0.3"]
    places = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places))
    assert not axes.get_xminorticklabels()


def test_a_label_that_would_touch_the_one_before_it_is_left_out(drawn):
    _, axes = drawn({"a": [Point(x, 0.5) for x in (0.5, 0.51, 0.9, 0.91, 1.0)]})
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "", "0.9", "", "1"]


def test_the_axis_of_equal_or_close_accuracies_has_their_digits(drawn):
    for value in (0.0, 1.0):
        _, axes = drawn({"a": [Point(1, value), Point(2, value)]})
        assert axes.get_ylim() == pytest.approx((value - 0.05, value + 0.05))
    _, axes = drawn({"a": [Point(1, 0.98331), Point(2, 0.98332)]})
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert all(float(label.get_text()) > 0.98 for label in axes.get_yticklabels())


def test_every_column_of_panels_has_numbers_at_its_axis(monkeypatch):
    figures = []
    monkeypatch.setattr("kdtool.plotting.svg.as_svg", figures.append)
    draw_chart(Chart("t", "x", "y", [Panel("", {"a": [Point(1, 0.1), Point(2, 0.2)]}, {})] * 5))
    shown = [axes.xaxis.get_tick_params()["labelbottom"] for axes in figures[0].axes]
    assert shown == [False, False, True, True, True]
