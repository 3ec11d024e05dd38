"""Batch-norms whose threads would share lines of the cache: on one thread, and then back to as many as before."""

import copy
import pickle

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from kdtool.training.optimization.false_sharing import shares, without_false_sharing


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.BatchNorm2d(8), True),
        (nn.BatchNorm2d(120), True),
        (nn.BatchNorm2d(16), False),
        (nn.BatchNorm2d(96), False),
        (nn.BatchNorm2d(300), False),
        (nn.BatchNorm1d(8), False),
        (nn.GroupNorm(1, 8), False),
    ],
)
def test_what_shares_lines_of_the_cache(layer, expected):
    assert shares(layer) is expected


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Compute on two threads; the numbers of threads that are set meanwhile."""
    before, given, torch_sets = torch.get_num_threads(), [], torch.set_num_threads
    torch_sets(2)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: given.append(count) or torch_sets(count))
    yield given
    torch_sets(before)


def passes(layer, images):
    """Return what a layer puts out and all gradients of a weighted sum of it."""
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(images)
    (output * torch.arange(output.numel()).reshape_as(output).sin()).sum().backward()
    return [output, images.grad, *(parameter.grad for parameter in layer.parameters())]


def maps(channels, layout=torch.channels_last, dtype=torch.float32):
    drawn = torch.randn(4, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    return drawn.to(dtype).contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("channels", "dtype", "turns"),
    [
        (8, torch.float32, [1, 2]),  # backward
        (12, torch.float32, [1, 2, 1, 2]),  # forward and backward
        (12, torch.bfloat16, [1, 2]),
        (68, torch.float32, [1, 2]),
        (16, torch.float32, []),
    ],
)
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d, lambda many: nn.Sequential(nn.BatchNorm2d(many))])
def test_one_thread_and_back_with_the_numbers_of_one_thread(channels, dtype, turns, kind, threads):
    layer = kind(channels)
    alone = copy.deepcopy(layer)
    with without_false_sharing([layer]):
        found = passes(layer, maps(channels, dtype=dtype))
    assert threads == turns
    torch.set_num_threads(1)
    expected = passes(alone, maps(channels, dtype=dtype))
    for mine, theirs in zip(found, expected, strict=True):
        error = (mine.float() - theirs.float()).norm() / theirs.float().norm()
        # Two threads sum up the statistics of a forward pass in another order than one does.
        assert error <= (0 if len(turns) == 4 else 1e-5 if dtype == torch.float32 else 5e-3)


def test_other_orders_of_memory_modes_and_numbers_of_threads_stay(threads):
    layer = nn.BatchNorm2d(12)
    with without_false_sharing([layer]):
        passes(layer, maps(12, torch.contiguous_format))
        assert threads == []
        with torch.no_grad():
            layer(maps(12, dtype=torch.bfloat16))
        layer.eval()
        passes(layer, maps(12, dtype=torch.bfloat16))
        assert threads == []
    torch.set_num_threads(1)
    threads.clear()
    with without_false_sharing([layer.train()]):
        passes(layer, maps(12))
    assert threads == []


def test_a_pass_that_fails_leaves_the_number_of_threads_as_it_was():
    layer = nn.BatchNorm2d(12)
    layer.weight = nn.Parameter(torch.ones(13))
    with pytest.raises(RuntimeError), without_false_sharing([layer]):
        layer(maps(12))
    assert torch.get_num_threads() == 2


def test_nothing_stays_behind_and_copies_can_be_pickled(threads):
    layer = nn.BatchNorm2d(12)
    with without_false_sharing([layer]):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
        passes(copied, maps(12))
    assert threads == []
    assert torch.allclose(copied(maps(12)), layer(maps(12)), atol=1e-5)
    threads.clear()
    passes(layer, maps(12))
    assert threads == []


class Pair(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x), x


def test_layers_that_are_called_or_answer_in_another_way_work_as_before(threads):
    layer, pair = nn.BatchNorm2d(8), Pair(8)
    with without_false_sharing([layer, pair]):
        layer(input=maps(8)).sum().backward()
        pair(maps(8))[0].sum().backward()
    assert threads == []
    assert layer.weight.grad is not None
    assert pair.weight.grad is not None
