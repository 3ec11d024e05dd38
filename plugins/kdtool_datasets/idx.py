"""The idx format of MNIST's files: two zero bytes, a type, the number of axes, their lengths, the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from kdtool import Error

if TYPE_CHECKING:
    from torch import Tensor

UNSIGNED_BYTES = 8

# The images of MNIST have 47 million values. A packed file of a few bytes may claim any number.
LARGEST = 1 << 28


def read_idx(path: Path, axes: int) -> Tensor:
    """Return the values of an idx file, or of the same file with .gz, as a uint8 tensor of ``axes`` dimensions.

    Raises:
        kdtool.Error: the file is missing or damaged, or has another number of axes.
    """
    import torch

    header = 4 + 4 * axes
    try:
        with _opened(path) as file:
            head = file.read(header)
            if len(head) < header or head[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
                raise Error(f"{path}: not an idx file of unsigned bytes with {axes} axes; download it again")
            shape = struct.unpack(f">{axes}I", head[4:])
            count = math.prod(shape)
            if count > LARGEST:
                raise Error(f"{path}: claims to hold {count:,} values; at most {LARGEST:,} are read")
            # One byte more, to see whether the file ends there.
            content = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Error(f"{path}: cannot be read ({error}); download it again") from error
    if len(content) != count or not count:
        held = f"more than {count}" if len(content) > count else str(len(content))
        raise Error(f"{path}: should hold {count} values but holds {held}; download it again")
    # A bytearray, because torch warns about memory that it cannot write to.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)


def _opened(path: Path) -> IO[bytes]:
    """Open a file, or the same file with .gz, which is unpacked while it is read."""
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and packed.is_file():
        return cast(IO[bytes], gzip.open(packed, "rb"))
    if not path.is_file():
        raise Error(f"there is no {path}; unpack the data set again, or download it with --download")
    return path.open("rb")
