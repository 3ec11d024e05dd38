"""Fixtures that many tests share: the digits, and a network that trains on them in a second."""

import atexit
import functools
import gc
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import traceback

# As the command line does: threads that wait actively slow down a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The number of threads that is fastest changes with the load, and results change with it in the last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The index of image files is not written to the user's cache directory.
os.environ["KDTOOL_CACHE"] = tempfile.mkdtemp(prefix="kdtool-cache-")
atexit.register(shutil.rmtree, os.environ["KDTOOL_CACHE"], ignore_errors=True)
# Nor are the packages that the user trusts read or changed.
os.environ["KDTOOL_CONFIG"] = os.environ["KDTOOL_CACHE"] + "/config"
os.environ.pop("KDTOOL_TRUST", None)

import pytest

# The process that only distributes the tests reads this file too, so that torch is imported in fixtures.
import kdtool


def pytest_make_parametrize_id(config, val, argname):
    """Name a long value by its argument: the lowest pytest takes all of it for the name, which may be gigabytes."""
    return argname if isinstance(val, str | bytes) and len(val) > 200 else None


def pytest_collection_finish():
    _freeze()


def pytest_runtest_teardown(item, nextitem):
    _keep_operators()
    if nextitem is None or nextitem.path != item.path:
        _freeze()


def _keep_operators():
    """Let torch make its table of the operators of ONNX once: it takes half of the time of exporting a small network.

    Nothing is imported here, so that only what exports a network pays for it. The table is made again where torch knows
    more operators than before; kdtool adds none of its own to it.
    """
    registry = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "ONNXRegistry", None)
    make = getattr(registry, "from_torchlib", None)
    if make is None or hasattr(make, "kept"):
        return
    names = sys.modules["torch"]._C._dispatch_get_all_op_names
    kept = functools.cache(lambda operators, about, more: make(*about, **dict(more)))

    def from_torchlib(*about, **more):
        return kept(len(names()), about, tuple(more.items()))

    from_torchlib.kept = kept
    registry.from_torchlib = staticmethod(from_torchlib)


def _freeze():
    """Leave the modules and tests that stay to the end out of later garbage collections, which take long otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def digits():
    """The digits at their own size, without augmentation."""
    from kdtool.data.opening import open_data
    from kdtool.data.options import DataOptions

    return open_data(DataOptions(data="digits", augment="none"))


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory):
    """A trained LeNet-300-100 on the digits."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    kdtool.teacher("kdtool:lenet-300-100", data="digits", epochs=3, output=path)
    return path


@pytest.fixture
def in_processes():
    """A function that calls a function in ``count`` processes that train together, and returns their exit codes.

    The processes are forks of this one, so that they have its imports: a function that runs in them may be any. It gets
    no argument; an exception gives the exit code 1 and is printed.
    """
    # Each fork would import them otherwise; DistributedDataParallel takes torch's compiler.
    import accelerate.utils  # noqa: F401
    import torch._dynamo  # noqa: F401

    def call(function, count=2, seconds=120, **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def child(rank):
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os.environ.update(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), TORCH_CPP_LOG_LEVEL="ERROR")
            os.environ.update(environment)
            code = 0
            try:
                function()
            except BaseException:
                traceback.print_exc()
                code = 1
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

        forks = [multiprocessing.get_context("fork").Process(target=child, args=(rank,)) for rank in range(count)]
        for fork in forks:
            fork.start()
        for fork in forks:
            fork.join(seconds)
        codes = [fork.exitcode for fork in forks]
        for fork in forks:
            fork.kill()
        return codes

    return call
