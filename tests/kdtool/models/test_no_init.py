"""Networks whose code reads the weights that it has just drawn."""

import pytest
import torch
from torch import nn

from kdtool import Error
from kdtool.models.no_init import Drawn, NoInit, base_for, without_init


def scaled():
    """Return a layer whose largest weight is 1, as the code of a user may draw it."""
    layer = nn.Linear(4, 3)
    layer.weight.data.mul_(1 / float(layer.weight.abs().max().item()))
    return nn.Sequential(layer).eval()


def inverted():
    """Return a layer whose weights are the inverse of random numbers, which zeros do not have."""
    layer = nn.Linear(4, 4)
    layer.weight.data = torch.linalg.inv(layer.weight.data)
    return layer


@pytest.mark.parametrize("make", [scaled, inverted])
def test_it_is_built_with_its_random_numbers_for_weights_that_replace_them(make):
    with pytest.raises((ZeroDivisionError, RuntimeError)), NoInit():
        make()
    weights = make().state_dict()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)

    module = base_for(make, weights, "mine")

    assert torch.equal(torch.rand(3), expected)
    assert list(module.state_dict()) == list(weights)


def test_an_error_in_the_place_of_that_of_the_code_is_tried_again_too():
    def make():
        try:
            return scaled()
        except ZeroDivisionError as error:  # as the source of a user's own code does
            raise Error("mine: fails") from error

    assert list(base_for(make, make().state_dict(), "mine").state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("replaced", [False, True])
def test_what_exceeds_the_memory_is_not_tried_again(replaced):
    tries = []

    def make():
        tries.append(nn.Linear(4, 4))
        try:
            return nn.Linear(1 << 10, 1 << 10)
        except Error as error:
            if replaced:
                raise RuntimeError("something else") from error
            raise

    with pytest.raises((Error, RuntimeError), match="something else" if replaced else "takes more than 1 MiB"):
        without_init(make, 1 << 20)
    assert len(tries) == 1


def test_the_second_try_has_the_same_limit():
    def make():
        layer = nn.Linear(4, 4)
        if not layer.weight.any():
            raise ValueError("no random numbers")
        return nn.Linear(1 << 10, 1 << 10)

    with pytest.raises(Error, match="takes more than 1 MiB"):
        without_init(make, 1 << 20)


def test_a_tensor_counts_again_when_it_is_filled():
    weight, bias = 4 * 128**2, 4 * 128
    with Drawn(1 << 20) as drawn:
        layer = nn.Linear(128, 128)

    assert drawn.taken == 2 * weight + bias
    assert layer.weight.count_nonzero()


def test_what_fails_with_random_numbers_too_is_named():
    def make():
        nn.Linear(4, 4)
        raise ValueError("no such size")

    with pytest.raises(Error, match="mine: cannot be built: no such size"):
        base_for(make, {}, "mine")
