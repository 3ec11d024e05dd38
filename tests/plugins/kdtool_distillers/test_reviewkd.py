"""ReviewKD: the error at several resolutions by hand, and the fusion against its equations."""

import math

import pytest
import torch
from torch.nn import functional as F

import kdtool
from kdtool.features.adapters import unadapted
from kdtool.features.pairs import Pair
from kdtool.features.segments import Segment
from kdtool.features.taps import Tap
from kdtool.models.checkpoint import read
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import FrozenNetwork
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.student import StudentModule
from kdtool_distillers.fusion import Fusion
from kdtool_distillers.reviewkd import ReviewKD, hierarchical


def test_one_position_has_one_resolution():
    assert hierarchical(torch.tensor([[[[3.0]]]]), torch.tensor([[[[1.0]]]])).item() == 4.0


def test_two_positions_a_side_by_hand():
    # Differences 1, -1, 2, 2: mean of squares 10/4; averaged to one position 1: (10/4 + 1/2 * 1) / (1 + 1/2).
    student = torch.tensor([[[[1.0, -1.0], [2.0, 2.0]]]])
    assert hierarchical(student, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(3.0 / 1.5)


def test_eight_positions_a_side(numbers):
    student, teacher = numbers(2, 3, 8, 8), numbers(2, 3, 8, 8)
    expected, difference = 0.0, (student - teacher).numpy()
    for weight, side in ((1, 8), (1 / 2, 4), (1 / 4, 2), (1 / 8, 1)):
        blocks = difference.reshape(2, 3, side, 8 // side, side, 8 // side).mean(axis=(3, 5))
        expected += weight * (blocks**2).mean()
    assert hierarchical(student, teacher).item() == pytest.approx(expected / (1 + 1 / 2 + 1 / 4 + 1 / 8), rel=1e-12)


def test_gradient(numbers):
    student, teacher = numbers(1, 2, 4, 4).requires_grad_(), numbers(1, 2, 4, 4)
    assert torch.autograd.gradcheck(lambda maps: hierarchical(maps, teacher), student)


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.05), (19, 1.0), (50, 1.0)])
def test_the_loss_grows_in_the_warm_up(numbers, step_of, epoch, share):
    maps = [(numbers(2, 3, 2, 2), numbers(2, 3, 2, 2)), (numbers(2, 4, 1, 1), numbers(2, 4, 1, 1))]
    expected = math.log(3) + share * sum(hierarchical(student, teacher) for student, teacher in maps).item()
    assert ReviewKD().loss(step_of(maps, epoch=epoch, epochs=240)).item() == pytest.approx(expected, rel=1e-10)
    assert ReviewKD(teacher_warmup=20).loss(step_of(maps, epoch=epoch)).item() == pytest.approx(expected, rel=1e-10)


def pairs():
    return [
        Pair(Tap("a", (4, 8, 8), "nchw"), Tap("b", (6, 8, 8), "nchw"), as_map=True),
        Pair(Tap("c", (5, 4, 4), "nchw"), Tap("d", (7, 2, 2), "nchw"), as_map=True),
    ]


def test_the_fusion_by_its_equations():
    torch.manual_seed(0)
    fusion = Fusion(pairs()).eval()
    first, last = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 4, 4)
    outputs = fusion([first, last])
    assert [tuple(output.shape) for output in outputs] == [(2, 6, 8, 8), (2, 7, 2, 2)]
    # In eval mode a fresh batch-norm divides by the root of 1 + 1e-5.
    unit = (1 + 1e-5) ** -0.5
    ahead, behind = fusion.blocks
    deep = unit * F.conv2d(last, behind.narrow[0].weight)
    # Nearest neighbours: each 2x2 of 4x4 is read at its first position, and each position stands for 2x2 of 8x8.
    deep = deep[:, :, ::2, ::2]
    torch.testing.assert_close(outputs[1], unit * F.conv2d(deep, behind.widen[0].weight, padding=1))
    shallow = unit * F.conv2d(first, ahead.narrow[0].weight)
    raised = deep.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    joined = torch.cat([shallow, raised], dim=1)
    weights = torch.sigmoid(F.conv2d(joined, ahead.attend[0].weight, ahead.attend[0].bias))
    fused = weights[:, 0:1] * shallow + weights[:, 1:2] * raised
    torch.testing.assert_close(outputs[0], unit * F.conv2d(fused, ahead.widen[0].weight, padding=1))


def test_the_first_stage_learns_from_the_last_map():
    fusion = Fusion(pairs())
    last = torch.randn(2, 5, 4, 4, requires_grad=True)
    fusion([torch.randn(2, 4, 8, 8), last])[0].square().sum().backward()
    assert last.grad.abs().sum() > 0


