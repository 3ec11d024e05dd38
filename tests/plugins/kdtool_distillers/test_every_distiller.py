"""Every registered distiller on a small CNN and a small vision transformer: on one image of each class, killed in its
second epoch and resumed; in mixed precision, and some in fp32."""

import copy

import pytest
import torch

import kdtool
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins import entry_points
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.options import Training
from kdtool.training.run import Run

SIZE = 32
NETWORKS = {"cnn": "timm:test_resnet", "vit": "timm:test_vit"}
# Fewer phases than by default, where there are many, and parts of a loss that are left out by default.
OPTIONS = {
    "wkd": {"feature_weight": 0.006},
    "ikd": {"iters": 2},
    "born-again": {"generations": 2},
    "gated": {
        "target_macs": "0.8x",
        "search_epochs": 2,
        "force_target": True,
        "round_to": 1,
        "exporter": {"name": "onnx", "latency": False},
    },
}
# Combinations that are refused before anything is trained, and the message.
REFUSED = {("simkd", "vit"): "no maps that can be projected"}


@pytest.fixture(scope="module")
def one_of_each():
    """One digit of each class."""
    return open_data(DataOptions(data="digits", subset=1e-6), image_size=SIZE, in_channels=1)


def network(kind, seed):
    return create(
        NETWORKS[kind], options=NetworkOptions(classes=10, in_channels=1, image_size=SIZE), data=None, seed=seed
    )


class Killed(BaseException):
    pass


def distilled(distiller, kind, precision, data, directory, *, kill=False):
    """Run a distiller; with ``kill`` it dies in its second epoch and is started again."""
    directory.mkdir()
    teachers = [Checkpoint(network(kind, seed), data.spec) for seed in range(1 + distiller.several_teachers)]
    takes_student = distiller.needs_student and not distiller.makes_student
    training = Training(epochs=2, device="cpu", precision=precision, cache="on")

    def run():
        entry = HistoryEntry("distill", "", "", {}, {}, {}, [], "", {}, "")
        return Run(directory, data=data, training=training, parent=None, entry=entry, teachers=teachers)

    def start(run):
        return distiller.distill(run, teachers[0].network, network(kind, 7) if takes_student else None)

    if kill:
        doomed = run()
        doomed.log = lambda row: exec("raise Killed", {"Killed": Killed}) if row["epoch"] == 2 else None
        with pytest.raises(Killed):
            start(doomed)
    before = [copy.deepcopy(teacher.module.state_dict()) for teacher in teachers]
    result = start(run())
    for teacher, weights in zip(teachers, before, strict=True):
        assert not any(part.training for part in teacher.module.modules())
        assert all(torch.equal(tensor, weights[name]) for name, tensor in teacher.module.state_dict().items())
    return result


QUICK = {
    "kd": ["cnn", "vit"],
    "simkd": ["cnn", "vit"],
    "mutual": ["cnn"],
}
"""What the quick tests train and resume: a loss, layers that are put on the student, and several networks that learn.
tests/plugins/test_contract.py trains most methods, and other quick tests cut and resume crd, gated, ikd and stagewise.
"""
# Mixed precision takes several times as long where the processor has no bf16: one method shows it in the quick tests.
MIXED = {("kd", "cnn")}

CASES = [
    *(
        pytest.param(name, kind, "bf16", marks=[] if (name, kind) in MIXED else pytest.mark.slow)
        for name in entry_points.names("distillers")
        for kind in NETWORKS
    ),
    *((name, kind, "fp32") for name, kinds in QUICK.items() for kind in kinds if (name, kind) not in MIXED),
]


@pytest.mark.parametrize(("name", "kind", "precision"), CASES)
def test_it_trains_and_resumes(name, kind, precision, one_of_each, tmp_path):
    distiller = kdtool.make("distillers", name, **OPTIONS.get(name, {}))
    if (name, kind) in REFUSED:
        with pytest.raises(kdtool.Error, match=REFUSED[name, kind]):
            distilled(distiller, kind, precision, one_of_each, tmp_path / "refused")
        assert not list((tmp_path / "refused").iterdir())
        return
    whole = distilled(distiller, kind, precision, one_of_each, tmp_path / "whole").module.state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in whole.values())
    cut = distilled(distiller, kind, precision, one_of_each, tmp_path / "cut", kill=True).module.state_dict()
    assert list(whole) == list(cut)
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    if distiller.needs_student and not distiller.makes_student:
        begun = network(kind, 7).module.state_dict()
        assert any(name in begun and not torch.equal(tensor, begun[name]) for name, tensor in whole.items())
