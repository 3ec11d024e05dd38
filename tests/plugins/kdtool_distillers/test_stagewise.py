"""Stages one after the other: the equation, what stays frozen, the cache, and a kill."""

import json

import pytest
import torch
from torch.nn import functional as F

import kdtool
from kdtool.commands.inputs import data_for
from kdtool.errors import Error
from kdtool.features.segments import segments
from kdtool.features.taps import stage_taps
from kdtool.models.checkpoint import read
from kdtool.training import evaluate
from kdtool.training.step import Step
from kdtool_distillers.stagewise import StageLoss

NETWORK = {"image_size": 8, "in_channels": 1}
SHORT = {"epochs": 1, "subset": 0.1, "device": "cpu", "precision": "fp32", "batch_size": 32}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("stagewise") / "teacher.pt"
    kdtool.teacher("kdtool:resnet20", data="digits", output=path, **NETWORK, **SHORT)
    return path


def distil(teacher, output, **options):
    return kdtool.distill(teacher, "stagewise", output=output, **{**SHORT, **options})


def phases(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["phase"]: row for row in rows}


def test_the_loss_by_hand():
    student = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0]]]])
    teacher = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[3.0]]]])
    nothing = torch.empty(0)
    step = Step(nothing, nothing, nothing, nothing, maps=list(zip(student, teacher, strict=True)))
    assert StageLoss(()).loss(step).item() == (1 + 4) / 2 + 9


@pytest.fixture(scope="module")
def trained(teacher, tmp_path_factory):
    """A student with one block per stage, its run, and of each phase the name, the part, the weights before and after.

    The weights are state dicts.
    """
    seen, path = [], tmp_path_factory.mktemp("trained") / "s.pt"
    fit = kdtool.Run.fit

    def watched(self, name, student, **options):
        done = fit(self, name, student, **options)
        seen.append((name, options["part"], student.module.state_dict(), done.network.module.state_dict()))
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kdtool.Run, "fit", watched)
        student = distil(teacher, path, refiner={"name": "depth", "keep": (1, 1, 1)})
    return student, path.with_suffix(".run"), seen


def test_a_stage_is_trained_on_its_own_map(teacher, trained):
    student, run, _ = trained
    last_rows = phases(run)
    assert list(last_rows) == ["stage 1", "stage 2", "stage 3", "stage 4", "head"]
    # The validation loss of the last stage, from the two networks themselves.
    data = kdtool.load(teacher)
    val = data_for(data, {"subset": 0.1}).val
    images = torch.cat([images for _, images, _ in val.batches(64)])
    maps = []
    for network in (student.network, data.network):
        with torch.no_grad():
            x = images
            for segment in segments(network, stage_taps(network))[:-1]:
                x, _ = segment.run(network.module, x)
        maps.append(x)
    assert last_rows["stage 4"]["val_loss"] == pytest.approx(F.mse_loss(*maps).item(), rel=1e-2)


def test_finished_stages_stay_bit_for_bit(trained):
    for name, part, before, after in trained[2]:
        owners = {path.rpartition(".")[0] for path in part.learns}
        changed = {key.rpartition(".")[0] for key in after if not torch.equal(before[key], after[key])}
        assert changed <= owners, name
        assert changed, name


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_cached_and_uncached_agree(teacher, tmp_path, precision):
    losses = []
    for cache in ("on", "off"):
        output = tmp_path / f"{cache}.pt"
        distil(teacher, output, refiner="halve", cache=cache, epochs=2, views=1, precision=precision)
        losses.append({phase: row["val_loss"] for phase, row in phases(tmp_path / f"{cache}.run").items()})
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_the_head_is_validated_on_all_images_where_the_stages_were_on_few(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "ENOUGH", 20)  # 143 images are held out, 129 trained on: every fifth is measured
    student = distil(teacher, tmp_path / "s.pt", refiner={"name": "depth", "keep": (1, 1, 1)}, lr=0.02)
    val = data_for(student, {"subset": 0.1}).val
    said = phases(tmp_path / "s.run")["head"]["val_loss"]
    assert said == pytest.approx(evaluate.evaluate(student.module, val)["loss"], rel=1e-4)


def test_a_cut_run_goes_on_bit_for_bit(teacher, tmp_path, cut_after):
    options = {"student": "kdtool:lenet-5", "taps": ("relu1=layer1", "relu2=layer3")}
    options |= {"epochs": 2, "views": 1}
    whole = distil(teacher, tmp_path / "whole.pt", **options)
    with cut_after("stage 2", 1):
        distil(teacher, tmp_path / "cut.pt", **options)
    distil(teacher, tmp_path / "cut.pt", resume=True, **options)
    cut = read(tmp_path / "cut.pt")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name


def test_taps_by_hand(teacher, tmp_path):
    distil(teacher, tmp_path / "s.pt", student="kdtool:lenet-5", taps=("relu1=layer1", "relu2=layer3"))
    assert list(phases(tmp_path / "s.run")) == ["stage 1", "stage 2", "head"]


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (("relu1=layer9",), r"kdtool:resnet20: has no layer 'layer9'"),
        (("rel1=layer1",), r"kdtool:lenet-5: has no layer 'rel1'; did you mean .*relu1"),
        (("relu2=layer3", "relu1=layer1"), r"cannot be cut at relu2, relu1: .* in the order .*\(relu1, relu2\)"),
        (("relu1=layer1", "relu1=layer3"), r"cannot be cut at relu1, relu1: name each layer once"),
        (None, r"the student has 3 stages .* and the teacher .* --taps"),
    ],
)
def test_taps_that_do_not_fit(teacher, tmp_path, taps, message):
    with pytest.raises(Error, match=message):
        distil(teacher, tmp_path / "s.pt", student="kdtool:lenet-5", taps=taps)
    assert not (tmp_path / "s.pt").exists()


@pytest.mark.slow
def test_the_head_may_be_taught_too(teacher, tmp_path):
    student = {"refiner": {"name": "depth", "keep": (1, 1, 1)}}
    plain = distil(teacher, tmp_path / "plain.pt", **student)
    taught = distil(teacher, tmp_path / "taught.pt", objective={"name": "kd", "alpha": 1.0}, **student)
    differ = [
        name
        for name, tensor in plain.module.state_dict().items()
        if not torch.equal(tensor, taught.module.state_dict()[name])
    ]
    assert set(differ) == {"fc.weight", "fc.bias"}
    with pytest.raises(kdtool.UsageError, match="--objective at: compares layers, and the head of stagewise"):
        distil(teacher, tmp_path / "at.pt", objective="at", **student)
