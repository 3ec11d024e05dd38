"""Correct a network that was cut from another one, layer by layer from the input to the output."""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.hooks import patched
from kdtool.models.layers import CONV_LINEAR, outputs_of
from kdtool.models.used_weights import computed_weights, kind_of
from kdtool.surgery.repair.calls import Calls
from kdtool.surgery.repair.layers import agrees, rescale, solve
from kdtool.surgery.repair.products import Product, inputs_at, rows_of
from kdtool.surgery.slicing.inherited import InheritedNetwork, origins

ROWS = 20_000
"""A layer is corrected by its outputs at so many places of the images at most."""

NUMBERS = 20_000_000
"""Wide layers use fewer places, so that no more of their inputs are held, in float64."""

MOST_NUMBERS = 50_000_000
"""So many inputs are held where a layer would otherwise have fewer than two places for each of its weights."""

HELD = 100_000_000
"""So many outputs of the original are held at most, in float32; if there are more, the images run several times."""

CHECKED = 256
"""At so many places at most it is checked that the inputs of a layer, multiplied with its weight, give its outputs."""

SAME = 1e-5
"""Outputs that differ by less than this fraction of their size are the same; nothing is corrected there."""


@dataclass
class Repaired:
    """A corrected network, and what was done."""

    network: Network
    method: str
    images: int
    layers: list[str] = field(default_factory=list)
    """The paths of the layers that were corrected."""
    norms: int = 0
    """How many batch-norms have new statistics."""
    left: dict[str, str] = field(default_factory=dict)
    """Why a layer is left as it is although its outputs differ, by its path."""
    errors: tuple[float, float] = (0.0, 0.0)
    """Mean squared difference of the logits from the original's as a fraction of their variance, before and after."""

    def as_data(self) -> dict[str, Any]:
        """Return what was done as plain data for a history."""
        before, after = (round(error, 4) for error in self.errors)
        about = {"method": self.method, "images": self.images, "layers": len(self.layers), "norms": self.norms}
        return {**about, "logits_error": {"before": before, "after": after}, "left": dict(self.left)}


@torch.no_grad()
def repair_network(network: Network, original: Network, images: Tensor, method: str) -> Repaired:
    """Return a copy whose layers return on images what they returned in the network that it was cut from.

    ``images`` [images, channels, height, width] are normalised for the networks. With ``least-squares`` the weights of
    each layer that returns something else become those that come closest. With ``statistics`` they are scaled, and its
    bias moved, so that each output has the mean and the deviation of before. Both give the batch-norms behind such
    layers the statistics of the images. All is computed on the CPU.

    Raises:
        Error: the network does not say which channels it kept.
    """
    if not isinstance(network, InheritedNetwork):
        raise Error(
            f"{network.architecture.spec}: cannot be repaired, because what made it smaller does not say which "
            "channels it kept; leave out --repair"
        )
    cut, whole = (copy.deepcopy(one.module).cpu().float().eval() for one in (network, original))
    work = _Repair(cut, whole, images.float().cpu(), method, origins(network, original), network.kept)
    expected, before = whole(work.images), cut(work.images)
    for paths in work.waves():
        work.correct(work.targets(paths))
    spread = (expected - expected.mean(0)).square().mean().clamp_min(1e-12)
    errors = [float((logits - expected).square().mean() / spread) for logits in (before, cut(work.images))]
    repaired = Network(network.architecture, cut)
    return Repaired(repaired, method, len(images), work.done, len(work.norms), work.left, (errors[0], errors[1]))


@dataclass(frozen=True)
class _Target:
    """What a layer has to return: rows [rows, channels] at some positions of its output."""

    rows: Tensor
    positions: Tensor
    whole: int
    """How many positions the output has."""


