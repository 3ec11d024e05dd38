"""When the outputs of a file count as those of its network."""

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
    """One linear layer, and a function that changes its output."""

    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.change = change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


class Session:
    """Stands for onnxruntime's session of a module's file; ``change`` changes its outputs."""

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


def best_is_nan(outputs):
    """Return outputs whose best class is the same: NaN is the largest number for argmax."""
    return np.where(outputs == outputs.max(1, keepdims=True), np.float32("nan"), outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda outputs: outputs * np.float32(1.0002), "differ by .* from the network's"),
        (lambda outputs: outputs * np.float32("nan"), "differ by nan from the network's"),
        (best_is_nan, "differ by nan from the network's"),
        (lambda outputs: outputs[:1], r"batch of 3 its ONNX file gives \[1, 10\], the network \[3, 10\]"),
    ],
)
def test_a_file_that_differs(change, message):
    tiny = network(Linear(torch.relu).requires_grad_(False))
    assert check_parity(Session(tiny.module), tiny.module, tiny.architecture)["max_abs_diff"] == 0
    with pytest.raises(Error, match=message):
        check_parity(Session(tiny.module, change), tiny.module, tiny.architecture)


def cancelled(outputs):
    """Lose the last digits of float32 by adding and subtracting 4096."""
    return (outputs + 4096) - 4096


def test_a_network_that_magnifies_rounding_is_held_to_float64():
    tiny = network(Linear(cancelled).requires_grad_(False))
    plain = Linear(lambda outputs: outputs).requires_grad_(False)
    plain.load_state_dict(tiny.module.state_dict())
    # The file is more exact than the network's own float32 outputs, and would fail a comparison with them.
    result = check_parity(Session(plain), tiny.module, tiny.architecture)
    assert result["relative"] < 1e-6
    assert 1e-4 < result["tolerance"] < 4e-3
    # An error ten times that of the network's own rounding is refused.
    with pytest.raises(Error, match="differ by .* from the network's"):
        check_parity(Session(plain, lambda outputs: outputs + np.float32(0.005)), tiny.module, tiny.architecture)


def test_parity_of_numbers():
    expected = np.array([[1.0, -4.0], [2.0, 2.0001]])
    result = parity(expected, expected + np.array([[0.0, 0.0], [0.0002, 0.0]]))
    # The two logits of the second image differ by less than the tolerance.
    assert result == {"max_abs_diff": pytest.approx(2e-4), "max_abs": 4, "relative": pytest.approx(5e-5)} | {
        "tolerance": 1e-4,
        "same_argmax": True,
    }
    assert parity(expected, expected[:, ::-1])["same_argmax"] is False
    assert parity(np.array([[3.0]]), np.array([[3.0]]))["same_argmax"] is True
    assert parity(np.zeros((1, 2)), np.zeros((1, 2)))["relative"] == 0
