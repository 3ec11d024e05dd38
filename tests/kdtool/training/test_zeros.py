"""What was pruned by masks stays pruned, whatever works on it next; and the early weights that teachers keep."""

import copy

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn

import kdtool
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import read
from kdtool.training.epochs.held import duplicate, fresh, holding, is_fresh
from kdtool.training.loop import Loop
from kdtool.training.zeros import HoldZeros, prunable, sparsity, unprunable


@pytest.fixture(scope="module")
def pruned(teacher_path, tmp_path_factory):
    return kdtool.prune(teacher_path, ratio=0.8, epochs=0, output=tmp_path_factory.mktemp("pruned") / "pruned.pt")


def zeros(checkpoint):
    return {name: weight == 0 for name, weight in prunable(checkpoint.module).items()}


def same(one, other):
    return all(torch.equal(mask, zeros(other)[name]) for name, mask in zeros(one).items())


def test_distilling_on_from_a_pruned_student_keeps_its_zeros(teacher_path, pruned, tmp_path):
    made = kdtool.distill(teacher_path, student=pruned.path, epochs=1, output=tmp_path / "tuned.pt")
    assert same(made, pruned)
    assert not torch.equal(made.module.state_dict()["fc1.weight"], pruned.module.state_dict()["fc1.weight"])
    # And so does what goes on from there.
    again = kdtool.distill(teacher_path, student=made.path, epochs=1, output=tmp_path / "again.pt")
    assert same(again, pruned)


def test_what_a_refiner_makes_of_it_keeps_what_is_left_of_them(pruned, tmp_path):
    half = kdtool.refine(pruned, "halve", init="inherit", output=tmp_path / "half.pt")
    made = kdtool.distill(pruned, student=half.path, epochs=1, output=tmp_path / "taught.pt")
    assert sparsity(half.module) > 0.5
    assert same(made, half)


def test_a_fresh_student_of_a_pruned_teacher_learns_all_of_its_weights(pruned, tmp_path):
    made = kdtool.distill(pruned, student="kdtool:lenet-300-100", epochs=1, output=tmp_path / "fresh.pt", refiner=None)
    assert sparsity(made.module) == 0


@pytest.mark.parametrize(
    ("method", "options", "masked"),
    [
        ("kd", {"refiner": "halve"}, False),
        ("kd", {"refiner": {"name": "halve", "init": "inherit"}}, True),
        ("born-again", {"generations": 1}, False),
        ("kd", {"student": "kdtool:lenet-300-100"}, False),
    ],
)
def test_only_zeros_that_are_inherited_stay(method, options, masked, pruned, tmp_path):
    made = kdtool.distill(pruned, method, epochs=1, subset=0.2, output=tmp_path / "made.pt", **options)
    assert made.masked is masked
    assert (sparsity(made.module) > 0.5) is masked


@pytest.mark.parametrize(
    ("method", "options", "masked"),
    [
        ("mutual", {"peers": 2, "teacher_learns": True}, True),
        ("online", {"fresh": False}, True),
        ("online", {}, False),
    ],
)
def test_a_pruned_teacher_that_learns_keeps_its_zeros(method, options, masked, pruned, tmp_path):
    told = {"student": "kdtool:lenet-300-100", "epochs": 1, "subset": 0.2, "mean": (0.5,), "std": (0.25,)}
    made = kdtool.distill(pruned, method, output=tmp_path / "made.pt", **told, **options)
    kept = {path.stem: read(path) for path in tmp_path.glob("made.run/*.pt")}
    assert kept["teacher"].masked is masked
    assert same(kept.pop("teacher"), pruned) is masked
    assert not any(other.masked or sparsity(other.module) for other in (made, *kept.values()))


def test_a_run_that_an_older_release_began_without_them_goes_on(pruned, tmp_path, monkeypatch):
    told = {"student": "kdtool:lenet-300-100", "epochs": 2, "subset": 0.2, "mean": (0.5,), "std": (0.25,)}
    told |= {"fresh": False, "output": tmp_path / "made.pt"}
    one_epoch = Loop._one_epoch

    def killed(self, *arguments):
        if self.state.epoch == 1:
            raise KeyboardInterrupt
        one_epoch(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_one_epoch", killed)
        patch.setattr("kdtool.training.run.holding_pruned", lambda *_: [])
        with pytest.raises(KeyboardInterrupt):
            kdtool.distill(pruned, "online", **told)
    kdtool.distill(pruned, "online", resume=True, **told)
    assert read(tmp_path / "made.run/teacher.pt").masked


def test_a_structure_of_a_pruned_network_with_fresh_weights_has_no_mask(pruned, tmp_path):
    for init in ("fresh", "inherit"):
        made = kdtool.refine(pruned, "halve", init=init, output=tmp_path / f"{init}.pt")
        assert made.masked is (init == "inherit")


def test_the_last_command_that_says_so_decides_whether_zeros_stay(tmp_path):
    made = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "a.pt")
    (entry,) = made.history
    for told in ([True, False], [False, True]):
        made.history = [*({**entry, "masked": masked} for masked in told), entry]
        assert made.masked is told[-1]