@pytest.mark.slow
def test_a_cut_run_goes_on_bit_for_bit(tmp_path, cut_after):
    short = {"epochs": 2, "subset": 0.1, "device": "cpu", "precision": "fp32"}
    kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=tmp_path / "t.pt")
    whole = kdtool.distill(tmp_path / "t.pt", "reviewkd", refiner="halve", output=tmp_path / "whole.pt", **short)
    with cut_after("reviewkd", 2):
        kdtool.distill(tmp_path / "t.pt", "reviewkd", refiner="halve", output=tmp_path / "cut.pt", **short)
    kdtool.distill(tmp_path / "t.pt", "reviewkd", refiner="halve", output=tmp_path / "cut.pt", resume=True, **short)
    cut = read(tmp_path / "cut.pt")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name


def network(spec, seed=0):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=32), data=None, seed=seed)


def stages_by_hand(module, images):
    """Return a ResNet's maps of each stage before its last ReLU, from the block's own layers, and after it."""
    before, after = [], []
    x = module.relu(module.bn1(module.conv1(images)))
    for layer in (module.layer1, module.layer2, module.layer3):
        *blocks, last = layer
        for block in blocks:
            x = block(x)
        branch = last.bn2(last.conv2(last.relu1(last.bn1(last.conv1(x)))))
        before.append(branch + last.shortcut(x))
        x = before[-1].clamp(min=0)
        after.append(x)
    return before, after


@pytest.mark.parametrize(
    ("options", "of_student", "of_teacher"),
    [({}, 0, 0), ({"before": "teacher"}, 1, 0), ({"before": "none"}, 1, 1)],
)
def test_maps_are_those_before_the_last_relu(options, of_student, of_teacher):
    student, teacher = network("kdtool:resnet8x4"), network("kdtool:resnet20b", seed=1)
    pairs = ReviewKD(**options).watch(student, teacher)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        _, ours, _ = StudentModule(student.module, pairs=pairs, adapters=unadapted(pairs))(images)
        _, maps = Segment().run(teacher.module, images, [pair.teacher for pair in pairs])
        expected = (
            stages_by_hand(student.module, images)[of_student],
            stages_by_hand(teacher.module, images)[of_teacher],
        )
    assert len(ours) == 3
    torch.testing.assert_close(ours, expected[0])
    torch.testing.assert_close([maps[pair.teacher.name] for pair in pairs], expected[1])
    assert (min(one.min() for one in ours) < 0) == (of_student == 0)


def test_a_whole_step_beside_the_authors_code(numbers):
    # From the last stage to the first: narrow, mix with the later ones by attention, widen, and compare.
    torch.manual_seed(0)
    fusion = Fusion(pairs()).double().train()
    students, teachers = [numbers(3, 4, 8, 8), numbers(3, 5, 4, 4)], [numbers(3, 6, 8, 8), numbers(3, 7, 2, 2)]

    def normed(x):
        mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt()

    expected, later = 0.0, None
    for block, own, target in zip(reversed(fusion.blocks), students[::-1], teachers[::-1], strict=True):
        x = normed(torch.einsum("bchw,oc->bohw", own, block.narrow[0].weight[:, :, 0, 0]))
        if later is not None:
            y = later.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
            weight, bias = block.attend[0].weight[:, :, 0, 0], block.attend[0].bias
            z = torch.einsum("bchw,oc->bohw", torch.cat([x, y], dim=1), weight) + bias[:, None, None]
            z = 1 / (1 + torch.exp(-z))
            x = x * z[:, 0:1] + y * z[:, 1:2]
        later = x[:, :, ::2, ::2] if x.shape[-1] != target.shape[-1] else x
        fused = normed(F.conv2d(later, block.widen[0].weight, padding=1))
        loss, share, total = ((fused - target) ** 2).mean(), 1.0, 1.0
        for side in (4, 2, 1):
            if side < target.shape[2]:
                share /= 2
                size = target.shape[2] // side
                gap = (fused - target).unflatten(2, (side, size)).unflatten(4, (side, size)).mean(dim=(3, 5))
                loss, total = loss + share * (gap**2).mean(), total + share
        expected += (loss / total).item()
    outputs = fusion(students)
    value = sum(hierarchical(ours, theirs) for ours, theirs in zip(outputs, teachers, strict=True))
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_a_sum_sees_the_maps_before_and_after_the_relu(tmp_path):
    small, images = network("kdtool:resnet8x4"), torch.rand(4, 3, 32, 32)
    objective = kdtool.make("distillers", "at+reviewkd")
    taps = [pair.teacher for pair in objective.watch(small, small)]
    engine = Engine(Training(device="cpu", precision="fp32"), 1)
    keys = {tap.name: tap.name for tap in taps}
    frozen = FrozenNetwork(small.module, keys, engine, Cache(tmp_path, 2**30))
    for _ in range(2):
        # Computed and written to the cache, then read from it.
        view = frozen.look(taps, split="train", images=4, view=None)
        maps = view(torch.arange(4), images)
        view.close()
        assert [bool(one.min() < 0) for one in maps] == [False] * 3 + [True] * 3
        for after, before in zip(maps[:3], maps[3:], strict=True):
            assert torch.equal(after, before.clamp(min=0))
