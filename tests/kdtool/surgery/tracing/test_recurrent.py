"""Recurrent layers, cut gate by gate."""

import pytest
import torch
from torch import nn

from kdtool.surgery.tracing.recurrent import cut_recurrent


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_are_cut_gate_by_gate(kind, gates):
    layer = kind(6, 4, num_layers=2, batch_first=True, bidirectional=True)
    whole = {name: tensor.detach().clone() for name, tensor in layer.named_parameters()}
    cut_recurrent(layer, torch.tensor([0, 2, 5]), torch.tensor([1, 3]))
    rows = torch.tensor([gate * 4 + channel for gate in range(gates) for channel in (1, 3)])
    assert torch.equal(layer.weight_ih_l0, whole["weight_ih_l0"][rows][:, [0, 2, 5]])
    assert torch.equal(layer.weight_hh_l1_reverse, whole["weight_hh_l1_reverse"][rows][:, [1, 3]])
    assert torch.equal(layer.weight_ih_l1, whole["weight_ih_l1"][rows][:, [1, 3, 5, 7]])
    assert layer(torch.rand(2, 5, 3))[0].shape == (2, 5, 4)
