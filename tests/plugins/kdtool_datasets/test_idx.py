"""The idx format: no more is read than the header says, and no more than there can be."""

import gzip
import struct

import psutil
import pytest
import torch

from kdtool import Error
from kdtool_datasets.idx import LARGEST, read_idx


def header(*shape):
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_read_packed_and_unpacked(tmp_path, packed):
    content = header(2, 3) + bytes(range(6))
    (tmp_path / ("x.gz" if packed else "x")).write_bytes(gzip.compress(content) if packed else content)
    assert torch.equal(read_idx(tmp_path / "x", 2), torch.arange(6, dtype=torch.uint8).view(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(LARGEST + 1), "claims to hold 268,435,457 values; at most 268,435,456 are read"),
        (header(2**31, 2**31), "claims to hold 4,611,686,018,427,387,904 values"),
        (header(10) + bytes(1 << 28), "should hold 10 values but holds more than 10"),
        (header(10) + bytes(3), "should hold 10 values but holds 3"),
        (header(0), "should hold 0 values"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bomb_is_not_unpacked(tmp_path, content, message, packed):
    axes = content[3]
    if packed:
        (tmp_path / "x.gz").write_bytes(gzip.compress(content, 1))
    else:
        (tmp_path / "x").write_bytes(content)
    before = psutil.Process().memory_info().rss
    with pytest.raises(Error, match=message):
        read_idx(tmp_path / "x", axes)
    assert psutil.Process().memory_info().rss - before < 64 << 20
