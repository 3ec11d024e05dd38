"""Data sets that are attacked: Parquet files, shards of WebDataset and tables, opened and read to the last image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from benchmarks.safety.mutations import changed_bytes, changed_data
from benchmarks.safety.target import Target, of_seeds, of_values

BLOCK = 512
"""Bytes of a header of a tar."""

CHECKSUM = slice(148, 156)
"""Where the header has its checksum: the sum of its bytes, with spaces in this place (POSIX.1-1988)."""


def picture(shade: int, form: str = "PNG") -> bytes:
    """Return an image of one shade."""
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(content, form)
    return content.getvalue()


def opened(path: Path, kind: str) -> None:
    """Open a data set as a training does, and read all images."""
    from kdtool.data.opening import open_data
    from kdtool.data.options import DataOptions

    data = open_data(DataOptions(data=f"{kind}:{path}", augment="none"))
    for split in (data.train, data.val, data.test):
        for _ in split.batches(64) if split is not None else ():
            pass


def parquet(path: Path) -> None:
    """Open a Parquet file."""
    opened(path, "parquet")


def webdataset(path: Path) -> None:
    """Open a shard of WebDataset."""
    opened(path, "webdataset")


def table(path: Path) -> None:
    """Open a list of files and labels."""
    opened(path, "csv")


COLUMNS: dict[str, Any] = {
    "image": [{"bytes": picture(10 * row), "path": f"{row}.png"} for row in range(12)],
    "label": [row % 3 for row in range(12)],
}

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}


def as_parquet(content: tuple[Any, Any, Any]) -> bytes:
    """Return a Parquet file with columns, what its metadata say of them, and the options of its writer.

    What pyarrow does not take as a column is left out.
    """
    import pyarrow
    import pyarrow.parquet

    columns, features, number = content
    random, made = Random(number), {}
    for name, values in columns.items() if isinstance(columns, dict) else ():
        try:
            made[str(name)] = pyarrow.array(values if isinstance(values, list) else [values] * 12)
        except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
            continue
    length = min((len(array) for array in made.values()), default=0)
    whole = pyarrow.table({name: array.slice(0, length) for name, array in made.items()})
    about = json.dumps({"info": {"features": features}}, default=repr, skipkeys=True)
    stream = io.BytesIO()
    options = {
        **{"compression": random.choice(["none", "snappy", "gzip", "zstd", "brotli"])},
        **{"use_dictionary": random.random() < 0.5, "data_page_version": random.choice(["1.0", "2.0"])},
        **{"row_group_size": random.choice([1, 5, 12]), "store_schema": random.random() < 0.7},
    }
    try:
        pyarrow.parquet.write_table(whole.replace_schema_metadata({"huggingface": about}), stream, **options)
    except (pyarrow.ArrowException, OSError):  # it writes no column without fields
        return b"PAR1"
    return stream.getvalue()


def parquet_tables() -> st.SearchStrategy[bytes]:
    """Return Parquet files of changed tables."""
    columns = st.one_of(st.just(COLUMNS), changed_data(COLUMNS))
    return st.tuples(columns, st.one_of(st.just(FEATURES), changed_data(FEATURES)), st.integers(0, 999)).map(as_parquet)


MEMBERS = [
    [name, content, "0"]
    for row in range(8)
    for name, content in (
        (f"train/{row:03}.png", picture(10 * row)),
        (f"train/{row:03}.cls", b"%d" % (row % 2)),
        (f"train/{row:03}.json", json.dumps({"label": row % 2, "caption": "x"}).encode()),
    )
]
"""Of each file of a tar its name, its content and its type, as a header has it."""


def as_tar(members: Any) -> bytes:
    """Return a tar; what is no member of one is left out."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members if isinstance(members, list) else ():
            if not isinstance(member, list) or len(member) != 3 or not isinstance(member[0], str):
                continue
            content = member[1] if isinstance(member[1], bytes) else repr(member[1]).encode()
            header = tarfile.TarInfo(member[0])
            header.size, header.linkname = len(content), "/etc/passwd"
            if isinstance(member[2], str) and member[2][:1].isascii():
                header.type = member[2][:1].encode() or b"\0"
            try:
                tar.addfile(header, io.BytesIO(content))
            except (ValueError, UnicodeError):  # it has no form for such a name
                continue
    return stream.getvalue()


@st.composite
def changed_headers(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a tar in which one to three headers are changed, and their checksums are right again."""
    data = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        places = [member.offset for member in tar]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        header = bytearray(draw(changed_bytes(bytes(data[place : place + BLOCK]))).ljust(BLOCK, b"\0")[:BLOCK])
        header[CHECKSUM] = b" " * 8
        header[CHECKSUM] = b"%06o\0 " % sum(header)
        data[place : place + BLOCK] = header
    return bytes(data)


TABLE = b"file,label,split\n" + b"".join(b"%d.png,%s,train\n" % (row, b"ab"[row % 2 :][:1]) for row in range(8))


def data_targets() -> list[Target]:
    """Return the data sets that are attacked."""
    plain, tar = as_parquet((COLUMNS, FEATURES, 0)), as_tar(MEMBERS)
    packed = [as_parquet((COLUMNS, FEATURES, number)) for number in range(6)]
    images = {f"{row}.png": picture(20 * row) for row in range(8)}
    return [
        Target("Parquet: bytes", "d.parquet", of_seeds([plain, *packed], changed_bytes), parquet, [plain, *packed]),
        Target("Parquet: tables", "d.parquet", parquet_tables(), parquet, [plain]),
        Target("WebDataset: bytes", "d.tar", changed_bytes(tar), webdataset, [tar]),
        Target("WebDataset: headers", "d.tar", changed_headers(tar), webdataset, [tar]),
        Target("WebDataset: members", "d.tar", of_values([MEMBERS]).map(as_tar), webdataset, [tar]),
        Target("tables of images", "d.csv", changed_bytes(TABLE), table, [TABLE], beside=images),
    ]
