"""Channels, sizes and statistics, against Pillow and plain arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdtool.data.pixels import normalised, resized, statistics, statistics_for, with_channels
from kdtool.errors import UsageError


@pytest.fixture
def colours():
    return torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_luma_is_what_pillow_computes(colours):
    for image, gray in zip(colours, with_channels(colours, 1), strict=True):
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.array_equal(gray[0].numpy(), expected)


def test_gray_is_repeated(colours):
    assert torch.equal(with_channels(colours[:, :1], 3), colours[:, :1].repeat(1, 3, 1, 1))


def test_other_channels_are_refused(colours):
    with pytest.raises(UsageError, match="in-channels 4"):
        with_channels(colours, 4)


def test_resized_takes_the_centre_and_averages():
    images = torch.zeros(1, 1, 4, 8, dtype=torch.uint8)
    images[..., 2:4], images[..., 4:6] = 200, 100  # the centre square is columns 2 to 5
    assert resized(images, 4).tolist() == [[[[200, 200, 100, 100]] * 4]][0:1]
    assert torch.equal(resized(images.mT, 4), resized(images, 4).mT)
    # Antialiased: halving weighs each pixel by a triangle of four columns.
    assert resized(images, 2)[0, 0].unique().tolist() == [114, 186]
    assert resized(images, 8).shape == (1, 1, 8, 8)


def test_statistics_are_those_of_all_pixels(colours):
    mean, std = statistics(colours.split(4))
    values = colours.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), abs=1e-6)


def test_a_channel_of_one_value_can_be_divided_by():
    assert statistics([torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)]) == ((0.2,), (round(1 / 255, 6),))


def test_published_statistics_for_other_channels(colours):
    assert statistics_for((0.1,), (0.3,), 3) == ((0.1,) * 3, (0.3,) * 3)
    mean, std = statistics([colours])
    assert statistics_for(mean, std, 3) == (mean, std)
    # A luma's mean is the luma of the means; its deviation is only known where the colours go together.
    gray_mean, gray_std = statistics_for(mean, std, 1)
    assert gray_mean == pytest.approx(statistics([with_channels(colours, 1)])[0], abs=2e-3)
    together = colours[:, :1].repeat(1, 3, 1, 1)
    mean, std = statistics([together])
    assert statistics_for(mean, std, 1)[1] == pytest.approx(statistics([with_channels(together, 1)])[1], abs=2e-3)
    assert len(gray_std) == 1


def test_normalised(colours):
    got = normalised(colours, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, (colours / 255 - mean) / std)
