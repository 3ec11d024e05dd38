"""Fixtures that many tests share: the digits, and a network that trains on them in a second."""

import atexit
import os
import shutil
import tempfile

# As the command line does: threads that wait actively slow down a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The number of threads that is fastest changes with the load, and results change with it in the last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The index of image files is not written to the user's cache directory.
os.environ["KDTOOL_CACHE"] = tempfile.mkdtemp(prefix="kdtool-cache-")
atexit.register(shutil.rmtree, os.environ["KDTOOL_CACHE"], ignore_errors=True)

import pytest

import kdtool
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions


@pytest.fixture(scope="session")
def digits():
    """The digits at their own size, without augmentation."""
    return open_data(DataOptions(data="digits", augment="none"))


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory):
    """A trained LeNet-300-100 on the digits."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    kdtool.teacher("kdtool:lenet-300-100", data="digits", epochs=3, output=path)
    return path
