"""Pickles of plain arrays: as Python reads them, but nothing that they name is called, and nothing is believed."""

import pickle
import re
import struct
import time

import numpy as np
import psutil
import pytest

from kdtool import Error
from kdtool_datasets import plain_pickle
from kdtool_datasets.plain_pickle import read_pickle


@pytest.fixture
def file(tmp_path):
    return tmp_path / "batch"


def read(file, content):
    file.write_bytes(content)
    return read_pickle(file)


def refusal(file, content):
    started, before = time.process_time(), psutil.Process().memory_info().rss
    with pytest.raises(Error) as raised:
        read(file, content)
    assert time.process_time() - started < 10  # 3 where nothing else runs
    assert psutil.Process().memory_info().rss - before < 1 << 28
    return str(raised.value)


ARRAYS = {
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "every byte": np.arange(256, dtype=np.uint8),
    "long": np.arange(3, dtype=">i8"),
    "floats": np.linspace(0, 1, 5, dtype=np.float32),
    "empty": np.zeros((0, 3), np.uint8),
}
PLAIN = {"labels": [1, 2, 300, -5, 10**12], "text": "caf\u00e9", "none": None, "flags": (True, False), "number": 0.5}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_reads_what_python_reads(file, protocol):
    content = pickle.dumps({**ARRAYS, **PLAIN, "bytes too": b"\x00\xff"}, protocol)
    meant, found = pickle.loads(content, encoding="latin1"), read(file, content)
    assert list(found) == list(meant)
    for name in ARRAYS:
        assert found[name].dtype.newbyteorder("=") == meant[name].dtype.newbyteorder("=")
        assert np.array_equal(found[name], meant[name])
    assert {name: found[name] for name in PLAIN} == PLAIN
    assert found["bytes too"] == b"\x00\xff"


def array(shape=b"K\x02\x85", code=b"U\x02u1", content=b"U\x02ab", order=b"\x89"):
    """Return a pickle of an array as Python 2 wrote it, from its parts."""
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ"
        b"\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb" + order + content + b"tbs."
    )


def test_an_array_from_its_parts(file):
    assert read(file, array())["data"].tobytes() == b"ab"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        # Each of these makes numpy's own constructors read or write outside of the array, or take all memory.
        (array(shape=b"K\x09\x85"), "more or fewer numbers"),
        (array(shape=b"J\xff\xff\xff\x7f\x85"), "more or fewer numbers"),
        (array(shape=b"J\xfe\xff\xff\xff\x85"), "an array is malformed"),
        (array(shape=b"U\x01x\x85"), "an array is malformed"),
        (array(shape=b"]"), "an array is malformed"),
        (array(shape=b"(" + b"K\x01" * 40 + b"t"), "an array is malformed"),
        (array(code=b"U\x02O8"), "an array holds no numbers"),
        (array(code=b"U\x07V999999"), "an array holds no numbers"),
        (array(code=b"U\x03U99"), "an array holds no numbers"),
        (array(code=b"K\x01"), "an array holds no numbers"),
        (array(content=b"]"), "more or fewer numbers"),
        (array(content=b"N"), "more or fewer numbers"),
        (array().replace(b"tbs.", b"ts."), "it is damaged"),
        (array().replace(b"tbs.", b"t0s."), "an array has no content"),
        (b"\x80\x02}U\x01acnumpy\ndtype\nU\x02u1\x85R}b0.", "it is damaged|holds"),
        # The codec takes time that grows with the square of the length.
        (pickle.dumps({"a": 1}).replace(b"K\x01", b"c_codecs\nencode\nX" + struct.pack("<I", 300_000) + b"a" * 300_000
         + b"X\x04\x00\x00\x00idna\x86R"), "it would run _codecs.encode"),
        (b"c_codecs\nencode\nU\x01aU\x03hex\x86R.", "it would run _codecs.encode"),
        # Python's unpickler takes memory for every place below this one.
        (b"}r\xff\xff\xff\xff0.", "Error|damaged|list index"),
        (b"}j\xff\xff\xff\xff.", "4294967295"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"ab.", "only 3 remain"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"ab.", "only 3 remain"),
        (b"L" + b"9" * 100_000 + b"L\n.", "Exceeds the limit"),
        (b"}(" + b"".join(b"\x8a\x09" + (k * (2**61 - 1)).to_bytes(9, "little") + b"N" for k in range(1000)) + b"u.",
         "other keys than a few names"),
        (b"}(" + b"".join(b"X\x04\x00\x00\x00%04dN" % k for k in range(1000)) + b"u.", "other keys than a few names"),
        (b"(" * 10 + b".", "holds|damaged"),
        (b"a.", "list index|damaged|pop from"),
        (b"R.", "pop from"),
        (b"b.", "pop from"),
        (b"cos\nsystem\n(U\x02lstR.", "it would run os.system"),
        (b"\x80\x02cos\nsystem\n)\x81.", "it would run os.system"),
        (b"cx\x1b[\ny\x00\n.", r"it would run x\?\[\.y\?"),
        (b"P1\n.", "the instruction PERSID"),
        (b"\x82\x01.", "the instruction EXT1"),
        (b"(ios\nsystem\n.", "the instruction INST"),
    ],
)  # fmt: skip
def test_what_is_no_plain_array_is_refused(file, content, says):
    message = refusal(file, content)
    assert message.startswith(f"{file}: ")
    assert re.search(says, message), message
    assert message.isprintable()


def test_the_number_of_instructions_and_of_bytes_is_bounded(file, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MOST_INSTRUCTIONS", 1000)
    assert "too many instructions" in refusal(file, b"N0" * 1000 + b".")
    monkeypatch.setattr(plain_pickle, "LARGEST", 1000)
    assert "larger than" in refusal(file, b"N0" * 1000 + b".")
