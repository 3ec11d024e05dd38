"""What training scripts save beside weights is read without running anything."""

import argparse
import collections
import datetime
import decimal
import fractions
import pathlib
import pickle
import random
import types
import uuid

import numpy as np
import pytest
import torch

from kdtool import Error
from kdtool.utils.stand_ins import plain
from kdtool.utils.tensor_files import safe_load

NAMESPACE = argparse.Namespace(path=pathlib.Path("/data"), lr=np.float32(0.1))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def read(value, file, *, zipped=True):
    torch.save({"value": value, "weight": torch.ones(2)}, file, _use_new_zipfile_serialization=zipped)
    content = safe_load(file, foreign=True)
    assert torch.equal(content["weight"], torch.ones(2))
    return plain(content["value"])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        *(
            np.float64(81.2),
            np.float32(0.5),
            np.float16(1),
            np.int64(-3),
            np.uint8(200),
            np.bool_(True),
            np.str_("Änte"),
        ),
        *(np.arange(3), np.array(["cat", "Änte"]), np.array(["cat", "dog"], dtype=object)),
        np.array([1.5], dtype=">f8"),
    ],
)
def test_numbers_and_texts_of_numpy(value, zipped, file):
    assert read(value, file, zipped=zipped) == value.tolist()


@pytest.mark.parametrize(
    "value",
    [
        *(pathlib.PurePosixPath("/x"), datetime.datetime(2024, 1, 1), datetime.datetime.now(datetime.UTC)),
        *(datetime.timedelta(1), decimal.Decimal(1), fractions.Fraction(1, 2), uuid.UUID(int=1), NAMESPACE),
        *(types.SimpleNamespace(a=1), frozenset([1]), np.dtype("f4"), np.float64, np.zeros((2, 2))),
        *(np.random.RandomState(0), np.random.default_rng(0), np.datetime64("2020-01-01"), torch.__version__),
        *(np.random.get_state(), random.getstate(), collections.Counter("ab")),
    ],
)
def test_other_objects_are_passed_over(value, file):
    read(value, file)


def test_containers_become_plain_ones(file):
    assert read(collections.defaultdict(list, a=[1]), file) == {"a": [1]}
    assert read(collections.deque([1, 2], 5), file) == [1, 2]


@pytest.mark.parametrize("value", [NAMESPACE, np.float64(1)])
def test_a_file_of_kdtool_has_none_of_them(value, file):
    torch.save({"value": value}, file)
    with pytest.raises(Error, match="a pickled object"):
        safe_load(file)


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Call(np.load, "there.npy"),
        Call(np.fromfile, "there"),
        Call(pathlib.Path.unlink, pathlib.Path("there")),
        Call(pickle.loads, b""),
        Call(eval, "1"),
        Call(np.zeros, 10**12),
    ],
)
def test_functions_are_neither_called_nor_known(value, file):
    torch.save({"value": value, "weight": torch.ones(1)}, file)
    with pytest.raises(Error, match="a pickled object|cannot be read"):
        safe_load(file, foreign=True)


def test_sizes_in_a_file_take_no_memory(file):
    """numpy itself would allocate what the type says."""
    for value in (Call(np._core.multiarray.scalar, np.dtype("V2000000000")), Call(range, 10**12)):
        read(value, file)
    kind = np.dtype("U1000000")
    assert not isinstance(read(Call(np._core.multiarray.scalar, kind, b"a" * 4), file), str)
