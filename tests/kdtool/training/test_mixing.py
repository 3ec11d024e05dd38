"""Mixtures of images and labels, by hand, and the cross-entropy against them."""

import pytest
import torch
from torch.nn import functional as F

from kdtool.data.raw import UNLABELLED
from kdtool.training.mixing import Mixing
from kdtool.training.step import Step


def test_mixup_by_hand():
    images, target = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 1])
    torch.manual_seed(0)
    mixed, parts = Mixing(0.4, 0, 3)(images, target)
    # The part m of the first label says how the images were mixed; image i is mixed with image i - 1.
    m = parts[0, 0].item()
    assert 0 < m < 1
    torch.testing.assert_close(mixed, m * images + (1 - m) * images[[3, 0, 1, 2]])
    torch.testing.assert_close(parts, m * F.one_hot(target, 3) + (1 - m) * F.one_hot(target[[3, 0, 1, 2]], 3))


def test_cutmix_by_hand():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    torch.manual_seed(1)
    mixed, parts = Mixing(0, 1.0, 4)(images, torch.arange(4))
    own = (mixed == images).float().mean((1, 2, 3))
    assert 0 < own[0] < 1
    torch.testing.assert_close(parts.diagonal(), own)
    torch.testing.assert_close(parts.sum(1), torch.ones(4))


def test_both_take_turns():
    images, mixing = torch.rand(4, 1, 8, 8), Mixing(1.0, 1.0, 4)
    torch.manual_seed(0)
    pasted = [bool((mixing(images, torch.arange(4))[0] == images).any()) for _ in range(20)]
    assert 0 < sum(pasted) < 20


def step(parts, smoothing=0.0):
    student = torch.randn(len(parts), 3, generator=torch.Generator().manual_seed(0))
    target = torch.full((len(parts),), UNLABELLED)
    return Step(student, target, torch.empty(0), torch.empty(0), label_smoothing=smoothing, parts=torch.tensor(parts))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_parts_is_torchs(smoothing):
    mixed = step([[0.7, 0.3, 0.0], [0.0, 0.1, 0.9]], smoothing)
    theirs = F.cross_entropy(mixed.student, mixed.parts, label_smoothing=smoothing)
    assert mixed.cross_entropy().item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_images_without_a_label_count_by_what_is_known_of_them(smoothing):
    torch.manual_seed(0)
    _, parts = Mixing(0.4, 0, 3)(torch.rand(2, 1, 2, 2), torch.tensor([2, UNLABELLED]))
    assert parts.sum().item() == pytest.approx(1.0)
    mixed = step(parts.tolist(), smoothing)
    smooth = (1 - smoothing) * parts + smoothing * parts.sum(1, keepdim=True) / 3
    by_hand = -(smooth * F.log_softmax(mixed.student, 1)).sum()
    assert mixed.cross_entropy().item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert step([[0.0, 0.0, 0.0]]).cross_entropy().item() == 0
