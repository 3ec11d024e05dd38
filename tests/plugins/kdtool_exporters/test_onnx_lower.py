"""Files of lower precision, from a network to what is said of them."""

import json
import logging

import numpy as np
import onnx
import onnxruntime
import pytest

from kdtool import Error, UsageError
from kdtool_exporters import onnx_lower
from kdtool_exporters.onnx_file import Onnx

QUICK = {"latency": False, "float_ends": "off", "calibration": "minmax"}


def right(path, batches):
    session = onnxruntime.InferenceSession(path)
    found = [session.run(None, {"images": images.numpy()})[0].argmax(1) == labels.numpy() for images, labels in batches]
    return float(np.concatenate(found).mean())


@pytest.fixture(scope="module")
def exported(outlier, patterns, tmp_path_factory):
    """The 8-bit file of a network two of whose layers cannot be quantised, and its measurements."""
    output = tmp_path_factory.mktemp("exported") / "tiny-int8.onnx"
    method = Onnx(int8=True, max_drop="2%", **{**QUICK, "latency": True}, pairs=2, latency_seconds=0.1)
    metadata = {"kdtool.input": "[1, 8, 8]"}
    return output, method.export(outlier, output, metadata=metadata, test=patterns, val=patterns)


def test_an_int8_file(exported, patterns):
    output, facts = exported
    assert json.loads(json.dumps(facts)) == facts
    about = facts["quantised"]
    assert {*about["float_layers"]} == {"wide", "narrow"}
    assert (about["precision"], about["way"], about["calibration"], about["layers"]) == ("int8", "static", "minmax", 2)
    assert about["drop_before"] > 0.2 > 0.02 >= about["drop"]
    assert about["val_accuracy"] == right(output, patterns) == facts["accuracy"]["accuracy"]
    assert about["val_images"] == about["calibration_images"] == 120
    assert facts["float"]["accuracy"]["accuracy"] == about["val_accuracy_float"]
    assert facts["float"]["latency"]["ratio"] > 0
    # Without a teacher both columns of the table are of the same pairs of samples.
    assert facts["latency"]["student"] == facts["float"]["latency"]["student"]
    assert facts["latency"]["ratio"] is None
    assert facts["worth_it"] in (True, False)
    assert facts["file_bytes"] == output.stat().st_size
    assert list(output.parent.iterdir()) == [output]


def test_an_int8_file_has_integers_and_its_metadata(exported):
    model = onnx.load(exported[0])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert {*metadata} == {"kdtool.input", "kdtool.metrics", "kdtool.precision", "kdtool.structure", "kdtool.operators"}
    assert (metadata["kdtool.input"], metadata["kdtool.precision"]) == ("[1, 8, 8]", "int8")
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["stem.weight_quantized"] == onnx.TensorProto.INT8
    assert types["wide.weight"] == onnx.TensorProto.FLOAT
    onnx.checker.check_model(model, full_check=True)


def test_half_precision_needs_no_validation(outlier, patterns, tmp_path, caplog):
    method = Onnx(fp16=True, skip=("he*",), latency=False, calibration="minmax")
    facts = method.export(outlier, tmp_path / "a.onnx", metadata={}, test=patterns)
    assert "--calibration: is not used with --fp16" in caplog.messages
    assert facts["quantised"] == {"precision": "fp16", "float_layers": ["head"], "layers": 3}
    assert facts["worth_it"] is None
    assert facts["accuracy"]["accuracy"] == right(tmp_path / "a.onnx", patterns)
    method = Onnx(fp16=True, max_drop="1%", latency=False)
    facts = method.export(outlier, tmp_path / "a.onnx", metadata={}, val=patterns)
    assert facts["quantised"]["drop"] <= 0.01


