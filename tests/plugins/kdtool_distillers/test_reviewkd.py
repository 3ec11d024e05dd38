"""ReviewKD: the error at several resolutions by hand, and the fusion against its equations."""

import math

import pytest
import torch
from torch.nn import functional as F

import kdtool
from kdtool.features.pairs import Pair
from kdtool.features.taps import Tap
from kdtool.models.checkpoint import read
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
    assert ReviewKD().loss(step_of(maps, epoch=epoch)).item() == pytest.approx(expected, rel=1e-10)


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
