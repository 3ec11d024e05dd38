"""Which tensors round: those that onnxruntime computes in 8 bits."""

import pytest
import torch
from torch import nn

from kdtool import Error, UsageError
from kdtool.models.architecture import Architecture, Network
from kdtool.models.quantisation.places import find_places


def places_of(module, skip=(), shape=(3, 8, 8), only=()):
    channels, size, _ = shape
    options = {"classes": 10, "in_channels": channels, "image_size": size}
    return find_places(Network(Architecture(source="test", name="net", options=options), module), skip, only)


class Block(nn.Module):
    """A block with a residual sum that is computed in place, and a ReLU that is used twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.conv3 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.relu, self.drop, self.head = nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(x)
        y += x
        y = self.relu(y)
        left, right = torch.cat([y, self.conv3(y)], 1).chunk(2, 1)
        return self.head(self.drop((left * right).mean((2, 3))))


def test_roundings_stand_behind_norms_and_clippings():
    places = places_of(Block())
    assert places.activations == (
        "input",
        "relu:relu:0",  # behind conv1 and bn1
        "conv2:conv2d:0",  # it is added
        "relu:relu:1",  # behind the sum
        "conv3:conv2d:0",
        ":cat:0",
        ":mean:0",  # the linear layer reads it, through the dropout
    )
    assert places.weights == ("conv1:conv2d:0", "conv2:conv2d:0", "conv3:conv2d:0", "head:linear:0")
    assert places.folds == {"conv1:conv2d:0": "bn1:batch_norm:0"}
    assert places.passes == {":chunk:0": ":cat:0", "drop:dropout:0": ":mean:0"}


def test_a_layer_in_float_has_no_rounded_output():
    places = places_of(Block(), skip=["conv3", "hea*"])
    assert places.weights == ("conv1:conv2d:0", "conv2:conv2d:0")
    assert ":mean:0" not in places.activations
    # The same, said the other way round.
    assert places_of(Block(), only=["conv*"], skip=["conv3"]) == places


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match="--quantize-skip convx: matches no layer of test:net.*did you mean conv"):
        places_of(Block(), skip=["convx"])
    with pytest.raises(UsageError, match="--quantize-only convx: matches no layer of test:net"):
        places_of(Block(), only=["convx"])
    with pytest.raises(UsageError, match="^test:net: --quantize-only and --quantize-skip leave all layers in float; "):
        places_of(Block(), only=["head"], skip=["head"])


def test_sums_of_a_transformer_stay_in_float():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
            self.wide, self.back, self.head = nn.Linear(8, 64), nn.Linear(64, 8), nn.Linear(8, 10)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = x + self.back(nn.functional.gelu(self.wide(self.norm(x))))
            return self.head(x.mean(1))

    places = places_of(Mixer())
    assert places.activations == ("norm:layer_norm:0", ":gelu:0", ":mean:0")
    assert [name.partition(":")[0] for name in places.weights] == ["wide", "back", "head"]


def test_a_network_without_layers_is_refused():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))

        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] * self.scale

    with pytest.raises(Error, match="no convolution and no linear layer"):
        places_of(Mean())