def test_zeros_of_an_initialisation_are_free_to_learn():
    """A convolution that begins as the identity (Dirac) is zero but for its centre."""
    network = Network(None, nn.Sequential(nn.Conv2d(4, 8, 3)))
    with torch.no_grad():
        nn.init.dirac_(network.module[0].weight[:4])
    assert [type(one) for one in holding(network.module, None, masked=True)] == [HoldZeros]
    fresh(network)
    assert holding(network.module, None, masked=True) == []
    assert is_fresh(duplicate(network.module))
    assert not is_fresh(copy.deepcopy(network.module))  # as a pruner makes one with masks


def test_what_was_never_masked_is_not_held(teacher_path, tmp_path):
    teacher = read(teacher_path)
    with torch.no_grad():
        teacher.module.get_parameter("fc1.weight")[:10] = 0
    before = sparsity(teacher.module)
    made = kdtool.distill(teacher_path, student=teacher, epochs=1, output=tmp_path / "tuned.pt")
    assert not made.masked
    # Some have no gradient: pixels that are always black.
    assert sparsity(made.module) < 0.8 * before


def test_the_first_weights_and_those_of_an_epoch_are_kept(tmp_path):
    told = {"data": "digits", "epochs": 3, "lr": 0.003}
    built = kdtool.teacher("kdtool:lenet-300-100", classes=10, image_size=8, in_channels=1, output=tmp_path / "0.pt")
    first = kdtool.teacher("kdtool:lenet-300-100", keep_init=True, output=tmp_path / "first.pt", **told)
    second = kdtool.teacher("kdtool:lenet-300-100", keep_epoch=1, output=tmp_path / "second.pt", **told)
    assert (first.early.epoch, second.early.epoch) == (0, 1)
    for name, tensor in built.module.state_dict().items():
        assert torch.equal(read(first.path).early.weights[name], tensor)
        assert torch.equal(first.module.state_dict()[name], second.module.state_dict()[name])
        assert not torch.equal(read(second.path).early.weights[name], tensor)
        assert not torch.equal(second.early.weights[name], second.module.state_dict()[name])


def test_early_weights_outlast_a_resume(tmp_path):
    told = {"data": "digits", "subset": 0.3, "epochs": 2, "keep_epoch": 1}
    whole = kdtool.teacher("kdtool:lenet-300-100", output=tmp_path / "whole.pt", **told)
    again = kdtool.teacher("kdtool:lenet-300-100", output=tmp_path / "whole.pt", resume=True, **told)
    assert all(torch.equal(one, whole.early.weights[name]) for name, one in again.early.weights.items())


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ({"keep_init": True, "keep_epoch": 1, "data": "digits"}, "--keep-init and --keep-epoch exclude each other"),
        ({"keep_epoch": 9, "data": "digits", "epochs": 3}, "3 epochs"),
        ({"keep_init": True}, "--keep-init: nothing is trained without --data"),
    ],
)
def test_early_weights_that_cannot_be_kept(tmp_path, keep, says):
    with pytest.raises(kdtool.UsageError, match=says):
        kdtool.teacher("kdtool:lenet-300-100", classes=10, output=tmp_path / "t.pt", **keep)


# Weights that layers share, or compute


def shared():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), StdConv2d(2, 3, 1))
    module[2].weight = module[0].weight
    return module


def test_a_shared_weight_is_one_weight_and_a_computed_one_is_none():
    assert list(prunable(shared())) == ["0.weight", "1.weight"]
    assert unprunable(shared()) == {"3": 6}


def test_the_sparsity_is_that_of_all_weights_in_use():
    module = shared()
    with torch.no_grad():
        module[0].weight[0] = 0
        module[3].weight[0] = 0
    assert sparsity(module) == pytest.approx(4 / (16 + 16 + 6))


def test_only_zeros_in_use_are_held():
    module = shared()
    with torch.no_grad():
        module[2].weight[0] = 0
        module[3].weight[0] = 0
    held = HoldZeros()
    held.begin(module, steps=1, epochs=1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    held.after_step(module, step=None)
    assert (module[2].weight[0] == 0).all()
    assert (module[3].weight[0] == 1).all()


def test_the_weights_inside_attention_and_recurrent_layers_are_weights_too():
    encoder, attention = nn.TransformerEncoderLayer(8, 2, 16), nn.MultiheadAttention(8, 2, kdim=4, add_bias_kv=True)
    names = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    assert tuple(prunable(encoder)) == names
    assert list(prunable(attention)) == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert list(prunable(nn.LSTM(8, 4))) == ["weight_ih_l0", "weight_hh_l0"]
    with torch.no_grad():
        encoder.self_attn.in_proj_weight[:12] = 0
    assert sparsity(encoder) == pytest.approx(12 * 8 / (8 * 24 + 8 * 8 + 2 * 8 * 16))


def test_their_zeros_are_held():
    attention = nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        attention.in_proj_weight[:12] = 0
    held = HoldZeros()
    held.begin(attention, steps=1, epochs=1)
    with torch.no_grad():
        attention.in_proj_weight.add_(1)
    held.after_step(attention, step=None)
    assert (attention.in_proj_weight[:12] == 0).all()
    assert (attention.in_proj_weight[12:] != 0).any()
