"""Steps in the order of memory: the same bits as torch's own, and every tensor as it was afterwards."""

import copy

import pytest
import torch
from torch import nn

from kdtool.training.optimization.memory_order import in_memory_order, put_in_order


def network():
    """A convolution of 73,728 weights in channels-last order, a small one, and a linear layer."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Conv2d(3, 4, 3), nn.Linear(300, 300))
    return layers.to(memory_format=torch.channels_last)


def made(kind, module):
    if kind == "sgd":
        return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True, fused=True)
    return torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_same_bits_as_without_it(kind):
    """Each number of a tensor is moved by its own gradient alone, so that the order of them cannot matter."""
    plain = network()
    turned = copy.deepcopy(plain)
    optimizers = made(kind, plain), made(kind, turned)
    for step in range(3):
        for index, module in enumerate((plain, turned)):
            torch.manual_seed(step)
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            if index == 0:
                optimizers[0].step()
            else:
                with in_memory_order(optimizers[1]):
                    optimizers[1].step()
    for mine, theirs in zip(turned.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for name, value in optimizers[0].state[theirs].items():
            assert torch.equal(optimizers[1].state[mine][name], value), name


def test_a_large_tensor_is_contiguous_inside_and_as_before_outside():
    module = network()
    weight = module[0].weight
    weight.grad = torch.zeros_like(weight)
    optimizer = made("sgd", module)
    before = weight.stride(), weight.data_ptr()
    with in_memory_order(optimizer):
        assert weight.shape == (128, 3, 3, 64)
        assert weight.is_contiguous()
        assert weight.grad.is_contiguous()
        assert module[1].weight.shape == (4, 3, 3, 3)
        optimizer.step()
    assert weight.shape == weight.grad.shape == optimizer.state[weight]["momentum_buffer"].shape == (128, 64, 3, 3)
    assert (weight.stride(), weight.data_ptr()) == before


def test_an_error_inside_leaves_the_weights_as_they_were():
    module = network()
    module[0].weight.grad = torch.zeros_like(module[0].weight)
    with pytest.raises(RuntimeError, match="no step"), in_memory_order(made("sgd", module)):
        raise RuntimeError("no step")
    assert module[0].weight.shape == (128, 64, 3, 3)
    assert module[0].weight.grad.shape == (128, 64, 3, 3)


def test_an_optimiser_that_reads_shapes_sees_them():
    module = network()
    module[0].weight.grad = torch.zeros_like(module[0].weight)
    with in_memory_order(torch.optim.SGD(module.parameters(), lr=0.1)):
        assert module[0].weight.shape == (128, 64, 3, 3)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_gradients_and_states_in_another_order_of_memory(kind):
    """torch's fused kernels take the numbers of both as they lie in memory; those that are not fused do not."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    weights = [nn.Parameter(network()[1].weight.detach().clone()) for _ in range(2)]
    assert not weights[0].is_contiguous()
    optimizers = [
        kind([weight], lr=0.1, fused=fused, **options) for weight, fused in zip(weights, (True, False), strict=True)
    ]
    for step in range(3):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))
            assert weight.grad.is_contiguous()
            with in_memory_order(optimizer):
                optimizer.step()
        kept = optimizers[0].state[weights[0]]
        for name, value in kept.items():
            kept[name] = value.contiguous()
        put_in_order(optimizers[0])
        torch.testing.assert_close(*weights)
