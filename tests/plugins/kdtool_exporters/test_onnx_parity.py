"""When a file counts as the network that it was made of."""

import numpy as np
import pytest
import torch
from torch import nn

from kdtool import Architecture, Error, Network
from kdtool_exporters.onnx_parity import check_parity, parity


def network(module):
    options = {"classes": 10, "in_channels": 1, "image_size": 8}
    return Network(Architecture(source="timm", name="tiny", options=options), module)


class Linear(nn.Module):
    """One linear layer, and what becomes of its output."""

    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.change = change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


class Session:
    """What onnxruntime would give for a module's file, changed."""

    def __init__(self, module, change=lambda outputs: outputs):
        self.module, self.change = module, change

    def run(self, names, feed):
        return [self.change(self.module(torch.from_numpy(feed["images"])).detach().numpy())]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.zeros_like, r"^timm:tiny: all its outputs are zero.*train it first$"),
        (lambda outputs: outputs / 0.0, r"^timm:tiny: its outputs are not finite"),
        (lambda outputs: outputs[:, :3], r"for a batch of 1 its ONNX file gives \[1, 3\].*not \[1, 10\]"),
    ],
)
def test_a_network_whose_file_cannot_be_compared(change, message):
    tiny = network(Linear(change).requires_grad_(False))
    with pytest.raises(Error, match=message):
        check_parity(Session(tiny.module), tiny.module, tiny.architecture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda outputs: outputs * np.float32(1.0002), "away from the network's"),
        (lambda outputs: outputs * np.float32("nan"), "are nan away from the network's"),
        (lambda outputs: outputs[:1], r"batch of 3 its ONNX file gives \[1, 10\], the network \[3, 10\]"),
    ],
)
def test_a_file_that_differs(change, message):
    tiny = network(Linear(torch.relu).requires_grad_(False))
    assert check_parity(Session(tiny.module), tiny.module, tiny.architecture)["max_abs_diff"] == 0
    with pytest.raises(Error, match=message):
        check_parity(Session(tiny.module, change), tiny.module, tiny.architecture)


def cancelled(outputs):
    """Lose the last digits of float32: 4096 is added and taken away."""
    return (outputs + 4096) - 4096


def test_a_network_that_magnifies_rounding_is_held_to_float64():
    tiny = network(Linear(cancelled).requires_grad_(False))
    plain = Linear(lambda outputs: outputs).requires_grad_(False)
    plain.load_state_dict(tiny.module.state_dict())
    # The file does better than the network's own float32, by which it would be refused.
    found = check_parity(Session(plain), tiny.module, tiny.architecture)
    assert found["relative"] < 1e-6
    assert 1e-4 < found["tolerance"] < 4e-3
    # Ten times worse than the network's own rounding is not its rounding.
    with pytest.raises(Error, match="away from the network's"):
        check_parity(Session(plain, lambda outputs: outputs + np.float32(0.005)), tiny.module, tiny.architecture)


def test_parity_of_numbers():
    expected = np.array([[1.0, -4.0], [2.0, 2.0001]])
    found = parity(expected, expected + np.array([[0.0, 0.0], [0.0002, 0.0]]))
    # The two classes of the second image are nearer to one another than the tolerance.
    assert found == {"max_abs_diff": pytest.approx(2e-4), "max_abs": 4, "relative": pytest.approx(5e-5)} | {
        "tolerance": 1e-4,
        "same_argmax": True,
    }
    assert parity(expected, expected[:, ::-1])["same_argmax"] is False
    assert parity(np.array([[3.0]]), np.array([[3.0]]))["same_argmax"] is True
    assert parity(np.zeros((1, 2)), np.zeros((1, 2)))["relative"] == 0
