"""ONNX files that teach by their logits."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import kdtool
from kdtool import Error, UsageError
from kdtool.commands.onnx_teacher import load_teacher
from kdtool.models.conversion import digest
from kdtool.models.modules import is_opaque

slow = partial(pytest.param, marks=pytest.mark.slow)
LENET = {"student": "kdtool:lenet-300-100", "epochs": 1, "seed": 1, "subset": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx-teacher")


@pytest.fixture(scope="module")
def exported(teacher_path, folder):
    """The trained teacher as an ONNX file of kdtool."""
    kdtool.export(teacher_path, output=folder / "teacher.onnx", latency=False)
    return folder / "teacher.onnx"


@pytest.fixture(scope="module")
def foreign(folder):
    """Return a function that writes a file of another program: a linear classifier, which tells nothing."""

    def write(name, *, classes=10, size=8, batch="n", softmax=False, extra=False, scale=1.0):
        weight = scale * np.random.default_rng(classes).standard_normal((size * size, classes)).astype(np.float32)
        nodes = [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ]
        outputs = [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, classes])
            for output in (["probabilities"] if softmax else ["scores", *(["probabilities"] if extra else [])])
        ]
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 1, size, size])
        graph = helper.make_graph(nodes, "net", [images], outputs, [numpy_helper.from_array(weight, "weight")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, folder / name)
        return folder / name, torch.from_numpy(weight)

    return write


def state(checkpoint):
    return checkpoint.module.state_dict()


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(state(first).values(), state(second).values(), strict=True))


def test_a_file_teaches_as_the_checkpoint_that_it_was_exported_from(exported, teacher_path, tmp_path):
    student = kdtool.distill(exported, **LENET, output=tmp_path / "s.pt")
    same = kdtool.distill(teacher_path, **LENET, output=tmp_path / "same.pt")
    for own, other in zip(state(student).values(), state(same).values(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)
    assert student.data.classes == same.data.classes
    assert student.history[0]["size"] == kdtool.load(teacher_path).history[0]["size"]
    assert [entry["command"] for entry in student.history] == ["export", "distill"]
    assert student.history[0]["line"].startswith("kdtool teacher kdtool:lenet-300-100")
    # It goes on as any other checkpoint does.
    kdtool.prune(tmp_path / "s.pt", ratio=0.5, epochs=0, output=tmp_path / "p.pt")
    assert kdtool.load(tmp_path / "p.pt").history[-1]["command"] == "prune"


def test_the_cache_of_its_logits_changes_no_bit(exported, tmp_path):
    cached = kdtool.distill(exported, **{**LENET, "epochs": 3}, output=tmp_path / "a.pt")
    ran = kdtool.distill(exported, **{**LENET, "epochs": 3}, cache="off", output=tmp_path / "b.pt")
    assert equal(cached, ran)


def test_a_run_goes_on_to_the_same_bits_and_only_with_the_same_file(exported, foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.onnx").write_bytes(exported.read_bytes())
    options = {**LENET, "epochs": 3, "output": tmp_path / "s.pt"}
    whole = kdtool.distill("t.onnx", **{**options, "output": tmp_path / "whole.pt"})
    from kdtool.training.phase import Phase

    save, calls = Phase.save, []

    def killed(self, *args, **kwargs):
        save(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Phase, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        kdtool.distill("t.onnx", **options)
    monkeypatch.setattr(Phase, "save", save)
    other, _ = foreign("other.onnx")
    (tmp_path / "t.onnx").write_bytes(other.read_bytes())
    with pytest.raises(UsageError, match=r"--resume needs the same command: .*inputs\.checkpoint was"):
        kdtool.distill("t.onnx", **options, data="digits", resume=True)
    (tmp_path / "t.onnx").write_bytes(exported.read_bytes())
    assert equal(kdtool.distill("t.onnx", **options, resume=True), whole)


def test_files_that_differ_have_different_digests_and_copies_do_not(exported, foreign):
    one, again = load_teacher(exported), load_teacher(exported)
    other = load_teacher(foreign("scaled.onnx", scale=2.0)[0])
    assert digest(one.module) == digest(again.module) == digest(copy.deepcopy(one.module)) != digest(other.module)
    assert copy.deepcopy(one.module) is not one.module
    assert copy.deepcopy(one.module).session is one.module.session


def test_a_graph_without_outputs_is_refused_by_all_that_run_files(exported, tmp_path):
    model = onnx.load(exported)
    model.graph.ClearField("output")
    onnx.save(model, tmp_path / "none.onnx")
    for call in (kdtool.evaluate, load_teacher):
        with pytest.raises(Error, match=r"none\.onnx: gives no output"):
            call(tmp_path / "none.onnx")


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_a_file_of_another_program_gives_its_logits_for_any_batch(foreign, batch):
    path, weight = foreign(f"batch-{batch}.onnx", batch=batch)
    teacher = load_teacher(path)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(teacher.module(images), images.flatten(1) @ weight, rtol=1e-4, atol=1e-4)
    assert teacher.architecture.classes == 10
    assert is_opaque(teacher.module)


def test_probabilities_are_taken_for_what_they_are(foreign, caplog):
    path, weight = foreign("softmax.onnx", softmax=True, scale=0.1)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = load_teacher(path).module(images)
    assert "softmax.onnx: gives probabilities, not logits; their logarithms are taken" in caplog.text
    torch.testing.assert_close(logits, (images.flatten(1) @ weight).log_softmax(1), rtol=1e-4, atol=1e-4)
    load_teacher(foreign("two.onnx", extra=True)[0])
    assert "two.onnx: has 2 outputs; the first, scores, is taken for its logits" in caplog.text


def test_what_a_file_of_another_program_does_not_tell_is_said_or_asked_for(foreign, tmp_path, caplog):
    path, _ = foreign("foreign.onnx")
    with pytest.raises(UsageError, match=r"foreign\.onnx: does not tell where its images are; name them with --data"):
        kdtool.distill(path, **LENET, output=tmp_path / "s.pt")
    student = kdtool.distill(path, **LENET, data="digits", output=tmp_path / "s.pt")
    assert (
        "foreign.onnx: records no data; its outputs are taken for the classes of digits in this order: 0" in caplog.text
    )
    assert [entry["command"] for entry in student.history] == ["distill"]
    told = kdtool.distill(path, **LENET, data="digits", mean=(0.5,), std=(0.25,), output=tmp_path / "t.pt")
    assert "normalised by mean 0.5 and std 0.25" in caplog.text
    assert (told.data.mean, told.data.std) == ((0.5,), (0.25,))


def test_a_teacher_with_other_images_or_classes_is_refused(foreign, exported, tmp_path):
    wide, few = foreign("wide.onnx", size=16)[0], foreign("few.onnx", classes=7)[0]
    with pytest.raises(Error, match="the network has 7 classes and the data set digits has 10"):
        kdtool.distill(few, **LENET, data="digits", output=tmp_path / "s.pt")
    with pytest.raises(Error, match=r"wide\.onnx: takes images of \(1, 16, 16\) and the first teacher of \(1, 8, 8\)"):
        kdtool.distill([exported, wide], "ensemble", **LENET, output=tmp_path / "s.pt")
    model = onnx.load(wide)
    told = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    helper.set_model_props(model, told)
    onnx.save(model, tmp_path / "liar.onnx")
    with pytest.raises(
        Error, match=r"its metadata are those of another network: 10 classes of 1x8x8 images; it takes 1x16"
    ):
        kdtool.distill(tmp_path / "liar.onnx", **LENET, output=tmp_path / "s.pt")
    assert not list(tmp_path.glob("*.run"))


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("at", {"student": "kdtool:resnet20"}, "at reads its layers"),
        slow("kd+fitnets", {"student": "kdtool:resnet20"}, r"kd\+fitnets reads its layers"),
        slow("simkd", {"student": "kdtool:resnet20"}, "the method reads its layers"),
        ("kd", {"refiner": "halve"}, "no student can be made from it"),
        ("ikd", {}, "no student can be made from it"),
        slow("born-again", {}, "no student can be made from it"),
        ("born-again", {"student": "kdtool:resnet20", "objective": "at"}, "at reads its layers"),
        ("assistant", {"student": "kdtool:resnet20"}, "no smaller network can be made from it"),
        ("online", {"student": "kdtool:resnet20"}, "it has no weights that could be trained"),
        ("mutual", {"student": "kdtool:resnet20", "teacher_learns": True}, "it has no weights that could be trained"),
    ],
)
def test_what_needs_more_than_logits_is_refused_in_one_line(exported, tmp_path, method, options, says):
    with pytest.raises(UsageError, match=rf"teacher\.onnx: is an ONNX file, .* and {says}; use a loss of logits and"):
        kdtool.distill(exported, method, **options, epochs=1, output=tmp_path / "s.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["dkd", "dist", "logit-std", "kd:0.9+dist:1"])
def test_losses_of_logits_take_it(exported, tmp_path, method):
    kdtool.distill(exported, method, **LENET, output=tmp_path / "s.pt")


def test_files_and_checkpoints_teach_together(exported, teacher_path, foreign, tmp_path):
    teachers = [exported, teacher_path, foreign("third.onnx")[0]]
    student = kdtool.distill(teachers, "ensemble", weights="validation", **LENET, output=tmp_path / "s.pt")
    rows = {row["model"]: row for row in student.history[-1]["rows"]}
    assert rows["teacher 1"]["error"] == rows["teacher 2"]["error"]
    assert (rows["teacher 1"]["compression"], "parameters" in rows["teacher 1"]) == (None, False)
    assert rows["teacher 2"]["parameters"] == 50_610
    assert [used["role"] for used in student.history[-1]["inputs"]] == ["checkpoint", "teacher 2", "teacher 3"]


def test_a_network_of_python_is_no_onnx_file(tmp_path):
    (tmp_path / "t.onnx").write_bytes(b"not one")
    with pytest.raises(Error, match=r"t\.onnx: "):
        kdtool.distill(tmp_path / "t.onnx", **LENET, output=tmp_path / "s.pt")
    with pytest.raises(UsageError, match=r"none\.onnx: there is no such file"):
        kdtool.distill(tmp_path / "none.onnx", **LENET, output=tmp_path / "s.pt")
    assert not is_opaque(nn.Linear(1, 1))


def test_weights_in_a_file_beside_it_count_too(foreign, folder):
    path, weight = foreign("outside.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = digest(load_teacher(path).module)
    (folder / "weights.bin").write_bytes((2 * weight).numpy().tobytes())
    assert digest(load_teacher(path).module) != before


def test_a_file_that_gives_no_logits_is_named(tmp_path):
    path = tmp_path / "flat.onnx"
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, 8, 8])
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, [64])
    nodes = [helper.make_node("Reshape", ["images", "one row"], ["flat"])]
    graph = helper.make_graph(nodes, "net", [images], [flat], [numpy_helper.from_array(np.array([-1]), "one row")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    says = (
        r"flat\.onnx: gives an array of \[64\] for 1 images, not logits \[images, classes\]; make them its first output"
    )
    with pytest.raises(Error, match=says):
        load_teacher(path)
