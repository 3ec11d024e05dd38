"""Networks of other sources, for the commands that are killed: one of the Hub, in its cache, and one of own code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

HUB, COMMIT = "anna/small", "1" * 40

CODE = """from torch import nn


def make(classes, in_channels=1, image_size=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, 16), nn.ReLU(), nn.Linear(16, classes))
"""


def write_sources(folder: Path) -> None:
    """Write a cache of huggingface_hub with a network of timm for the digits, and a module with a function."""
    import timm
    import torch
    from timm.models._hub import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10)
    repository = folder / "hub" / f"models--{HUB.replace('/', '--')}"
    config = {"label_names": [str(digit) for digit in range(10)], "pretrained_cfg": {"input_size": (3, 32, 32)}}
    save_for_hf(network, repository / "snapshots" / COMMIT, model_config=config, safe_serialization=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (folder / "code").mkdir()
    (folder / "code" / "ownnets.py").write_text(CODE)


@contextlib.contextmanager
def sources(folder: Path) -> Iterator[None]:
    """Let the commands of this process and its forks find, and trust, what `write_sources` wrote."""
    from huggingface_hub import constants

    from kdtool.plugins.trust import VARIABLE

    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE, os.environ.get(VARIABLE)
    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(folder / "hub"), True
    os.environ[VARIABLE] = str(folder / "code" / "ownnets.py")
    sys.path.append(str(folder / "code"))
    try:
        yield
    finally:
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE, trusted = before
        os.environ.pop(VARIABLE)
        sys.path.remove(str(folder / "code"))
        if trusted is not None:
            os.environ[VARIABLE] = trusted
