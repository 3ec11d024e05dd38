"""Forms of image files: what is opened, how it is turned, and what becomes of transparency and of more than 8 bits."""

import io
import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from kdtool.data.augmentation import Crop
from kdtool.data.image_files import read_image
from kdtool.data.image_formats import header_of
from kdtool.data.preparation import Preparation
from kdtool.errors import Error

RANDOM = np.random.default_rng(0)


def read(path, size, channels=3, white=None, crop=None):
    """Return [size, size, channels] of all of an image."""
    return read_image(path, Preparation(size, channels, 1.0, "nearest", white), crop).permute(1, 2, 0).numpy()


def png(pixels, extra=b"", after=b""):
    """Return the bytes of a PNG of 16 bits, written by hand: Pillow writes no such files in colour.

    ``pixels`` are [height, width, channels]; ``extra`` and ``after`` are chunks before and behind the pixels.
    """
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + after
        + chunk(b"IEND", b"")
    )


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(pixels, order="<", **tags):
    """Return the bytes of an uncompressed TIFF of 16 bits in colour, written by hand."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    entries = {256: width, 257: height, 258: 16, 259: 1, 262: 2, 273: 8, 277: channels, 278: height, 279: len(data)}
    if channels == 4:
        entries[338] = 2
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    table = 8 + len(data)
    bits = table + 2 + 12 * len(entries) + 4
    body = struct.pack(f"{order}H", len(entries))
    for tag, value in sorted(entries.items()):
        if tag == 258:
            body += struct.pack(f"{order}HHII", tag, 3, channels, bits)
        else:
            body += struct.pack(f"{order}HHII", tag, 4, 1, value)
    body += struct.pack(f"{order}I", 0) + struct.pack(f"{order}{channels}H", *[16] * channels)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, table) + data + body


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_images_are_turned_as_their_orientation_says(tmp_path, orientation, suffix):
    pixels = np.kron(RANDOM.integers(0, 256, (3, 2), dtype=np.uint8), np.ones((16, 16), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(suffix, {})
    image = Image.fromarray(pixels).convert("RGB")
    image.save(path, exif=exif, **options)
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened)
    header = header_of(path)
    assert (header.width, header.height) == expected.size
    assert expected.size == ((48, 32) if orientation >= 5 else (32, 48))
    side = min(expected.size)
    left, top = (expected.width - side) // 2, (expected.height - side) // 2
    square = np.asarray(expected.crop((left, top, left + side, top + side)))
    assert np.array_equal(read(path, 32), square)


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_the_crop_is_of_the_turned_image_where_a_jpeg_is_decoded_at_a_part_of_its_size(tmp_path, orientation):
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([np.tile(ramp, (480, 1))] * 3, -1)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    crop = Crop(0.5, 1.2, left=0.3, top=0.6, mirrored=False)
    with Image.open(tmp_path / "a.jpg") as image:
        seen = ImageOps.exif_transpose(image)
        expected = np.asarray(seen.resize((32, 32), Image.Resampling.BILINEAR, box=crop.box(*seen.size)))
    actual = read_image(tmp_path / "a.jpg", Preparation(32, 3, 1.0), crop).permute(1, 2, 0).numpy()
    assert np.abs(actual.astype(int) - expected).max() <= 3


def test_an_orientation_behind_the_pixels_or_malformed(tmp_path):
    pixels = RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "late.png").write_bytes(png(pixels, after=chunk(b"eXIf", exif.tobytes()[6:])))
    assert np.array_equal(read(tmp_path / "late.png", 4), pixels[::-1, ::-1] // 257)
    (tmp_path / "bad.png").write_bytes(png(pixels, chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff")))
    assert np.array_equal(read(tmp_path / "bad.png", 4), pixels // 257)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_are_white(tmp_path, mode, channels):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3], pixels[2, :, 3] = 255, 128
    image = Image.fromarray(pixels)
    image = image.quantize(3) if mode == "PA" else image.convert(mode)
    image.save(tmp_path / "a.png")
    # Half transparent black over white is 127.
    rows = read(tmp_path / "a.png", 4, channels)[:, 0, 0].tolist()
    assert (rows[:2], rows[3]) == ([0, 0], 255)
    assert abs(rows[2] - 127) <= 1
    assert header_of(tmp_path / "a.png").mode == mode


def test_the_transparent_colour_of_a_png_or_gif_is_white(tmp_path):
    gray = np.array([[0, 7], [9, 255]], np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.png", transparency=7)
    assert read(tmp_path / "a.png", 2, 1)[..., 0].tolist() == [[0, 255], [9, 255]]
    Image.fromarray(gray).save(tmp_path / "a.gif", transparency=0)
    assert read(tmp_path / "a.gif", 2, 1)[0, 0, 0] == 255
    deep = np.array([[[5, 5, 5], [300, 300, 300]], [[65535, 0, 0], [0, 0, 0]]], np.uint16)
    (tmp_path / "deep.png").write_bytes(png(deep, chunk(b"tRNS", struct.pack(">HHH", 5, 5, 5))))
    assert read(tmp_path / "deep.png", 2).tolist() == [[[255] * 3, [1] * 3], [[255, 0, 0], [0] * 3]]
    (tmp_path / "gray.png").write_bytes(png(deep[..., :1], chunk(b"tRNS", struct.pack(">H", 0))))
    assert read(tmp_path / "gray.png", 2, 1)[..., 0].tolist() == [[0, 1], [255, 255]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_all_16_bits_count_in_colour_too(tmp_path, channels, top):
    pixels = RANDOM.integers(0, top + 1, (5, 5, channels), dtype=np.uint16)
    pixels[0, 0, 0] = top
    if channels in (2, 4):
        pixels[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png(pixels))
    header = header_of(tmp_path / "a.png")
    assert (header.low, header.peak) == (pixels[..., : 1 if channels < 3 else 3].min(), top)
    assert header.mode == {1: "I;16", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    colours = np.rint(pixels[..., : 1 if channels < 3 else 3] * (255 / top))
    assert np.array_equal(read(tmp_path / "a.png", 5, white=top), np.broadcast_to(colours, (5, 5, 3)))


@pytest.mark.parametrize("white", [1023, 4095, 16383, 65535])
def test_every_value_becomes_the_nearest_level(tmp_path, white):
    values = np.arange(65536).reshape(256, 256)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", 256, 1, white)[..., 0], np.rint(values * (255 / white)).clip(0, 255))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_tiff_in_colour(tmp_path, order, channels):
    pixels = RANDOM.integers(0, 256, (5, 5, channels), dtype=np.uint16)
    pixels[..., 3:] = 65535
    (tmp_path / "a.tif").write_bytes(tiff(pixels, order))
    assert header_of(tmp_path / "a.tif").peak == pixels[..., :3].max()
    assert np.array_equal(read(tmp_path / "a.tif", 5, white=255), pixels[..., :3])
    (tmp_path / "apart.tif").write_bytes(tiff(pixels, order, t284=2))
    with pytest.raises(Error, match="channels apart is not read; save it as PNG"):
        header_of(tmp_path / "apart.tif")


@pytest.mark.parametrize(("white", "scale"), [(1, 1 / 255), (255, 1)])
def test_floating_point_numbers(tmp_path, white, scale):
    pixels = RANDOM.integers(0, 256, (5, 5), dtype=np.uint8)
    pixels[0, 0] = 255
    Image.fromarray((pixels * scale).astype(np.float32)).save(tmp_path / "a.tif")
    header = header_of(tmp_path / "a.tif")
    assert (header.mode, header.peak) == ("F", white)
    assert np.array_equal(read(tmp_path / "a.tif", 5, 1, white)[..., 0], pixels)
    for other in (None, 65535):
        with pytest.raises(Error, match="floating-point numbers, which the network was not trained on"):
            read(tmp_path / "a.tif", 5, 1, other)
    Image.fromarray(pixels.astype(np.uint16)).save(tmp_path / "b.tif")
    with pytest.raises(Error, match="integers, which the network was not trained on"):
        read(tmp_path / "b.tif", 5, 1, 1)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[-1024, 3000]], np.int32), "negative pixel values, down to -1024"),
        (np.array([[-0.5, 1]], np.float32), "negative pixel values, down to -0.5"),
        (np.array([[np.nan, 1]], np.float32), "no finite numbers"),
        (np.array([[np.inf, 1]], np.float32), "no finite numbers"),
    ],
)
def test_values_without_a_meaning_as_gray_are_refused(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(Error, match=rf"a\.tif: cannot be read as an image \([^\n]*{message}"):
        header_of(tmp_path / "a.tif")


def test_colours_that_cannot_be_converted_are_refused(tmp_path):
    Image.new("LAB", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(Error, match="colours are of the kind LAB; save it as RGB"):
        header_of(tmp_path / "a.tif")


def test_colour_ppm_of_more_than_8_bits_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535\n" + bytes([0, 9, 0, 9, 0, 9]))
    with pytest.raises(Error, match="PPM in colour of more than 8 bits is not read; save it as PNG"):
        header_of(tmp_path / "a.ppm")


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_the_first_of_several_frames_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), (level,) * 3) for level in (0, 255)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert header_of(tmp_path / f"a.{suffix}").frames == 2
    assert read(tmp_path / f"a.{suffix}", 4).max() == 0
    frames[0].save(tmp_path / f"b.{suffix}")
    assert header_of(tmp_path / f"b.{suffix}").frames == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm", "jp2", "avif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_format_is_read(tmp_path, suffix, mode):
    Image.new(mode, (8, 8), 200 if mode == "L" else (200,) * 3).save(tmp_path / f"a.{suffix}")
    assert abs(int(read(tmp_path / f"a.{suffix}", 8).mean()) - 200) <= 1
    assert (header_of(tmp_path / f"a.{suffix}").width, header_of(tmp_path / f"a.{suffix}").peak) == (8, None)


@pytest.mark.parametrize("suffix", ["png", "jpg", "eps"])
@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"\xd7\xcd\xc6\x9a" + bytes(18) + b"\x01\x00\x09\x00" + bytes(40),
        bytes([0, 0, 2]) + bytes(9) + struct.pack("<HH", 4, 4) + bytes([24, 0]) + bytes(48),
    ],
    ids=["EPS", "WMF", "TGA"],
)
def test_other_formats_are_refused_and_no_program_is_started(tmp_path, monkeypatch, suffix, content):
    def started(*args, **options):
        raise AssertionError(f"a program was started: {args}")

    for name in ("Popen", "call", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, started)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    for function in (header_of, lambda path: read(path, 8)):
        with pytest.raises(Error, match=rf"^[^\n]*a\.{suffix}: cannot be read as an image \([^\n]*none of JPEG, PNG"):
            function(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(Error, match=rf"{name}: cannot be read as an image \(it is no regular file\)"):
            header_of(tmp_path / name)


def test_control_characters_of_a_name_are_not_printed(tmp_path):
    path = tmp_path / "a\x1b[2J\n.png"
    path.write_bytes(b"no image")
    with pytest.raises(Error) as caught:
        header_of(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm", "jp2", "avif"])
def test_damage_is_one_line(tmp_path, suffix):
    whole = io.BytesIO()
    image = Image.fromarray(RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    image.save(whole, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix))
    content = whole.getvalue()
    path = tmp_path / f"a.{suffix}"
    random = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(content[: random.integers(1, len(content))] if random.random() < 0.5 else content)
        for place in random.integers(0, min(len(damaged), 200), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        for function in (header_of, lambda path: read(path, 8)):
            message = None
            try:
                function(path)
            except Error as error:
                message = str(error)
            assert message is None or (f"a.{suffix}: " in message and message.isprintable())
