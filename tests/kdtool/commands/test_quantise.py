"""Students that are trained in 8 bits, from the command to the file."""

import numpy as np
import onnxruntime
import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read
from kdtool.models.quantisation.fake import quantiser_of
from kdtool.training.run import Run

# As many batches as are needed to train: each of these tests takes about a second.
QUICK = {"subset": 0.1, "epochs": 2, "lr": 1e-3, "augment": "none", "precision": "fp32"}


def distil(teacher, output, method="kd", **options):
    return kdtool.distill(teacher, method, output=output, quantize="int8", **{**QUICK, **options})


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A ResNet-20 that has learnt the digits a little."""
    path = tmp_path_factory.mktemp("resnet") / "t.pt"
    kdtool.teacher("kdtool:resnet20", data="digits", output=path, **{**QUICK, "epochs": 3})
    return path


@pytest.fixture(scope="module")
def trained(resnet):
    path = resnet.with_name("q.pt")
    distil(resnet, path, student=resnet)
    return path


def test_the_checkpoint_has_float_weights_and_the_ranges(trained, resnet):
    content = torch.load(trained, weights_only=True)
    assert content["weights"].keys() == torch.load(resnet, weights_only=True)["weights"].keys()
    assert content["quantisation"]["precision"] == "int8"
    assert len(content["quantisation"]["weights"]) == 20
    assert read(trained).history[-1]["quantised"] == {"precision": "int8", "layers": 20, "float_layers": []}
    assert "--quantize int8" in read(trained).history[-1]["line"]
    assert kdtool.inspect(trained)["quantised"]["layers"] == 20


def test_its_metrics_are_those_of_the_rounding_network(trained):
    checkpoint = read(trained)
    measured = kdtool.evaluate(trained, device="cpu")[0]
    for name in ("accuracy", "loss"):
        assert measured[name] == pytest.approx(checkpoint.metric("test", name), rel=1e-5)
    in_float = kdtool.evaluate(checkpoint_in_float(checkpoint), device="cpu")[0]
    assert in_float["loss"] != measured["loss"]


def checkpoint_in_float(checkpoint):
    from kdtool.commands.quantise import in_float

    return in_float(checkpoint)


@pytest.mark.slow
def test_its_file_classifies_all_test_images_as_it_does(trained, tmp_path, digits):
    facts = kdtool.export(trained, int8=True, latency=False, output=tmp_path / "q.onnx")
    assert facts["quantised"]["way"] == "trained"
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx", providers=["CPUExecutionProvider"])
    checkpoint, logits, expected = read(trained), [], []
    spec = checkpoint.data
    for _, images, _ in digits.normalised(spec.mean, spec.std).test.batches(64):
        logits.append(session.run(None, {"images": images.numpy()})[0])
        with torch.no_grad():
            expected.append(checkpoint.module(images).numpy())
    logits, expected = np.concatenate(logits), np.concatenate(expected)
    best = np.sort(expected, axis=1)
    # A value half-way between two integers may become either, which moves logits by a few parts in a hundred.
    clear = best[:, -1] - best[:, -2] > 0.05 * np.abs(expected).max()
    assert clear.mean() > 0.6
    assert (logits.argmax(1) == expected.argmax(1))[clear].all()
    assert np.abs(logits - expected).mean() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        pytest.param("kdtool:airbench94-16", {"ema": 0.9}, id="ema"),
        pytest.param("kdtool:resnet20", {"ema": 0.9, "precision": "bf16"}, id="ema in bf16", marks=pytest.mark.slow),
        pytest.param("kdtool:resnet20", {}, id="plain", marks=pytest.mark.slow),
    ],
)
def test_a_training_that_is_cut_resumes_to_the_same_bits(spec, tmp_path, monkeypatch, more):
    teacher = tmp_path / "t.pt"
    kdtool.teacher(spec, data="digits", image_size=9, output=teacher, **{**QUICK, "epochs": 1})
    whole = distil(teacher, tmp_path / "whole.pt", student=teacher, epochs=3, **more)
    log = Run.log

    def cut(self, row):
        log(self, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", cut)
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, tmp_path / "cut.pt", student=teacher, epochs=3, **more)
    monkeypatch.setattr(Run, "log", log)
    again = distil(teacher, tmp_path / "cut.pt", student=teacher, epochs=3, resume=True, **more)
    assert quantiser_of(again.module).as_data() == quantiser_of(whole.module).as_data()
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("kd+at:100", "bf16"),
        ("crd", "fp32"),
        *(pytest.param(name, "fp32", marks=pytest.mark.slow) for name in ("kd+at:100", "none", "dkd", "at", "ofa")),
        pytest.param("online", "fp32", marks=pytest.mark.slow),
    ],
)
def test_methods_with_one_training_train_in_8_bits(resnet, tmp_path, method, precision):
    options = {"epochs": 1, "subset": 0.03, "precision": precision, "quantize_skip": ["conv1", "layer3.*"]}
    made = distil(resnet, tmp_path / "q.pt", method, student=resnet, **options)
    assert made.history[-1]["quantised"]["float_layers"][0] == "conv1"
    assert quantiser_of(made.module) is not None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crd", "ofa", "ensemble", "online"])
def test_their_files_have_the_outputs_of_the_training(resnet, tmp_path, method):
    teachers = [resnet, resnet] if method == "ensemble" else resnet
    distil(teachers, tmp_path / "q.pt", method, student=resnet)
    facts = kdtool.export(tmp_path / "q.pt", int8=True, latency=False, output=tmp_path / "q.onnx")
    assert facts["quantised"]["agreement"]["other_classes"] == 0


def test_a_loss_with_a_training_of_its_own_is_refused():
    class Own(kdtool.LossDistiller):
        """A loss that trains in its own way."""

        def distill(self, run, teacher, student):
            return student

    with pytest.raises(kdtool.UsageError, match="makes or edits"):
        Own.check_precision("int8")


def test_only_named_layers_round(resnet, tmp_path):
    made = distil(resnet, tmp_path / "q.pt", student=resnet, epochs=1, subset=0.03, quantize_only=["layer3"])
    left = made.history[-1]["quantised"]["float_layers"]
    assert "conv1" in left
    assert not any(name.startswith("layer3") for name in left)


@pytest.mark.parametrize("method", ["gated", "ikd", "simkd", "mutual", "born-again", "stagewise"])
def test_others_are_refused_by_name(resnet, tmp_path, method):
    made_by_itself = kdtool.plugins.registry.method_class("distillers", method).makes_student
    student = {} if made_by_itself else {"student": resnet}
    student |= {"target_macs": "0.5x"} if method == "gated" else {}
    with pytest.raises(kdtool.UsageError, match=f"--quantize int8: {method} makes or edits"):
        distil(resnet, tmp_path / "q.pt", method, **student)
    assert not (tmp_path / "q.pt").exists()


def test_a_pattern_belongs_to_quantize(resnet, tmp_path):
    for name in ("skip", "only"):
        with pytest.raises(kdtool.UsageError, match=f"--quantize-{name}: belongs to --quantize"):
            kdtool.distill(resnet, student=resnet, output=tmp_path / "q.pt", **{f"quantize_{name}": ["conv1"]})


def test_later_commands_go_on_in_float_and_say_so(trained, tmp_path, capsys):
    pruned = kdtool.prune(trained, ratio=0.5, epochs=0, output=tmp_path / "p.pt")
    assert quantiser_of(pruned.module) is None
    assert "q.pt: was trained in 8 bits; its weights go on in float" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_without_int8_computes_in_float(trained, tmp_path, caplog):
    kdtool.export(trained, latency=False, output=tmp_path / "f.onnx")
    assert "was trained in 8 bits, and this file computes in float" in caplog.text
    assert b"QuantizeLinear" not in (tmp_path / "f.onnx").read_bytes()


def test_options_that_would_quantise_it_anew_are_refused(trained, tmp_path):
    with pytest.raises(kdtool.UsageError, match="--calibration: .* was trained in 8 bits"):
        kdtool.export(trained, int8=True, calibration="minmax", output=tmp_path / "f.onnx")


def test_resume_with_another_precision_is_refused(resnet, trained):
    before = trained.read_bytes()
    with pytest.raises(kdtool.UsageError, match="--resume needs the same command: quantised"):
        distil(resnet, trained, student=resnet, quantize_skip=["conv1"], resume=True)
    assert trained.read_bytes() == before


@pytest.mark.parametrize("option", ["compile", "checkpoint_activations"])
def test_passes_that_do_not_round_are_refused(resnet, tmp_path, option):
    flag = option.replace("_", "-")
    with pytest.raises(kdtool.UsageError, match=f"--{flag}: a student of --quantize int8 rounds in eager passes only"):
        distil(resnet, tmp_path / "q.pt", student=resnet, **{option: True})
