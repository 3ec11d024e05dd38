"""A small convolutional network that classifies patterns, and the images it is right on."""

import pytest
import torch
from torch import nn

from kdtool import Architecture, Network
from kdtool_exporters.onnx_model import frozen, write
from kdtool_exporters.onnx_quantise import prepare

CLASSES = 4


def as_network(module, image_size=8, classes=CLASSES):
    options = {"classes": classes, "in_channels": 1, "image_size": image_size}
    return Network(Architecture(source="timm", name="tiny", options=options), module)


class Outlier(nn.Module):
    """A network that is right, and two of whose layers cannot be quantised.

    The first of these gives one channel of values near 1000 beside others near 1; the second does not look at it.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 9, 1)
        self.narrow = nn.Conv2d(9, 8, 1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(8 * 16, CLASSES)

    def forward(self, images):
        maps = self.narrow(self.wide(self.stem(images).relu()))
        return self.head(self.pool(maps.relu()).flatten(1))


def _patterns(number, seed):
    """Images [number, 1, 8, 8] with a bright quarter, and the number of that quarter."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % CLASSES
    images = 0.3 * torch.randn(number, 1, 8, 8, generator=chance)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
    return images, labels


@pytest.fixture(scope="session")
def patterns():
    """Validation images in batches, as an exporter gets them."""
    images, labels = _patterns(120, 1)
    return list(zip(images.split(32), labels.split(32), strict=True))


@pytest.fixture(scope="session")
def outlier():
    """The trained network with its outlier."""
    torch.manual_seed(0)
    module = Outlier()
    images, labels = _patterns(200, 0)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        module.wide.weight[8].zero_()
        module.wide.bias[8] = 3000
        module.narrow.weight[:, 8] = 0
    return as_network(module.eval())


@pytest.fixture(scope="session")
def prepared(outlier, tmp_path_factory):
    """The network's prepared file, and its layers."""
    folder = tmp_path_factory.mktemp("prepared")
    write(frozen(outlier.module), outlier.architecture, folder / "float.onnx", opset=18, metadata={})
    return folder / "prepared.onnx", prepare(folder / "float.onnx", folder / "prepared.onnx")
