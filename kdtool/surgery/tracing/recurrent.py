"""Recurrent layers (LSTM, GRU): what they keep, and how their weights, of a form of their own, are cut to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def outputs_of(layer: nn.RNNBase, kept: Tensor) -> Tensor:
    """Return the outputs of a layer that keeps these channels of its state; those of both directions stand in a row."""
    return torch.cat([kept + direction * width_of(layer) for direction in range(_directions(layer))])


def width_of(layer: nn.RNNBase) -> int:
    """Return the channels that a layer puts out for each direction."""
    return layer.proj_size or layer.hidden_size


def cut_recurrent(layer: nn.RNNBase, inputs: Tensor, state: Tensor) -> None:
    """Cut a layer without projection to these channels of its inputs and of its state, in place.

    The rows of its weights are gates x state; a further layer's inputs are the states of both directions.
    """
    weights = dict(layer.named_parameters(recurse=False))
    gates = weights["weight_hh_l0"].shape[0] // layer.hidden_size
    rows = torch.cat([state + gate * layer.hidden_size for gate in range(gates)])
    further = outputs_of(layer, state)
    for name, tensor in weights.items():
        new = tensor.detach()[rows]
        if name.startswith("weight_ih"):
            new = new[:, inputs if "_l0" in name else further]
        elif name.startswith("weight_hh"):
            new = new[:, state]
        # By its name: the layer holds its weights in a list as well.
        setattr(layer, name, nn.Parameter(new.contiguous(), tensor.requires_grad))
    layer.input_size, layer.hidden_size = len(inputs), len(state)


def is_plain(layer: nn.RNNBase) -> bool:
    """Whether a layer's channels can be followed and cut: images come first in its batch, and it has no projection."""
    return layer.batch_first and not layer.proj_size


def _directions(layer: nn.RNNBase) -> int:
    return 2 if layer.bidirectional else 1
