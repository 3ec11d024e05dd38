"""Images of few bytes and many pixels, about as many as are read and more."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

SIDES = (64, 1000, 4000, 5700, 8100, 8300)
"""Pixels of a side, up to a little more than is read."""

KINDS = [(0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)]
"""Types of colours of a PNG (ISO/IEC 15948), and bits per channel."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""How many channels a PNG has by its type of colours."""

SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("RGB", "JPEG", {"progressive": True}),
    ("RGBA", "WEBP", {"method": 0}),
    ("RGB", "JPEG2000", {}),
    ("RGB", "AVIF", {"speed": 10}),
    ("P", "GIF", {}),
    ("F", "TIFF", {"compression": "tiff_lzw"}),
    ("CMYK", "TIFF", {"compression": "packbits"}),
)
"""Images that Pillow writes: their mode, their format and its options."""


def large_image(path: Path) -> None:
    """Read an image as a training does."""
    from kdtool.data.image_files import read_image
    from kdtool.data.image_formats import header_of
    from kdtool.data.preparation import Preparation

    header_of(path)
    read_image(path, Preparation(224, 3, 0.875, "bilinear", 255))


def large_png(side: int, colours: int, bits: int) -> bytes:
    """Return a PNG of zeros."""
    rows = zlib.compressobj(1)
    row = bytes(1 + side * CHANNELS[colours] * bits // 8)
    parts = [rows.compress(row) for _ in range(side)]
    head = struct.pack(">IIBBBBB", side, side, bits, colours, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"PLTE", bytes(3)), (b"IDAT", b"".join(parts) + rows.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
        if name != b"PLTE" or colours == 3
    )


def large_file(side: int, mode: str, form: str, options: dict[str, Any]) -> bytes:
    """Return a black image."""
    content = io.BytesIO()
    Image.new(mode, (side, side)).save(content, form, **options)
    return content.getvalue()


def large_images() -> st.SearchStrategy[bytes]:
    """Return images of any side."""
    sides = st.sampled_from(SIDES)
    return st.one_of(
        st.builds(lambda side, kind: large_png(side, *kind), sides, st.sampled_from(KINDS)),
        st.builds(lambda side, kind: large_file(side, *kind), sides, st.sampled_from(SAVED)),
    )
