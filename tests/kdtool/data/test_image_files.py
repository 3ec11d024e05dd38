"""Reading image files: formats, damage, crops and worker processes."""

import dataclasses
import io
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from kdtool.data import image_formats
from kdtool.data.augmentation import Crop
from kdtool.data.changes import changes_of
from kdtool.data.image_files import FEW, FileImages, read_image
from kdtool.data.image_formats import header_of
from kdtool.data.preparation import Preparation, default_crop
from kdtool.errors import Error, UsageError


def prepared(size, channels):
    return Preparation(size, channels, default_crop(size))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_of_the_right_size_is_read_as_it_is(tmp_path):
    pixels = noise(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", prepared(8, 3)).permute(1, 2, 0).numpy(), pixels)


def test_the_centre_square_of_a_wide_image(tmp_path):
    pixels = noise(8, 16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", prepared(8, 3)).permute(1, 2, 0).numpy(), pixels[:, 4:12])


def test_large_images_lose_their_border(tmp_path):
    pixels = np.zeros((160, 160, 3), np.uint8)
    pixels[10:150, 10:150] = 255  # the centre of 0.875 * 160 = 140 pixels
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", prepared(140, 3)).min() == 255


def test_a_crop_and_its_mirror(tmp_path):
    pixels = noise(20, 20)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    crop = Crop(0.25, 1.0, left=1.0, top=0.0, mirrored=False)
    assert np.array_equal(
        read_image(tmp_path / "a.png", prepared(10, 3), crop).permute(1, 2, 0).numpy(), pixels[:10, 10:]
    )
    mirrored = read_image(tmp_path / "a.png", prepared(10, 3), Crop(0.25, 1.0, left=1.0, top=0.0, mirrored=True))
    assert np.array_equal(mirrored.permute(1, 2, 0).numpy(), pixels[:10, :9:-1])


def test_a_large_jpeg_decoded_at_a_part_of_its_size_is_the_same_picture(tmp_path):
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (480, 1))] * 3, -1)).save(tmp_path / "a.jpg", quality=95)
    crop = Crop(0.5, 1.2, left=0.3, top=0.6, mirrored=False)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box=crop.box(640, 480)))
    got = read_image(tmp_path / "a.jpg", prepared(32, 3), crop).permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(tmp_path, mode, channels):
    image = Image.new("L", (8, 8), 255).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    assert read_image(path, prepared(8, channels)).tolist() == [[[255] * 8] * 8] * channels


def test_sixteen_bits_keep_their_grays(tmp_path):
    Image.fromarray(np.full((8, 8), 30000, np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", prepared(8, 1)).unique().tolist() == [round(30000 / 257)]


def damaged(path):
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:500])


def text(path):
    path.write_text("no image")


def floats(path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF")


def missing(path):
    pass


@pytest.mark.parametrize("make", [damaged, text, floats, missing])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_files_are_named(tmp_path, make, suffix):
    path = tmp_path / f"a.{suffix}"
    make(path)
    with pytest.raises(Error, match=rf"^[^\n]*a\.{suffix}: cannot be read as an image [^\n]*$"):
        read_image(path, prepared(8, 3))


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    Image.fromarray(noise(64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Error, match="too large to be read safely"):
        read_image(tmp_path / "a.png", prepared(8, 3))


@pytest.mark.parametrize(
    ("suffix", "side"),
    [
        ("png", 20),
        ("bmp", 20),
        ("gif", 20),
        ("tif", 20),
        ("ppm", 20),
        ("jpg", 28),
        ("webp", 14),
        ("jp2", 14),
        ("avif", 14),
    ],
)
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch, suffix, side):
    monkeypatch.setattr(image_formats, "MOST_PIXELS", 400)
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (side, side)).save(path)
    assert read_image(path, prepared(8, 3)).shape == (3, 8, 8)
    Image.new("RGB", (side + 1, side)).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for function in (header_of, lambda path: read_image(path, prepared(8, 3))):
        with pytest.raises(
            Error, match=rf"^[^\n]*a\.{suffix}: the image is too large to be read safely [^\n]* smaller$"
        ):
            function(path)


