"""Exports with and without their data sets."""

import pytest

import kdtool
from kdtool.cli.main import cli
from kdtool.errors import Error, UsageError


@pytest.fixture(scope="module")
def bare(teacher_path, tmp_path_factory):
    """The teacher as a checkpoint that records no data."""
    checkpoint = kdtool.load(teacher_path)
    checkpoint.data = None
    return checkpoint.save(tmp_path_factory.mktemp("bare") / "bare.pt").path


def test_int8_takes_the_validation_images_and_the_test_ones(teacher_path, tmp_path):
    output = tmp_path / "a.onnx"
    facts = kdtool.export(teacher_path, output=output, int8=True, latency=False, calibration_images=40)
    checkpoint = kdtool.load(teacher_path)
    assert facts["quantised"]["val_images"] == checkpoint.metrics[0]["images"]
    assert facts["quantised"]["calibration_images"] == 40
    assert facts["float"]["accuracy"]["accuracy"] == checkpoint.metric("test", "accuracy")
    assert facts["accuracy"]["images"] == checkpoint.metrics[1]["images"]
    assert facts["file_bytes"] < 0.35 * facts["float"]["file_bytes"]


def test_the_name_of_an_int8_file_on_the_command_line(teacher_path, tmp_path, capsys):
    path = kdtool.load(teacher_path).save(tmp_path / "net.pt").path
    words = ["export", str(path), "--int8", "--no-latency", "--calibration", "minmax", "--max-drop", "50%"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "net-int8.onnx")
    assert (tmp_path / "net-int8.onnx").is_file()


def test_int8_without_data_is_refused(bare, tmp_path):
    with pytest.raises(
        Error, match=r"--int8 calibrates with validation images, and there is no validation split; name"
    ):
        kdtool.export(bare, output=tmp_path / "a.onnx", int8=True, latency=False)
    assert not (tmp_path / "a.onnx").exists()


def test_data_that_are_named(bare, tmp_path):
    facts = kdtool.export(bare, output=tmp_path / "a.onnx", data="digits", latency=False)
    assert facts["accuracy"]["images"] > 100


def test_data_that_are_not_found(bare, tmp_path):
    with pytest.raises(Error, match="nowhere"):
        kdtool.export(bare, output=tmp_path / "a.onnx", data=f"folder:{tmp_path}/nowhere", latency=False)
    with pytest.raises(UsageError, match=r"^there is no option 'lattency'; did you mean latency"):
        kdtool.export(bare, output=tmp_path / "a.onnx", lattency=False)
