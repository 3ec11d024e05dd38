"""The idx format of MNIST's files: two zero bytes, a type, the number of axes, their lengths, the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from kdtool import Error

if TYPE_CHECKING:
    from torch import Tensor

UNSIGNED_BYTES = 8


def read_idx(path: Path, axes: int) -> Tensor:
    """Return the values of an idx file, or of the same file with .gz, as a uint8 tensor of ``axes`` dimensions.

    Raises:
        kdtool.Error: the file is missing or damaged, or has another number of axes.
    """
    import torch

    try:
        content = _content(path)
    except (OSError, EOFError, zlib.error) as error:
        raise Error(f"{path}: cannot be read ({error})") from error
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
        raise Error(f"{path}: not an idx file of unsigned bytes with {axes} axes; download it again")
    shape = struct.unpack(f">{axes}I", content[4:header])
    if len(content) - header != math.prod(shape) or not math.prod(shape):
        raise Error(
            f"{path}: should hold {math.prod(shape)} values but holds {len(content) - header}; download it again"
        )
    # A bytearray, because torch warns about memory that it cannot write to.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(shape)


def _content(path: Path) -> bytes:
    """Return the bytes of a file, or the unpacked bytes of the same file with .gz."""
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and packed.is_file():
        return gzip.decompress(packed.read_bytes())
    if not path.is_file():
        raise Error(f"there is no {path}; unpack the data set again, or download it with --download")
    return path.read_bytes()