def test_a_side_a_tile_or_the_number_of_scans_may_be_too_large_too(tmp_path, monkeypatch):
    Image.new("L", (1, 2**16 + 1)).save(tmp_path / "a.png")
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "TIFF", tiffinfo={65000: 2**14, 65001: 2**14})
    data = content.getvalue()
    for other, tag in ((65000, 322), (65001, 323)):  # the size of a tile, which Pillow does not write
        data = data.replace(struct.pack("<H", other), struct.pack("<H", tag))
    (tmp_path / "b.tif").write_bytes(data)
    Image.fromarray(noise(64, 64)).save(tmp_path / "c.jpg", progressive=True)
    assert header_of(tmp_path / "c.jpg").width == 64
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "JPEG", subsampling=0)
    head, _, _ = content.getvalue().partition(b"\xff\xda")
    scans = [bytes([255, 218, 0, 8, 1, channel, 0, 0, 63, 0]) for channel in (1, 2, 3)]
    (tmp_path / "d.jpg").write_bytes(head + b"".join(scans * 9) + b"\xff\xd9")
    assert header_of(tmp_path / "d.jpg").width == 64
    monkeypatch.setattr(image_formats, "MOST_SCANNED", 5 * 64 * 64)
    for name, reason in (("a.png", "65,536 a side"), ("b.tif", "268,435,456 pixels"), ("c.jpg", "decoded 10 times"),
                         ("d.jpg", "decoded 27 times")):  # fmt: skip
        with pytest.raises(Error, match=rf"{name}: the image is too large to be read safely \([^\n]*{reason}"):
            header_of(tmp_path / name)
    Image.new("RGB", (64, 64)).save(tmp_path / "e.jpg", comment=b"\xff\xda" * 999)
    assert header_of(tmp_path / "e.jpg").width == 64


def test_the_levels_of_an_image_of_many_bits_take_little_memory(tmp_path):
    Image.fromarray(np.full((4000, 4000), 300, np.uint16)).save(tmp_path / "a.png", compress_level=1)
    tracemalloc.start()
    try:
        header_of(tmp_path / "a.png")
        read_image(tmp_path / "a.png", prepared(8, 1))
        assert tracemalloc.get_traced_memory()[1] < 3 * 4000 * 4000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "F"])
def test_an_image_is_the_same_in_bands_of_rows(tmp_path, monkeypatch, mode):
    rows = noise(30, 20).astype(np.uint16) * 257
    image = Image.fromarray(rows[..., 0] if mode == "I;16" else noise(30, 20)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(noise(30, 20, seed=1)[..., 0]))
    image.save(tmp_path / "a.tif")
    read = [header_of(tmp_path / "a.tif")]
    read.append(
        read_image(tmp_path / "a.tif", dataclasses.replace(prepared(20, 3), white=255 if mode == "F" else None))
    )
    monkeypatch.setattr(image_formats, "BAND", 70)
    assert header_of(tmp_path / "a.tif") == read[0]
    again = read_image(tmp_path / "a.tif", dataclasses.replace(prepared(20, 3), white=255 if mode == "F" else None))
    assert torch.equal(again, read[1])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    paths = []
    for number in range(FEW + 4):
        paths.append(folder / f"{number}.png")
        Image.fromarray(noise(10, 12, seed=number)).save(paths[-1])
    return tuple(paths)


def all_of(images, order, view, batch=100):
    chunks = order.split(batch)
    batches = list(images.batches(chunks, view))
    assert [len(batch) for batch in batches] == [len(chunk) for chunk in chunks]
    pixels = torch.empty(len(images), *batches[0].shape[1:], dtype=torch.uint8)
    pixels[order] = torch.cat(batches)
    return pixels


def test_workers_keep_the_order_and_a_view_depends_on_nothing_else(many):
    images = FileImages(many, prepared(72, 3), seed=5, flip=True, augment=True)
    natural = torch.arange(len(many))
    before = torch.random.get_rng_state()
    by_workers = all_of(images, natural, view=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(by_workers, all_of(images, torch.randperm(len(many)), view=1, batch=len(many)))
    assert not torch.equal(by_workers, all_of(images, natural, view=2))
    plain = all_of(images, natural, view=None)
    assert torch.equal(plain[3], read_image(many[3], prepared(72, 3)))
    unaugmented = FileImages(many, prepared(72, 3), seed=5, flip=True)
    assert torch.equal(plain, all_of(unaugmented, natural, view=1))


def test_workers_change_images_as_the_main_process_does(many):
    changes = changes_of(5, "rand", 0.5, (0.4, 0.5, 0.6))
    images = FileImages(many, prepared(72, 3), seed=5, flip=True, augment=True, changes=changes)
    order = torch.randperm(len(many))
    before = torch.random.get_rng_state()
    by_workers = all_of(images, order, view=1)
    assert torch.equal(before, torch.random.get_rng_state())
    here = all_of(images, torch.arange(len(many)), view=1, batch=len(many))  # a single batch starts no workers
    assert torch.equal(by_workers, here)
    cropped = FileImages(many, prepared(72, 3), seed=5, flip=True, augment=True)
    assert torch.equal(here, changes(all_of(cropped, order, view=1), torch.arange(len(many)), 1))
    assert torch.equal(all_of(images, order, view=None), all_of(cropped, order, view=None))


def test_a_damaged_file_among_many_is_one_line(many, tmp_path):
    damaged(tmp_path / "bad.png")
    images = FileImages((*many, tmp_path / "bad.png"), prepared(8, 3))
    with pytest.raises(Error, match=r"^[^\n]*bad\.png: cannot be read as an image[^\n]*$"):
        all_of(images, torch.arange(len(images)), view=None)


def test_other_channels_are_refused(many):
    with pytest.raises(UsageError, match="1 channel or 3"):
        FileImages(many, prepared(8, 2))
