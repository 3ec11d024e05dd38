"""The frontier of a compression as SVG: everything that it says can be read."""

import itertools
import re
from xml.etree import ElementTree

from kdtool.plotting.frontier import Axis, Tried, draw_frontier

TEXT = "{http://www.w3.org/2000/svg}text"
GROUPS = ["teacher", "filter-l1", "geometric-median", "width-depth", "gated", "halve int8", "group-taylor int8"]


def texts(svg):
    """Return the width of a picture, and where each text begins and what it says."""
    root = ElementTree.fromstring(svg)
    width = float(root.attrib["viewBox"].split()[2])
    found = []
    for text in root.iter(TEXT):
        place = re.search(r"translate\(([-\d.]+)", text.attrib.get("transform", ""))
        x = float(text.attrib.get("x", place.group(1) if place else "nan"))
        found.append((x, "middle" in text.attrib.get("style", ""), "".join(text.itertext())))
    return width, found


def drawn(costs):
    tried = [
        Tried(group, group, 0.5 + 0.05 * number, {"size": cost}, False, "teacher" * (number == 0))
        for number, (group, cost) in enumerate(zip(GROUPS, costs, strict=True))
    ]
    return draw_frontier(tried, [Axis("size", "ONNX file in MB", 0.3)], "validation accuracy")


def test_the_legend_is_within_the_picture():
    width, found = texts(drawn([1.0, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2]))
    for name in (*GROUPS, "budget"):
        ((x, _, _),) = [row for row in found if row[2] == name]
        assert x >= 0
        assert x + 8 * 0.55 * len(name) <= width, name  # letters of 8 points are about half as wide


def test_the_numbers_of_a_logarithmic_axis_stand_apart():
    _, found = texts(drawn([3.0, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2]))
    numbers = sorted((x, text) for x, middle, text in found if middle and re.fullmatch(r"0?\.?\d+", text))
    assert [text for _, text in numbers] == ["0.3", "1", "3"]
    assert all(later[0] - earlier[0] > 20 for earlier, later in itertools.pairwise(numbers))


def test_an_axis_of_many_decades_has_few_numbers():
    _, found = texts(drawn([20_000.0, 500.0, 10.0, 1.0, 0.1, 0.01, 0.0001]))
    numbers = sorted((x, text) for x, middle, text in found if middle and re.fullmatch(r"[\d.]+", text))
    assert [text for _, text in numbers] == ["0.0001", "0.01", "1", "100", "10000"]
