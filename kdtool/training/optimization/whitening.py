"""Whitening of the images by the first convolution of a network, which then begins with uncorrelated inputs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.data.splits import Split
from kdtool.errors import UsageError
from kdtool.models.architecture import Network

IMAGES = 5000

# Added to the variances, so that directions without content are not blown up; of images with a deviation of about 1.
EPSILON = 5e-4


def whitened(network: Network, train: Split) -> Network:
    """Return a copy whose first convolution whitens the patches of the training images; its weights are fixed.

    The filters are v_i / sqrt(l_i + EPSILON) with the eigenvectors v_i and eigenvalues l_i of the covariance of all
    patches of up to 5,000 plain images, the largest first, followed by the same with the opposite sign as far as there
    is room (Page, 2018; Jordan, 2024, arXiv:2404.00498). A bias stays to be learnt. Fixed means that the weights need
    no gradient.

    Raises:
        UsageError: the first layer is no convolution, or has fewer filters than a patch has numbers.
    """
    module = copy.deepcopy(network.module)
    layer = next((part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)), None)
    if not isinstance(layer, nn.Conv2d) or layer.in_channels != network.architecture.input[0] or layer.groups > 1:
        raise UsageError("--whiten: the first layer of this network is no convolution of the images; leave it out")
    size = layer.weight[0].numel()
    if layer.out_channels < size:
        raise UsageError(
            f"--whiten: the first convolution has {layer.out_channels} filters, and whitening takes {size}; leave it "
            "out"
        )
    step = max(1, len(train) // IMAGES)
    order = torch.arange(0, len(train), step)[:IMAGES]
    images = torch.cat([batch[1] for batch in train.batches(500, order=order)])
    filters = _filters(images, layer.kernel_size)
    signed = torch.cat([filters, -filters])[: layer.out_channels]
    with torch.no_grad():
        layer.weight[: len(signed)] = signed.view(len(signed), *layer.weight.shape[1:])
    layer.weight.requires_grad_(False)
    return Network(network.architecture, module)


def _filters(images: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Return the whitening filters of images [images, channels, height, width], [size, size]; one row for each.

    ``kernel`` is the height and width of a patch, and ``size`` how many numbers a patch has.
    """
    covariance, count = torch.zeros(()), 0
    for chunk in images.split(500):
        patches = F.unfold(chunk, (kernel[0], kernel[1])).transpose(1, 2).flatten(0, 1).double()
        covariance = covariance + patches.t() @ patches
        count += len(patches)
    values, vectors = torch.linalg.eigh(covariance / count)
    filters: Tensor = (vectors / (values.clamp(min=0) + EPSILON).sqrt()).t().flip(0)
    return filters.float()