class _Repair:
    """Corrects one network in place."""

    def __init__(
        self,
        cut: nn.Module,
        whole: nn.Module,
        images: Tensor,
        method: str,
        origin: Mapping[str, str],
        kept: Mapping[str, Tensor],
    ) -> None:
        self.cut, self.whole, self.images, self.method, self.origin, self.kept = (
            cut,
            whole,
            images,
            method,
            origin,
            kept,
        )
        self.layers = {path: part for path, part in cut.named_modules() if isinstance(part, CONV_LINEAR)}
        self.calls, self.original_calls = (Calls.of(module, images[:2]) for module in (cut, whole))
        self.computed = computed_weights(cut)
        self.uses = Counter(id(part._parameters.get("weight")) for part in self.layers.values())
        self.done: list[str] = []
        self.norms: set[str] = set()
        self.changed = False  # whether this run has come to a layer that returns something else than before
        self.left: dict[str, str] = {}
        for path, layer in self.layers.items():
            self._check(path, layer)

    def _check(self, path: str, layer: nn.Module) -> None:
        """Leave a layer out that cannot be compared with the one it was cut from."""
        origin = self.whole.get_submodule(self.origin[path]) if path in self.origin else None
        if origin is None or not isinstance(origin, CONV_LINEAR):
            self.left[path] = "is no layer of the network before"
        elif not self.calls.count[path]:
            # Something that is never called is of interest only if it lost channels.
            weight, before = (part._parameters.get("weight") for part in (layer, origin))
            if weight is not None and before is not None and weight.shape != before.shape:
                self.left[path] = "is used without being called"
        elif self.calls.count[path] > 1 or self.original_calls.count[self.origin[path]] != 1:
            self.left[path] = "is called several times"
        elif self._outputs(path) is None:
            self.left[path] = "kept outputs that are not known"

    def _outputs(self, path: str) -> Tensor | None:
        """Return which outputs of the original a layer kept, or None if that is not known."""
        before, now = (outputs_of(part) for part in (self.whole.get_submodule(self.origin[path]), self.layers[path]))
        kept = self.kept.get(path, torch.arange(before))
        return kept if len(kept) == now and int(kept.max()) < before else None

    def waves(self) -> list[list[str]]:
        """Return the layers to correct in the order of their calls, in groups whose targets fit in memory."""
        waves: list[list[str]] = [[]]
        held = 0
        for path in self.calls.count:
            if path in self.left or path not in self.layers:
                continue
            numbers = self._rows(path, self.calls.positions[path] * len(self.images)) * outputs_of(self.layers[path])
            if waves[-1] and held + numbers > HELD:
                waves.append([])
                held = 0
            waves[-1].append(path)
            held += numbers
        return waves

    def _rows(self, path: str, positions: int) -> int:
        """Return at how many positions of its output a layer is compared."""
        weight = self.layers[path]._parameters.get("weight")
        groups = getattr(self.layers[path], "groups", 1)
        own = 1 if weight is None else weight[0].numel()  # what one output reads
        rows = max(NUMBERS // (own * groups), min(2 * own, MOST_NUMBERS // (own * groups)))
        return max(1, min(ROWS, positions, rows))

    def targets(self, paths: list[str]) -> dict[str, _Target]:
        """Run the original and return what layers have to return."""
        readers = {self.origin[path]: path for path in paths}
        targets: dict[str, _Target] = {}

        def watch(origin: str, layer: nn.Module) -> Callable[..., Any] | None:
            path, forward = readers.get(origin), layer.forward
            if path is None:
                return None

            def run(*args: Any, **kwargs: Any) -> Any:
                y = forward(*args, **kwargs)
                rows = rows_of(y, layer)
                generator = torch.Generator().manual_seed(zlib.crc32(path.encode()))
                order = torch.randperm(len(rows), generator=generator)
                positions = order[: self._rows(path, len(rows))].sort().values
                kept = self._outputs(path)
                assert kept is not None
                targets[path] = _Target(rows[positions][:, kept], positions, len(rows))
                return y

            return run

        with patched(self.whole, watch):
            self.whole(self.images)
        return targets

    def correct(self, targets: Mapping[str, _Target]) -> None:
        """Run the network; each layer is corrected when it is called, each batch-norm gets its statistics."""

        def stand_in(path: str, part: nn.Module) -> Callable[..., Any] | None:
            forward = part.forward
            if path in targets:

                def corrected(*args: Any, **kwargs: Any) -> Any:
                    with Product(part.weight) as product:  # type: ignore[arg-type]
                        y = forward(*args, **kwargs)
                    return forward(*args, **kwargs) if self._correct(path, part, product, y, targets[path]) else y

                return corrected
            if isinstance(part, _BatchNorm) and part.running_mean is not None and self.calls.count[path] == 1:

                def measured(x: Tensor, *args: Any, **kwargs: Any) -> Any:
                    self._measure(path, part, x)
                    return forward(x, *args, **kwargs)

                return measured
            return None

        self.changed = False
        with patched(self.cut, stand_in):
            self.cut(self.images)

    def _measure(self, path: str, norm: _BatchNorm, x: Tensor) -> None:
        """Give a batch-norm the statistics of its input [images, channels, ...], unless nothing before it changed."""
        if not self.changed and path not in self.norms:
            return
        variance, mean = torch.var_mean(x, [dim for dim in range(x.dim()) if dim != 1])
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        self.norms.add(path)

    def _correct(self, path: str, layer: nn.Module, product: Product, y: Tensor, target: _Target) -> bool:
        """Bring the outputs of a layer closer to the target; return whether its parameters changed."""
        rows = rows_of(y, layer)
        if len(rows) != target.whole:
            self.left[path] = "has outputs at other places than before"
            return False
        outputs = rows[target.positions].double()
        missing = target.rows - outputs
        if missing.square().mean() <= SAME**2 * target.rows.double().square().mean():
            return False
        self.changed = True
        reason = self._excluded(path, layer, product)
        if not reason:
            few = slice(None, None, -(-len(outputs) // CHECKED))
            if not agrees(layer, inputs_at(product.seen[0], target.positions[few]), outputs[few]):
                reason = f"multiplies in its own way ({type(layer).__name__})"
            elif self.method == "least-squares":
                reason = solve(layer, inputs_at(product.seen[0], target.positions), missing)
            elif path not in self.calls.before_norm:
                # A batch-norm takes the mean and the deviation off again, and gets new ones itself.
                reason = rescale(layer, outputs, target.rows)
        if reason:
            self.left[path] = reason
            return False
        self.done.append(path)
        return True

    def _excluded(self, path: str, layer: nn.Module, product: Product) -> str:
        """Return why a layer cannot be repaired, or nothing."""
        weight = layer._parameters.get("weight")
        if path in self.computed or weight is None:
            return f"computes its weight ({kind_of(layer)})"
        if self.uses[id(weight)] > 1:
            return "shares its weight with another layer"
        return "" if len(product.seen) == 1 else f"multiplies in its own way ({type(layer).__name__})"
