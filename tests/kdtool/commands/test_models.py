import json

import pytest
from click.testing import CliRunner
from torch import nn

import kdtool
from kdtool.cli.main import cli
from kdtool.commands.models import count, networks
from kdtool.errors import Error
from kdtool.models.names import read
from kdtool.plugins.registry import make


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path))
    monkeypatch.setattr("kdtool.commands.models.names", lambda kind: ["kdtool"])


def run(*words):
    return CliRunner().invoke(cli, ["models", *words])


def test_published_numbers_of_parameters():
    # LeNet-300-100 and LeNet-5: 784*300+300 + 300*100+100 + 100*10+10, and LeCun et al. (1998) with a full C3;
    # densenet-bc-100-12: 0.8 M (Huang et al., 2017); resnet20: 0.27 M, resnet110: 1.7 M (He et al., 2016, table 6).
    rows = {row["network"]: row["parameters"] for row in networks()}

    assert rows["kdtool:lenet-300-100"] == 266_610
    assert rows["kdtool:lenet-5"] == 61_706
    assert rows["kdtool:densenet-bc-100-12"] == pytest.approx(0.8e6, rel=0.05)
    assert rows["kdtool:resnet20"] == pytest.approx(0.27e6, rel=0.02)
    assert rows["kdtool:resnet110"] == pytest.approx(1.7e6, rel=0.02)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lenet", ["kdtool:lenet-300-100", "kdtool:lenet-5"]),
        ("LeNet-5", ["kdtool:lenet-5"]),
        ("*-5", ["kdtool:lenet-5"]),
        ("wrn-40-?", ["kdtool:wrn-40-1", "kdtool:wrn-40-2"]),
        ("kdtool:vgg", ["kdtool:vgg13", "kdtool:vgg8"]),
        ("kdtool:*20", ["kdtool:resnet20"]),
        ("net5*", []),
        ("timm:lenet", []),
    ],
)
def test_a_pattern_is_a_part_or_the_whole(pattern, expected):
    assert [row["network"] for row in networks(pattern, most=0)] == expected


def test_what_is_counted_is_remembered(monkeypatch):
    assert networks("lenet-5") == [{"network": "kdtool:lenet-5", "parameters": 61_706}]

    monkeypatch.setattr("kdtool.commands.models.count", lambda *_: pytest.fail("it is known already"))

    assert networks("lenet-5", most=0) == [{"network": "kdtool:lenet-5", "parameters": 61_706}]
    assert read("kdtool").parameters == {"lenet-5": 61_706}
    assert networks("lenet", most=0)[0] == {"network": "kdtool:lenet-300-100"}


def test_a_network_that_cannot_be_built_has_no_number():
    class Odd:
        name = "odd"

        def defaults(self, network):
            return {"classes": 2, "in_channels": 3, "image_size": 8}

        def build(self, network, **shape):
            if network == "broken":
                raise Error("it is broken")
            return nn.Linear(3, shape["classes"])

    assert count(Odd(), "broken") is None
    assert count(Odd(), "fine") == 8


def test_counting_takes_no_memory_for_weights():
    import torch

    built = []
    source = make("teachers", "kdtool")
    build = type(source).build

    class Watched(type(source)):
        def build(self, network, **shape):
            built.append(build(self, network, **shape))
            return built[-1]

    assert count(Watched(), "resnet20") == 269_722 + 0
    assert {weight.device for weight in built[0].parameters()} == {torch.device("meta")}


def test_the_command():
    many = run("lenet")

    assert many.exit_code == 0
    assert many.stdout.splitlines()[0].split() == ["network", "parameters"]
    assert json.loads(run("lenet-5", "--json").stdout) == [{"network": "kdtool:lenet-5", "parameters": 61_706}]
    nothing = run("nosuch")
    assert nothing.exit_code == 2
    assert nothing.stderr == (
        "Error: models: no network matches 'nosuch'; write a part of its name, or a pattern with *\n"
    )


def test_more_than_are_counted_at_once(monkeypatch):
    monkeypatch.setattr("kdtool.cli.commands.models.AT_ONCE", 1)

    result = run("lenet")

    assert "2 of 2 networks are not counted yet; a narrower pattern or --count counts their parameters" in result.stderr
    assert "61,706" not in result.stdout
    assert "61,706" in run("lenet", "--count").stdout


def test_from_python():
    assert kdtool.networks("lenet-5") == networks("lenet-5")


def test_a_source_that_fails_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr("kdtool.commands.models.names", lambda kind: ["nosuch", "kdtool"])

    assert networks("lenet-5") == [{"network": "kdtool:lenet-5", "parameters": 61_706}]
    assert capsys.readouterr().err.startswith("nosuch is left out: UsageError: no teacher source is called 'nosuch'")


def test_a_network_is_built_where_the_names_of_its_source_are_not_to_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr(type(make("teachers", "kdtool")), "networks", lambda self: 1 / 0)

    assert kdtool.teacher("kdtool:lenet-5", output=tmp_path / "net.pt").classes == tuple("0123456789")
    assert read("kdtool") is None
