"""Recurrent layers (LSTM, GRU): their channels, and the cut of their weights, which hold all gates in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def outputs_of(layer: nn.RNNBase, kept: Tensor) -> Tensor:
    """Return the output channels of a layer that keeps these channels of its state.

    The outputs of the backward direction follow those of the forward one.
    """
    return torch.cat([kept + direction * width_of(layer) for direction in range(_directions(layer))])


def width_of(layer: nn.RNNBase) -> int:
    """Return the number of output channels of one direction of a layer."""
    return layer.proj_size or layer.hidden_size


def cut_recurrent(layer: nn.RNNBase, inputs: Tensor, state: Tensor) -> None:
    """Cut a layer without projection to these channels of its inputs and of its state, in place.

    The rows of its weights are [gates x state]. In a stack, each further layer reads the states of both directions.
    """
    weights = dict(layer.named_parameters(recurse=False))
    gates = weights["weight_hh_l0"].shape[0] // layer.hidden_size
    rows = torch.cat([state + gate * layer.hidden_size for gate in range(gates)])
    further_inputs = outputs_of(layer, state)
    for name, tensor in weights.items():
        new = tensor.detach()[rows]
        if name.startswith("weight_ih"):
            new = new[:, inputs if "_l0" in name else further_inputs]
        elif name.startswith("weight_hh"):
            new = new[:, state]
        # Set by name, because setattr also updates the list in which the layer holds its weights.
        setattr(layer, name, nn.Parameter(new.contiguous(), tensor.requires_grad))
    layer.input_size, layer.hidden_size = len(inputs), len(state)


def is_plain(layer: nn.RNNBase) -> bool:
    """Return whether a layer's channels can be followed and cut: it is batch-first and has no projection."""
    return layer.batch_first and not layer.proj_size


def _directions(layer: nn.RNNBase) -> int:
    return 2 if layer.bidirectional else 1
