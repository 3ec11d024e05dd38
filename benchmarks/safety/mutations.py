"""Changes of files, chosen by hypothesis: of bytes, of the records of an archive, and of plain data."""

from __future__ import annotations

import copy
import io
import zipfile
from random import Random
from typing import Any

import torch
from hypothesis import strategies as st

# Bytes that mean something to many formats: lengths, ends, marks, quotes, numbers.
WORDS = (
    *(b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x00", b"\x01"),
    *(b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x00\x10\x00\x00", b"\x40\x00\x00\x00\x00\x00\x00\x00"),
    *(b"\n", b"\r", b'"', b"'", b"{", b"}", b"[", b"]" * 50, b"[" * 2000, b"\\u0000", b"../", b"/dev/zero", b"\x1b[2J"),
    *(b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"NaN", b"Infinity", b"0x", b"null", b"true", b"%s%n", b"\xe2\x80\xae"),
    *(b"cos\nsystem\n(Utrue\ntR.", b"c__builtin__\neval\n", b"R", b"b", b"(", b"t", b"."),
    *(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"RIFF",
    ),
)

# Values that a checkpoint, a record or a recipe does not expect.
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.0,
        float("nan"),
        float("inf"),
        "",
        "x",
        "a" * 5000,
        "\x1b[2J\n",
    ),
    *("../../etc", "timm:vit_giant_patch14_clip_224", "hf-hub:x/y", b"", b"x", [], {}, (), [1] * 50, {"a": {"b": []}}),
    *([[[[[[]]]]]], {"": ""}, (5000, 5000), "folder:/dev", "kdtool", "digits", "\u202e"),
)


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Return content with one to six changes."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        size = len(data)
        place = draw(st.integers(0, max(0, size - 1)))
        match draw(st.sampled_from(["bit", "byte", "word", "insert", "remove", "repeat", "cut", "move"])):
            case "bit" if size:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "byte" if size:
                data[place] = draw(st.integers(0, 255))
            case "word":
                word = draw(st.sampled_from(WORDS))
                data[place : place + len(word)] = word
            case "insert":
                data[place:place] = draw(st.sampled_from(WORDS))
            case "remove":
                del data[place : place + draw(st.integers(1, 64))]
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 64))] * draw(st.sampled_from([1, 2, 50]))
            case "cut":
                del data[place:]
            case "move":
                part = data[place : place + draw(st.integers(1, 64))]
                target = draw(st.integers(0, max(0, size - 1)))
                data[target : target + len(part)] = part
    return bytes(data)


@st.composite
def changed_archive(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a zip archive in which the content of one record is changed, and its checksum is right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = draw(st.sampled_from([*records, *(name for name in records if name.endswith(".pkl"))]))
    records[name] = draw(changed_bytes(records[name]))
    if draw(st.integers(0, 9)) == 0:
        records.pop(draw(st.sampled_from(list(records))))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    return made.getvalue()


def changed_data(value: Any) -> st.SearchStrategy[Any]:
    """Return plain data in which one to three entries are changed, removed or added."""
    return st.integers(0, 2**40).map(lambda number: _changed(value, Random(number)))


def _changed(value: Any, random: Random) -> Any:
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        value = _change(random, value)
    return value


def _change(random: Random, value: Any) -> Any:
    keys: list[Any] = []
    if isinstance(value, dict | list | tuple):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys or random.random() < 0.15:
        return _other(random, value)
    inner = value if isinstance(value, dict | list) else list(value)
    key = random.choice(keys)
    match random.choice(["into", "into", "into", "into", "remove", "add"]):
        case "into":
            inner[key] = _change(random, inner[key])
        case "remove":
            del inner[key]
        case "add" if isinstance(inner, dict):
            inner[random.choice(["x", "", 3, "weights", "__class__", "\x1b["])] = copy.deepcopy(random.choice(VALUES))
        case "add" if isinstance(inner, list):
            inner.insert(key, copy.deepcopy(random.choice(VALUES)))
    return type(value)(inner) if isinstance(value, tuple) else inner


def _other(random: Random, value: Any) -> Any:
    if isinstance(value, torch.Tensor) and random.random() < 0.5:
        shape = random.choice([(), (0,), (1,), (3, 5), (1, 1, 1, 1), (200_000,), (64, 3, 7, 7)])
        return torch.zeros(shape, dtype=random.choice([torch.float32, torch.float16, torch.int64, torch.bool]))
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.5:
        return value * random.choice([-1, 0, 2, 3, 1000, 2**20, 2**40]) + random.randint(-1, 1)
    return copy.deepcopy(random.choice(VALUES))
