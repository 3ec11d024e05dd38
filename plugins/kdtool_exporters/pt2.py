"""Programs of torch.export (https://docs.pytorch.org/docs/stable/export.html), which torch runs without the code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool_exporters.runtime_file import RuntimeFile, exported, torch_call

if TYPE_CHECKING:
    from torch import nn

    from kdtool import Architecture
    from kdtool_exporters.runtime_file import Call


class Pt2(RuntimeFile):
    """Write a .pt2 file with torch.export, check that it gives the network's outputs, and measure it.

    ``torch.export.load(FILE).module()`` is the network, for any batch size, without kdtool and timm. What kdtool knows
    of the network (classes, normalisation, ...) is JSON in the extra file ``kdtool.json``.
    """

    suffix: ClassVar[str] = ".pt2"
    runtime: ClassVar[str] = "torch.export"
    distribution: ClassVar[str] = "torch"

    def write(self, module: nn.Module, architecture: Architecture, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the program with its metadata."""
        import torch

        program = exported(module, architecture)
        torch.export.save(program, str(path), extra_files={"kdtool.json": json.dumps(dict(metadata))})

    def open(self, path: Path, threads: int) -> Call:
        """Return the program as a function; torch runs it with its own number of threads."""
        import torch

        module = torch.export.load(str(path)).module()

        return torch_call(module)
