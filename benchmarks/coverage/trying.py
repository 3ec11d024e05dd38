"""What is done to a network, in a process of its own, and how it goes: ok, refused with a reason, or failed.

The results of edits are written as checkpoints by one process and read by another, so that nothing but the file is
between them.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kdtool
from benchmarks.coverage.networks import CLASSES, Entry
from kdtool.exporting.latency import open_session
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.surgery.depth.stages import stages_of
from kdtool.surgery.refiner import refined
from kdtool.training.loop import make_optimizer
from kdtool.training.options import Training
from kdtool_exporters.onnx_file import Onnx
from kdtool_exporters.onnx_model import frozen, write
from kdtool_exporters.onnx_parity import check_parity
from kdtool_pruners.filter_l1 import filter_norms

Tell = Callable[[str, dict[str, Any] | None], None]
"""Called with a cell's name when it is begun, and again with what was found."""


def make_edits(entry: Entry, folder: Path, cells: Sequence[str], tell: Tell) -> None:
    """Build the network, and write the result of each edit as ``folder``/EDIT.pt and its outputs as EDIT.out."""
    built: list[Network] = []

    def build() -> dict[str, Any]:
        options = NetworkOptions(classes=CLASSES, in_channels=3, image_size=entry.side)
        built.append(create(entry.spec, options=options, data=None))
        return {"parameters": measure(built[0])["parameters"]}

    _attempt("build", build, tell)
    if not built:
        return
    for cell in cells:
        _attempt(cell, lambda cell=cell: _edit(built[0], cell, folder), tell)  # type: ignore[misc]


def use_edits(entry: Entry, folder: Path, cells: Sequence[str], tell: Tell) -> None:
    """Read checkpoints that `make_edits` wrote, and put them to use; ``cells`` are EDIT.USE."""
    read_back: dict[str, Network] = {}
    uses = {"rebuild": _rebuild, "train": _train, "onnx": _export}
    for cell in cells:
        edit, _, use = cell.partition(".")

        def action(edit: str = edit, use: str = use) -> dict[str, Any]:
            if edit not in read_back:
                read_back.clear()
                read_back[edit] = read(folder / f"{edit}.pt").network
            return uses[use](read_back[edit], folder / edit)

        _attempt(cell, action, tell)


def _attempt(cell: str, action: Callable[[], dict[str, Any]], tell: Tell) -> None:
    tell(cell, None)
    started, busy = time.perf_counter(), time.process_time()
    try:
        found = {"status": "ok", **action()}
    except kdtool.Error as error:
        found = {"status": "refused", "reason": str(error)}
    except Exception as error:  # whatever a network raises is what is asked for
        traceback.print_exc()
        found = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - busy}
    tell(cell, {**found, **{name: round(value, 2) for name, value in taken.items()}})


def _edit(network: Network, edit: str, folder: Path) -> dict[str, Any]:
    try:
        small = _smaller(network, edit)
    except kdtool.Error as error:
        if edit == "depth" and not stages_of(network):
            return {"status": "none", "reason": str(error)}
        raise
    stir(small)
    Checkpoint(small).save(folder / f"{edit}.pt")
    torch.save(_outputs(small), folder / f"{edit}.out")
    return {"parameters": measure(small)["parameters"]}


def _smaller(network: Network, edit: str) -> Network:
    """Return what the refiners of the command line make of a network."""
    if edit == "structured":
        return _less_important_removed(network)
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "halve": ("halve", {}),
        "halve4": ("halve", {"times": 4}),
        "depth": ("depth", {}),
        "inherit": ("halve", {"init": "inherit"}),
    }
    method, options = methods[edit]
    return refined(kdtool.make("refiners", method, **options), network, 0)


def _less_important_removed(network: Network) -> Network:
    """Return a network without 30 % of its parameters, as the pruner filter-l1 removes them."""
    removal = kdtool.surgery.remove_channels(network, ratio=0.3, importance=filter_norms, of="params", round_to=1)
    if removal.capped:
        reason = removal.reason or "every layer is at its least"
        raise kdtool.Error(f"no more than {100 * removal.removed:.1f} % of its parameters can be removed ({reason})")
    return removal.network


def stir(network: Network) -> None:
    """Give a new network something of its own everywhere, in place, so that no part of it goes unseen.

    Fresh networks are full of zeros and ones: gains that silence whole blocks, biases, statistics of norms, without
    which the images are lost on the way through many narrow layers.
    """
    module, generator = network.module, torch.Generator().manual_seed(0)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momentum = [norm.momentum for norm in norms]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in module.parameters():
            if parameter.dim() < 2 or not parameter.any():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        for norm in norms:
            norm.momentum = 1.0
        module.train()(_images(network, 8))
    for norm, old in zip(norms, momentum, strict=True):
        norm.momentum = old
    # What some networks computed from their weights and keep while they are not trained is gone, too.
    module.eval()


def _images(network: Network, count: int) -> Tensor:
    return torch.randn(count, *network.architecture.input, generator=torch.Generator().manual_seed(1))


def _outputs(network: Network) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network.module(_images(network, 2))
    if not outputs.isfinite().all() or torch.equal(outputs[0], outputs[1]):
        raise ValueError("its outputs do not depend on its images, or are not finite")
    return outputs


def _rebuild(network: Network, path: Path) -> dict[str, Any]:
    expected, given = torch.load(path.with_suffix(".out"), weights_only=True), _outputs(network)
    if not torch.equal(expected, given):
        apart = float((expected - given).abs().max())
        raise ValueError(f"its outputs after loading are up to {apart:.3g} away from those before")
    return {}


def _train(network: Network, path: Path) -> dict[str, Any]:
    """Take one step of training as kdtool does, and leave the network in eval mode."""
    torch.manual_seed(0)
    module, images = network.module, _images(network, 4)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    module.train()
    loss = F.cross_entropy(module(images).float(), torch.arange(4) % CLASSES)
    loss.backward()
    make_optimizer(list(module.parameters()), Training(lr=1e-4)).step()
    module.eval()
    module.zero_grad()
    after = list(module.parameters())
    if not loss.isfinite() or not all(bool(parameter.isfinite().all()) for parameter in after):
        raise ValueError("its loss or its weights are not finite after a step")
    moved = sum(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    # A few units of a very narrow layer may well be silent for all four images.
    if moved < 0.5 * len(after):
        raise ValueError(f"a step moves only {moved} of its {len(after)} parameters")
    return {}


def _export(network: Network, path: Path) -> dict[str, Any]:
    file = path.with_suffix(".onnx")
    module = frozen(network.module)
    write(module, network.architecture, file, opset=Onnx().opset, metadata={})
    found = check_parity(open_session(file), module, network.architecture)
    file.unlink()
    return {"relative": found["relative"]}
