"""ONNX files where a command takes checkpoints."""

import copy
import dataclasses
import json
from functools import partial

import onnx
import onnxruntime.quantization
import pytest
import torch
from PIL import Image

import kdtool
from kdtool import Error, UsageError
from kdtool.commands.onnx_input import load_any, read_onnx
from kdtool.exporting.contained import measure_contained
from kdtool.exporting.measurement import measure_file
from kdtool.utils.files import gzip_bytes

QUICK = {"device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx-input")


@pytest.fixture(scope="module")
def exported(teacher_path, folder):
    """The teacher as an ONNX file."""
    kdtool.export(teacher_path, output=folder / "teacher.onnx", latency=False)
    return folder / "teacher.onnx"


def with_metadata(path, to, **changes):
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props} | changes
    onnx.helper.set_model_props(model, {key: value for key, value in metadata.items() if value is not None})
    onnx.save(model, to)
    return to


def test_a_file_scores_as_its_checkpoint(exported, teacher_path):
    rows = kdtool.evaluate([exported, teacher_path], **QUICK)
    assert [row.pop("checkpoint") for row in rows] == [str(exported), str(teacher_path)]
    assert rows[0].pop("loss") == pytest.approx(rows[1].pop("loss"), rel=1e-4)
    assert rows[0] == rows[1]
    (val,) = kdtool.evaluate(exported, split="val", **QUICK)
    assert val["images"] == kdtool.load(teacher_path).metrics[0]["images"]


def test_a_file_compares_with_its_checkpoint(exported, teacher_path, monkeypatch):
    briefly = partial(measure_contained, pairs=2, seconds=0.1)
    monkeypatch.setattr("kdtool.commands.compare.measure_contained", briefly)
    found = kdtool.compare(exported, teacher_path, latency=True, **QUICK)
    assert found["classified_differently"] == 0
    assert found["l2"] < 1e-4
    for name in ("parameters", "nonzero", "macs", "accuracy"):
        assert found["a"][name] == found["b"][name]
    assert found["a"]["file_bytes"] == exported.stat().st_size
    assert found["b"]["latency_ratio"] > 0


def test_a_file_of_fixed_batches_with_its_weights_beside_it(exported, tmp_path):
    model = onnx.load(exported)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    del model.graph.value_info[:]
    # Its suffix does not matter either.
    onnx.save(model, tmp_path / "A.ONNX", save_as_external_data=True, location="a.data")
    rows = kdtool.evaluate([tmp_path / "A.ONNX", exported], **QUICK)
    assert rows[0]["images"] % 7
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    files = [tmp_path / name for name in ("A.ONNX", "a.data")]
    about = kdtool.inspect(files[0])
    assert about["file_bytes"] == sum(file.stat().st_size for file in files)
    assert about["gzip_bytes"] == sum(map(gzip_bytes, files))
    found = kdtool.compare(files[0], exported, **QUICK)
    assert found["a"]["file_bytes"] == about["file_bytes"]
    assert found["classified_differently"] == 0


def test_what_another_program_made_of_a_file(exported, tmp_path, capsys):
    assert kdtool.inspect(exported)["metrics"]
    assert "was changed" not in capsys.readouterr().err
    weights = onnxruntime.quantization.QuantType.QUInt8
    onnxruntime.quantization.quantize_dynamic(exported, tmp_path / "dynamic.onnx", weight_type=weights)
    about = kdtool.inspect(tmp_path / "dynamic.onnx")
    assert (about["precision"], about["metrics"]) == ("unknown", [])
    assert "dynamic.onnx: was changed after kdtool export" in capsys.readouterr().err
    assert measure_file(tmp_path / "dynamic.onnx", pairs=1, seconds=0.1)["structure"] is None


def test_what_a_file_tells(exported, teacher_path):
    about, checkpoint = kdtool.inspect(exported), kdtool.inspect(teacher_path)
    for name in ("source", "parameters", "nonzero", "macs", "classes", "input"):
        assert about[name] == checkpoint[name]
    assert about["metrics"][0]["accuracy"] == kdtool.load(teacher_path).metric("test", "accuracy")
    assert [entry["line"].split()[:2] for entry in about["history"]] == [["kdtool", "teacher"]]
    assert about["data"]["directory"] is None
    assert json.loads(json.dumps(about)) == about
    with pytest.raises(UsageError, match=r"teacher\.onnx: an ONNX file has no stages; name the checkpoint"):
        kdtool.inspect(exported, stages=True)


def test_a_report_on_a_file(exported, folder):
    # A run of the same name made the checkpoint, not the ONNX file.
    text = kdtool.report(exported, output=folder / "r.html").read_text()
    assert "kdtool:lenet-300-100" in text
    assert "digits" in text
    assert "50,610" in text


