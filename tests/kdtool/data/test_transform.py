import numpy as np
import pytest
import torch
from PIL import Image

from kdtool.data.preparation import Preparation
from kdtool.data.transform import Transform
from kdtool.errors import UsageError

COLOUR = Transform(Preparation(4, 3, 0.5), (0.5, 0.25, 0.0), (0.5, 0.5, 2.0))


def test_a_file_an_image_and_an_array_give_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")

    of_file, of_image, of_array = COLOUR(tmp_path / "image.png"), COLOUR(image), COLOUR(pixels)

    assert of_file.shape == (3, 4, 4)
    assert of_file.dtype == torch.float32
    assert torch.equal(of_file, of_image)
    assert torch.equal(of_file, of_array)
    assert torch.equal(COLOUR(str(tmp_path / "image.png")), of_file)


def test_a_constant_image_is_normalised():
    # 51 / 255 = 0.2; (0.2 - 0.5) / 0.5 = -0.6, (0.2 - 0.25) / 0.5 = -0.1, 0.2 / 2 = 0.1.
    made = COLOUR(np.full((8, 8, 3), 51, np.uint8))

    assert made.mean((1, 2)).tolist() == pytest.approx([-0.6, -0.1, 0.1], abs=1e-6)


def test_the_centre_is_used():
    # The square of half of the shorter side, 4 of 8 pixels, in the middle: rows 2 to 5, columns 4 to 7.
    pixels = np.zeros((8, 12), np.uint8)
    pixels[2:6, 4:8] = 255

    assert Transform(Preparation(4, 1, 0.5), (0.0,), (1.0,))(pixels).tolist() == [[[1.0] * 4] * 4]


def test_a_tensor_is_resized_as_images_in_memory_are():
    gray = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)

    made = Transform(Preparation(4, 3, 1.0), (0.0,) * 3, (1.0,) * 3)(gray)

    assert torch.allclose(made, gray.expand(3, -1, -1) / 255)
    assert torch.equal(Transform(Preparation(4, 1, 1.0), (0.0,), (1.0,))(gray[0].numpy()), made[:1])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 8, 8), r"expected uint8 \[channels, height, width\], got float32 \[3, 8, 8\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"got uint8 \[1, 3, 8, 8\]"),
        (np.zeros((8, 8, 3)), r"expected uint8 \[height, width, channels\], got float64 \[8, 8, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"got uint8 \[3, 8, 8\]"),
        (3, "expected a path, an image or an array of uint8, got int"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(UsageError, match=message):
        COLOUR(image)
