"""The pictures of a gated search: what stands in them, and that text can be read."""

import re
from xml.etree import ElementTree

import pytest

from kdtool.plotting import draw_gates, draw_search
from kdtool.plotting.gates import SMALL

GATES = {
    "blocks": [
        {"readers": ["b.l1.conv1", "b.l2.conv1"], "producers": ["stem", "b.l1.conv2"], "dropped": [[0.5, None]] * 2}
    ],
    "layers": [{"layer": "layer1.0.conv$1", "channels": 16, "dropped": 0.25}],
}
ROWS = [
    {"epoch": epoch, "open": 400 - 100 * epoch, "macs": 4e6 - 1e6 * epoch, "kl": 0.1} | more
    for epoch, more in ((1, {}), (2, {"latency_ratio": 0.7}), (3, {"parameters": 5e4}))
]


def texts(path):
    root = ElementTree.parse(path).getroot()
    return [element for element in root.iter() if element.tag.endswith("}text")]


def words(path):
    return ["".join(element.itertext()) for element in texts(path)]


def sizes(path):
    return {float(re.search(r"([\d.]+)px", element.get("style", "")).group(1)) for element in texts(path)}


def test_gates_have_a_title_and_text_that_can_be_read(tmp_path):
    draw_gates(GATES, tmp_path / "g.svg", "kdtool:resnet20: 60.0 % of the MACs removed")
    seen = words(tmp_path / "g.svg")
    assert "kdtool:resnet20: 60.0 % of the MACs removed" in seen
    assert {"dense block 1", "l1.conv2", "layer1.0.conv$1 (16)", "other layers", "drop ratio"} <= set(seen)
    assert min(sizes(tmp_path / "g.svg")) >= SMALL


@pytest.mark.parametrize(
    ("budget", "panels", "lines"),
    [
        (None, ["open gates", "MACs, in millions", "KL, in nats"], 0),
        pytest.param(("macs", 1.5e6), ["open gates", "MACs, in millions", "KL, in nats"], 1, marks=pytest.mark.slow),
        pytest.param(
            ("parameters", 4e4),
            ["open gates", "MACs, in millions", "parameters, in millions", "KL, in nats"],
            1,
            marks=pytest.mark.slow,
        ),
        (("latency_ratio", 0.5), ["open gates", "MACs, in millions", "latency, as a fraction of the teacher's"], 1),
    ],
)
def test_a_search_shows_its_budget_at_whole_epochs(tmp_path, budget, panels, lines):
    draw_search(ROWS, tmp_path / "s.svg", budget)
    seen = words(tmp_path / "s.svg")
    assert [word for word in seen if word in panels] == panels
    assert seen.count("budget") == lines
    # The axis of the epochs has 1, 2 and 3 and nothing between them.
    assert seen[:3] == ["1", "2", "3"]
    assert min(sizes(tmp_path / "s.svg")) >= SMALL
    again = (tmp_path / "s.svg").read_bytes()
    draw_search(ROWS, tmp_path / "s.svg", budget)
    assert (tmp_path / "s.svg").read_bytes() == again


@pytest.mark.parametrize("epochs", [1, 11, *(pytest.param(epochs, marks=pytest.mark.slow) for epochs in (2, 10, 40))])
def test_epochs_are_whole(tmp_path, epochs):
    rows = [{"epoch": epoch, "open": 10, "macs": 4e6, "kl": 0.1} for epoch in range(1, epochs + 1)]
    draw_search(rows, tmp_path / "s.svg")
    seen = words(tmp_path / "s.svg")
    ticks = seen[: seen.index("epoch")]
    assert ticks
    assert all(re.fullmatch(r"\d+", tick) for tick in ticks)


def test_a_large_picture_is_a_small_file(tmp_path):
    """48 layers in three dense blocks, as DenseNet-BC-100-12 has them."""
    names = [f"features.denseblock1.denselayer{layer}.conv1" for layer in range(1, 18)]
    block = {
        "readers": names,
        "producers": names,
        "dropped": [[row / 17] * row + [None] * (17 - row) for row in range(1, 18)],
    }
    layers = [{"layer": name, "channels": 48, "dropped": 0.5} for name in names[:16] * 3]
    draw_gates({"blocks": [block] * 3, "layers": layers}, tmp_path / "g.svg", "large")
    assert (tmp_path / "g.svg").stat().st_size < 100_000
