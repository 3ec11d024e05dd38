"""Checks of devices, data and weights that need no torch: a mistake is seen at once, not after seconds of imports."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError
from kdtool.exporting.providers import PROVIDERS
from kdtool.plugins.network_spec import qualified, source_of

# The files of the drivers of GPUs that torch calls cuda: NVIDIA's (also in WSL and on Jetson) and AMD's.
GPU_FILES = ("/dev/nvidia*", "/dev/dxg", "/dev/nvhost*", "/dev/nvmap", "/dev/kfd")

DEVICE = re.compile(r"(auto|cpu|mps|cuda)(:\d+)?")


def check_early(options: Mapping[str, Any]) -> None:
    """Check the device and the path of the images among the options of a command.

    Raises:
        UsageError: this machine has no such device for sure.
        Error: there is no folder at the path.
    """
    device = options.get("device")
    if device is not None and not _may_exist(device):
        raise UsageError(f"--device {device}: there is no such device here; try auto or cpu")
    for name in ("data", "unlabelled"):
        if options.get(name) is not None:
            _check_data(options[name], options.get("data_dir"))


def check_weights(spec: str, *, pretrained: bool) -> None:
    """Check that the weights of ``SOURCE:NAME`` may be had, if they are asked for or belong to the name.

    Raises:
        Error: they are not on this machine, and the server cannot be reached.
    """
    from kdtool.models.names import known
    from kdtool.plugins.registry import method_class

    source, network = source_of(spec), qualified(spec).partition(":")[2].partition(",")[0]
    cls: Any = method_class("teachers", source)
    names = known(source)
    exists = not names or network.partition(".")[0] in names  # else another error says so
    if exists and (pretrained or cls.brings_weights):
        cls.check_weights(network)


def check_latency(options: Mapping[str, Any]) -> None:
    """Check ``--provider`` and the file of ``--latency-from`` among options; this may import onnxruntime.

    Raises:
        UsageError: onnxruntime has no such provider here, or the file cannot be read.
        Error: the file holds no measurements.
    """
    if options.get("latency_from") is not None:
        from kdtool.exporting.measurement import read_measurements

        read_measurements(options["latency_from"])
    if options.get("provider") in PROVIDERS and options.get("latency", True):
        from kdtool.exporting.sessions import check_provider

        check_provider(options["provider"])


def _may_exist(device: str) -> bool:
    match = DEVICE.fullmatch(device)
    if match is None:
        return ":" in device or device in ("xpu", "hpu", "xla", "meta", "mtia", "ipu", "vulkan")  # torch knows
    if match[1] == "mps":
        return sys.platform == "darwin"
    if match[1] == "cuda" and sys.platform == "linux":
        return any(glob.glob(pattern) for pattern in GPU_FILES)
    return True


def _check_data(text: str, data_dir: str | Path | None) -> None:
    from kdtool.plugins.registry import method_class

    name, _, argument = text.partition(":")
    cls: Any = method_class("datasets", name)
    find = getattr(cls, "find", None)
    if not argument or find is None:
        return
    directory = data_dir or os.environ.get("KDTOOL_DATA")
    try:
        find(argument, Path(directory).expanduser() if directory else None)
    except Error as error:
        raise type(error)(f"{name}: {error}") from error
