"""The cells of a network, each tried in a process of its own: it is ok, refused with a reason, or failed.

One process writes the results of edits as checkpoints and another one reads them, so that only the file can carry
information from one to the other.
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
from kdtool.exporting.sessions import open_session
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.surgery.depth.stages import stages_of
from kdtool.surgery.refiner import refined
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool_exporters.onnx_file import Onnx
from kdtool_exporters.onnx_model import frozen, write
from kdtool_exporters.onnx_parity import check_parity
from kdtool_pruners.filter_l1 import filter_norms

Report = Callable[[str, dict[str, Any] | None], None]
"""Called with the name of a cell and None when it begins, and again with its outcome when it ends."""


def make_edits(entry: Entry, folder: Path, cells: Sequence[str], report: Report) -> None:
    """Build the network, and write the result of each edit as ``folder``/EDIT.pt and its outputs as EDIT.out."""
    built: list[Network] = []

    def build() -> dict[str, Any]:
        options = NetworkOptions(classes=CLASSES, in_channels=3, image_size=entry.side)
        built.append(create(entry.spec, options=options, data=None))
        return {"parameters": measure(built[0])["parameters"]}

    _attempt("build", build, report)
    if not built:
        return
    for cell in cells:
        _attempt(cell, lambda cell=cell: _edit(built[0], cell, folder), report)  # type: ignore[misc]


def use_edits(entry: Entry, folder: Path, cells: Sequence[str], report: Report) -> None:
    """Read the checkpoints that `make_edits` wrote, and use them; ``cells`` are EDIT.USE."""
    read_back: dict[str, Network] = {}
    uses = {"rebuild": _rebuild, "train": _train, "onnx": _export}
    for cell in cells:
        edit, _, use = cell.partition(".")

        def action(edit: str = edit, use: str = use) -> dict[str, Any]:
            if edit not in read_back:
                read_back.clear()
                read_back[edit] = read(folder / f"{edit}.pt").network
            return uses[use](read_back[edit], folder / edit)

        _attempt(cell, action, report)


def _attempt(cell: str, action: Callable[[], dict[str, Any]], report: Report) -> None:
    report(cell, None)
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        outcome = {"status": "ok", **action()}
    except kdtool.Error as error:
        outcome = {"status": "refused", "reason": str(error)}
    except Exception as error:  # the survey records every exception of a network
        traceback.print_exc()
        outcome = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    times = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}
    report(cell, {**outcome, **{name: round(value, 2) for name, value in times.items()}})


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
    """Return the network after an edit, as the refiners of the command line make it."""
    if edit == "structured":
        return _without_least_important(network)
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "halve": ("halve", {}),
        "halve4": ("halve", {"times": 4}),
        "depth": ("depth", {}),
        "inherit": ("halve", {"init": "inherit"}),
    }
    method, options = methods[edit]
    return refined(kdtool.make("refiners", method, **options), network, 0)


def _without_least_important(network: Network) -> Network:
    """Return the network without 30 % of its parameters, as the pruner filter-l1 removes them."""
    removal = kdtool.surgery.remove_channels(network, ratio=0.3, importance=filter_norms, of="params", round_to=1)
    if removal.capped:
        reason = removal.reason or "every layer is at its minimum"
        raise kdtool.Error(f"no more than {100 * removal.removed:.1f} % of its parameters can be removed ({reason})")
    return removal.network


def stir(network: Network) -> None:
    """Give every part of a new network its own random values, in place, so that an error in any part is visible.

    A fresh network has many zeros and ones: gains that silence whole blocks, biases, and the statistics of norms.
    Without real statistics, the outputs of many narrow layers hardly depend on the images.
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
    # Some networks keep tensors computed from their weights while in eval mode; switching the mode discards them.
    module.eval()


def _images(network: Network, count: int) -> Tensor:
    return torch.randn(count, *network.architecture.input, generator=torch.Generator().manual_seed(1))


def _outputs(network: Network) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network.module(_images(network, 2))
    if not outputs.isfinite().all() or torch.equal(outputs[0], outputs[1]):
        raise ValueError("the outputs do not depend on the images, or are not finite")
    return outputs


def _rebuild(network: Network, path: Path) -> dict[str, Any]:
    expected, actual = torch.load(path.with_suffix(".out"), weights_only=True), _outputs(network)
    if not torch.equal(expected, actual):
        difference = float((expected - actual).abs().max())
        raise ValueError(f"the outputs after loading differ by up to {difference:.3g} from those before")
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
        raise ValueError("the loss or the weights are not finite after a step")
    moved = sum(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    # A few units of a very narrow layer may be zero for all four images.
    if moved < 0.5 * len(after):
        raise ValueError(f"a step changes only {moved} of {len(after)} parameter tensors")
    return {}


def _export(network: Network, path: Path) -> dict[str, Any]:
    file = path.with_suffix(".onnx")
    module = frozen(network.module)
    write(module, network.architecture, file, opset=Onnx().opset, metadata={})
    parity = check_parity(open_session(file), module, network.architecture)
    file.unlink()
    return {"relative": parity["relative"]}
