"""How tensors are cut that the flow does not know, and which dimensions stay."""

import pytest
import torch
from torch import nn

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import halve_widths
from kdtool.surgery.slicing.fixed_dims import fixed_dimensions, outline
from kdtool.surgery.slicing.kept_indices import even_indices
from kdtool.surgery.slicing.tensors import slice_tensors
from kdtool.surgery.tracing.flow import Flow


class States(nn.Module):
    """Computes three states of the same width at once, and scales one of them."""

    def __init__(self):
        super().__init__()
        self.state_dim = 6
        self.mix = nn.Linear(8, 18)
        self.scale = nn.Parameter(torch.arange(6.0))


class Rotation(nn.Module):
    """Holds one frequency for every four channels of a head, and the width of a head as an attribute."""

    def __init__(self):
        super().__init__()
        self.dim = 16
        self.register_buffer("bands", torch.arange(4.0))


class Attention(nn.Module):
    """Holds an embedding as wide as a head, and names the width of a head in an unusual way."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.dim_head_qk = 2, 16
        self.query = nn.Linear(8, 32)
        self.relative = nn.Parameter(torch.zeros(7, 16))
        self.rotation = Rotation()


def halved(module):
    def keep(path, dim, size):
        return torch.arange(size) if size == 7 else even_indices(size, 0.5)

    slice_tensors(module, Flow(), keep)
    return module


def test_a_tensor_for_one_of_several_states_is_cut_as_they_are():
    assert halved(States()).scale.shape == (3,)


def test_embeddings_of_a_head_and_frequencies_of_its_channels_are_cut_as_heads_are():
    narrow = halved(Attention())
    assert narrow.query.weight.shape == (16, 4)
    assert narrow.relative.shape == (7, 8)
    assert narrow.rotation.bands.tolist() == [0, 2]


def test_constants_of_the_images_channels_stay():
    net = create("timm:csatv2", options=NetworkOptions(classes=10, image_size=64), data=None)
    fixed = fixed_dimensions(net.architecture, outline(net.architecture))
    assert {("stem_dct.imagenet_mean", 0), ("stem_dct.mean", 0)} <= fixed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "image_size"),
    [
        ("timm:csatv2", 224),  # convolutions of two maps that are pooled over channels
        ("timm:efficientvim_m1", 64),  # three states at once
        ("timm:lamhalobotnet50ts_256", 256),  # embeddings of positions as wide as a head
        ("timm:qwen3_vit_88m", 64),  # rotary embeddings made anew from their frequencies
    ],
)
def test_unusual_networks_are_halved(spec, image_size):
    net = create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None)
    small = halve_widths(net)
    before, after = (sum(tensor.numel() for tensor in network.module.parameters()) for network in (net, small))
    assert before / after > 3