@pytest.mark.parametrize("choice", [{"only": ("stem", "he*"), "skip": ("head",)}, {"skip": ("wide", "narrow", "head")}])
def test_layers_are_chosen_by_their_names(outlier, patterns, tmp_path, choice):
    """The one layer that is left is not put back to float as the first one."""
    method = Onnx(int8=True, **{**QUICK, "float_ends": "on"}, **choice)
    about = method.export(outlier, tmp_path / "a.onnx", metadata={}, val=patterns)["quantised"]
    assert ({*about["float_layers"]}, about["layers"]) == ({"wide", "narrow", "head"}, 1)
    facts = Onnx(fp16=True, latency=False, **choice).export(outlier, tmp_path / "b.onnx", metadata={})
    assert (facts["quantised"]["float_layers"], facts["quantised"]["layers"]) == (["wide", "narrow", "head"], 1)


def test_the_names_of_files():
    assert [Onnx(**options).ending for options in ({}, {"int8": True}, {"fp16": True})] == [
        ".onnx",
        "-int8.onnx",
        "-fp16.onnx",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"int8": True, "fp16": True}, r"^--int8 and --fp16: choose one; the file has one precision$"),
        ({"max_drop": "1%"}, r"^--max-drop: belongs to --int8 or --fp16; give one of them$"),
        ({"skip": ("head",)}, r"^--skip: belongs to --int8 or --fp16; give one of them$"),
        ({"only": ("head",)}, r"^--only: belongs to --int8 or --fp16; give one of them$"),
        ({"latency": False, "pairs": 5}, r"^--pairs: --no-latency measures none; leave one out$"),
        ({"latency": False, "latency_from": "m.json"}, r"^--latency-from: --no-latency measures none; leave one out$"),
        ({"int8": True, "max_drop": "1"}, r"^--max-drop: 1 is not a loss of accuracy between 0 and 100 points; write"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        Onnx(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"int8": True}, r"^timm:tiny: --int8 calibrates with validation images, and there is no validation split; na"),
        ({"fp16": True, "max_drop": "1%"}, r"^timm:tiny: --max-drop is measured on validation images, and there is n"),
        (
            {"fp16": True, "skip": ("layer9",)},
            r"--skip layer9: matches no layer of timm:tiny that this can change; there are stem, wide, narrow",
        ),
        ({"fp16": True, "only": ("hed",)}, r"--only hed: matches no layer of timm:tiny .*did you mean head"),
        (
            {"fp16": True, "skip": ("*",)},
            r"timm:tiny: --only and --skip leave all layers in float; drop one",
        ),
    ],
)
def test_what_cannot_be_done_leaves_no_file(outlier, tmp_path, options, message):
    with pytest.raises(Error, match=message):
        Onnx(**options, latency=False).export(outlier, tmp_path / "a.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_one_class_alone_does_not_calibrate(outlier, patterns, tmp_path):
    alone = [(images[labels == 1], labels[labels == 1]) for images, labels in patterns]
    with pytest.raises(Error, match=r"^timm:tiny: all 30 validation images are of one class"):
        Onnx(int8=True, **QUICK).export(outlier, tmp_path / "a.onnx", metadata={}, val=alone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("reduce_range", "bits"), [("auto", 7), ("off", 8), ("on", 7)])
def test_a_processor_without_the_instructions(outlier, patterns, tmp_path, monkeypatch, caplog, reduce_range, bits):
    monkeypatch.setattr(onnx_lower, "lacks_dot_product", lambda: "avx_vnni")
    method = Onnx(int8=True, reduce_range=reduce_range, **QUICK)
    with caplog.at_level(logging.WARNING, "kdtool"):
        facts = method.export(outlier, tmp_path / "a.onnx", metadata={}, val=patterns)
    assert facts["quantised"]["weight_bits"] == bits
    assert ("this processor has none of avx_vnni" in caplog.text) is (reduce_range == "auto")


def test_a_slower_file_is_not_worth_it(outlier, patterns, tmp_path, monkeypatch, caplog):
    slow = {"ratio": 1.5, "noise": 0.02}
    monkeypatch.setattr(Onnx, "_time", lambda self, *files: slow)
    with caplog.at_level(logging.WARNING, "kdtool"):
        facts = Onnx(fp16=True).export(outlier, tmp_path / "a.onnx", metadata={}, test=patterns)
    assert facts["worth_it"] is False
    assert facts["why"] == "it takes 1.50 times as long as the float file"
    assert f"{tmp_path / 'a.onnx'}: not worth it: it takes 1.50 times as long as the float file" in caplog.text
