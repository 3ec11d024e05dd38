"""The stages that inspect shows, from Python and on the command line."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

import kdtool
from kdtool.cli.main import cli


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "resnet.pt"
    kdtool.teacher("kdtool:resnet20", classes=10, image_size=32, output=path)
    return path


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    path = tmp_path_factory.mktemp("lenet") / "lenet.pt"
    kdtool.teacher("kdtool:lenet-5", output=path)
    return path


def test_stages_are_shown_when_they_are_asked_for(resnet):
    assert "stages" not in kdtool.inspect(resnet)
    first, second, *_ = kdtool.inspect(resnet, stages=True)["stages"]
    # Two convolutions of 3x3 and their norms.
    block = 2 * (16 * 16 * 9 + 2 * 16)
    assert first == {
        "name": "layer1",
        "blocks": ["layer1.0", "layer1.1", "layer1.2"],
        "parameters": [block, block, block],
        "dense": False,
        "output": [16, 32, 32],
    }
    assert second["output"] == [32, 16, 16]


def test_stages_are_those_of_the_network_as_it_is_now(resnet, tmp_path):
    small = kdtool.refine(resnet, method="depth", keep=(1, 2, 1), output=tmp_path / "small.pt")
    narrow = kdtool.refine(small, method="halve", output=tmp_path / "narrow.pt")
    stages = kdtool.inspect(narrow, stages=True)["stages"]
    assert [len(stage["blocks"]) for stage in stages] == [1, 2, 1]
    assert [stage["output"][0] for stage in stages] == [8, 16, 32]


def test_a_dense_stage_ends_with_all_its_channels(tmp_path):
    net = kdtool.teacher("kdtool:densenet-bc-100-12", classes=10, image_size=8, output=tmp_path / "d.pt")
    first = kdtool.inspect(net, stages=True)["stages"][0]
    # 24 of the stem and 16 layers with 12 each.
    assert (first["dense"], len(first["blocks"]), first["output"][0]) == (True, 16, 24 + 16 * 12)


def test_the_table_and_the_json_of_several_checkpoints(resnet, lenet):
    shown = CliRunner().invoke(cli, ["inspect", "--stages", str(resnet), str(lenet)])
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["stage", "blocks", "parameters", "output"] in rows
    assert ["layer1", "3", "14,016", "16x32x32"] in rows
    assert "no stages" in shown.stdout
    assert "halve" in shown.stdout
    rows = json.loads(CliRunner().invoke(cli, ["inspect", "--stages", "--json", str(resnet), str(lenet)]).stdout)
    assert [len(row["stages"]) for row in rows] == [3, 0]


def test_without_the_option_there_is_no_word_of_stages(lenet):
    assert "stage" not in CliRunner().invoke(cli, ["inspect", str(lenet)]).stdout


def test_a_checkpoint_whose_file_is_not_found_any_more(lenet, monkeypatch, tmp_path):
    monkeypatch.chdir(lenet.parent)
    checkpoint = kdtool.load(lenet.name)
    assert kdtool.inspect(checkpoint)["file_bytes"] == lenet.stat().st_size
    monkeypatch.chdir(tmp_path)
    assert kdtool.inspect(checkpoint)["file_bytes"] is None


def test_options_that_say_nothing_are_refused(lenet):
    with pytest.raises(kdtool.UsageError, match=r"^there is no option 'nonsense'$"):
        kdtool.inspect(lenet, nonsense=3)
    with pytest.raises(kdtool.UsageError, match="there is no option 'spilt_seed'; did you mean split_seed"):
        kdtool.inspect(data="digits", spilt_seed=3)
    with pytest.raises(kdtool.UsageError, match=r"^--split-seed: names no data set; add --data$"):
        kdtool.inspect(lenet, split_seed=3)
    with pytest.raises(kdtool.UsageError, match="--stages: a data set has no stages"):
        kdtool.inspect(lenet, stages=True, data="digits")


@pytest.mark.parametrize(
    ("size", "crop", "shown"),
    [((64, 64), 1.0, "64 pixels\n"), ((65, 64), 0.875, "224 pixels, centre 0.875 of the shorter side\n")],
)
def test_how_much_of_an_image_is_used(size, crop, shown, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", size, number).save(tmp_path / name / f"{number}.png")
    assert kdtool.inspect(data=f"folder:{tmp_path}")["crop"] == crop
    assert f"1 channel, {shown}" in CliRunner().invoke(cli, ["inspect", "--data", f"folder:{tmp_path}"]).stdout