def test_the_preparation_is_that_of_the_checkpoint(exported, teacher_path):
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    how, data = json.loads(metadata["kdtool.preparation"]), kdtool.load(teacher_path).data
    assert (how["size"], how["crop"], how["interpolation"]) == (data.image_size, data.crop, data.interpolation)
    assert (tuple(how["mean"]), tuple(how["std"]), how["mode"], how["layout"]) == (data.mean, data.std, "L", "NCHW")


def photos(folder):
    """Write a folder of gray squares, dark and bright."""
    for split, number in (("train", 8), ("test", 6)):
        for name, value in (("dark", 40), ("bright", 200)):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                Image.new("L", (10 + index, 12), value + index).save(folder / split / name / f"{index}.png")
    return f"folder:{folder}"


def test_a_file_does_not_tell_a_folder_s_place(tmp_path):
    name = photos(tmp_path / "photos")
    kdtool.teacher("kdtool:lenet-300-100", data=name, image_size=8, epochs=1, output=tmp_path / "a.pt")
    kdtool.export(tmp_path / "a.pt", output=tmp_path / "a.onnx", latency=False)
    assert str(tmp_path).encode() not in (tmp_path / "a.onnx").read_bytes()
    for call in (lambda: kdtool.evaluate(tmp_path / "a.onnx"), lambda: kdtool.compare(*[tmp_path / "a.onnx"] * 2)):
        with pytest.raises(UsageError, match=r"a\.onnx: does not tell where its images are; name them with --data$"):
            call()
    (row,) = kdtool.evaluate(tmp_path / "a.onnx", data=name)
    assert row["images"] == 12
    # Beside a checkpoint that knows its images, these are used.
    assert kdtool.compare(tmp_path / "a.onnx", tmp_path / "a.pt")["classified_differently"] == 0


def test_files_of_earlier_releases_tell_less(exported, folder):
    old = with_metadata(
        exported,
        folder / "old.onnx",
        **dict.fromkeys(["kdtool.data", "kdtool.preparation", "kdtool.size", "kdtool.metrics", "kdtool.structure"]),
    )
    (row,) = kdtool.evaluate(old, data="digits", **QUICK)
    assert row["accuracy"] == kdtool.inspect(exported)["metrics"][0]["accuracy"]
    assert kdtool.inspect(old)["parameters"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kdtool.data": None, "kdtool.mean": None},
            r"bad\.onnx: its metadata lack kdtool\.mean, so that neither its im",
        ),
        ({"kdtool.data": '{"name": 1}'}, r"bad\.onnx: its metadata are damaged: data description: missing or unknown"),
        ({"kdtool.data": "[1]"}, r"bad\.onnx: its metadata are damaged: data description: it cannot be a list"),
    ],
)
def test_metadata_that_are_missing_or_damaged(exported, folder, changes, message):
    with pytest.raises(Error, match=message):
        read_onnx(with_metadata(exported, folder / "bad.onnx", **changes))


def test_metadata_of_another_form_are_left_out(exported, folder):
    scores = {"split": "test", "accuracy": 0.5}
    for metrics in ([{"split": {"a": 1}}], [{"accuracy": 0.5}], [scores | {"accuracy": [1]}], [scores] * 10_001):
        changes = {
            "kdtool.metrics": json.dumps(metrics),
            "kdtool.size": f'{{"parameters": 1{"0" * 400}, "nonzero": -5, "macs": "x"}}',
            "kdtool.history": '["kdtool teacher x", {"a": 1}]',
        }
        about = kdtool.inspect(with_metadata(exported, folder / "odd.onnx", **changes))
        assert (about["metrics"], about["history"]) == ([], [])
        assert (about["parameters"], about["nonzero"], about["macs"]) == (None, None, None)
    long = json.dumps([scores | {"loss": "x" * (4 << 20)}])
    assert kdtool.inspect(with_metadata(exported, folder / "odd.onnx", **{"kdtool.metrics": long}))["metrics"] == []


def test_what_is_no_onnx_file(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(Error, match=r"a\.onnx: is damaged or is no ONNX file; export the network again$"):
        kdtool.evaluate(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=r"b\.onnx: there is no such file$"):
        load_any(tmp_path / "b.onnx")


def test_a_session_is_a_module(exported, teacher_path):
    module, network = load_any(exported).module, kdtool.load(teacher_path).module
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(module)(images), network(images))
    assert list(module.parameters()) == []


def test_data_of_another_order_of_classes(exported, folder, teacher_path):
    """Classes are matched by name: with two of them exchanged, their images are wrong."""
    data = kdtool.load(teacher_path).data
    swapped = dataclasses.replace(data, classes=(*data.classes[1::-1], *data.classes[2:])).as_data()
    other = with_metadata(exported, folder / "swapped.onnx", **{"kdtool.data": json.dumps(swapped)})
    rows = kdtool.evaluate([exported, other], **QUICK)
    assert rows[1]["accuracy"] < rows[0]["accuracy"] - 0.05
