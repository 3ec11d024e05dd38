"""Describe checkpoints by what a release has to keep: their weights, outputs, metrics and history.

Run once, by the release that made them, from the repository of this file:

    python tests/compatibility/record.py tests/compatibility/data/*.pt > tests/compatibility/data/expected.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import kdtool

try:
    from kdtool.models.checkpoint import fingerprint
except ImportError:  # the releases before the core was split into packages
    from kdtool.checkpoint import fingerprint  # type: ignore[no-redef,import-not-found]

IMAGES = 4


def images(shape: tuple[int, ...]) -> torch.Tensor:
    """Return a batch [4, channels, height, width] in -1..1, from integers alone, so the same on every machine."""
    count = IMAGES
    for length in shape:
        count *= length
    return (torch.arange(count) * 7919 % 1009).double().div(504.5).sub(1).reshape(IMAGES, *shape)


def describe(path: Path) -> dict[str, Any]:
    """Return what the checkpoint at ``path`` is, as plain data, its outputs in float64."""
    checkpoint = kdtool.load(path)
    prints = fingerprint(checkpoint.module.state_dict())
    early = None
    if checkpoint.early is not None:
        early = {"epoch": checkpoint.early.epoch, "fingerprint": fingerprint(checkpoint.early.weights)}
    with torch.no_grad():
        outputs = checkpoint.module.double()(images(checkpoint.architecture.input))
    inspected = kdtool.inspect(path)
    del inspected["path"]
    return {
        "fingerprint": prints,
        "early": early,
        "masked": checkpoint.masked,
        "outputs": outputs.tolist(),
        "inspect": json.loads(json.dumps(inspected)),
    }


if __name__ == "__main__":
    print(json.dumps({Path(name).name: describe(Path(name)) for name in sys.argv[1:]}, indent=1))
