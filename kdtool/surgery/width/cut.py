"""Cut all widths of a network at once: choose what stays, follow it through the layers, and check the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models import sanity
from kdtool.models.architecture import Network
from kdtool.models.layers import inputs_of
from kdtool.surgery.slicing.attributes import fit_attributes
from kdtool.surgery.slicing.fixed_dims import Fixed
from kdtool.surgery.slicing.kept_indices import attribute_splits, even_indices, uneven
from kdtool.surgery.slicing.tensors import copy_to_cut, heads_of, slice_tensors
from kdtool.surgery.tracing.alignment import misaligned
from kdtool.surgery.tracing.flow import Flow
from kdtool.surgery.tracing.recurrent import width_of
from kdtool.surgery.tracing.trace import trace


@dataclass(frozen=True)
class Cut:
    """What stays of a network's dimensions: the fraction ``ratio`` of each, except of the ``fixed`` ones."""

    ratio: float
    round_to: int = 1
    """Sizes are rounded up to multiples of this."""
    parts: int = 1
    """Each dimension that divides into so many equal parts keeps the same channels in each of them."""
    fixed: Fixed = field(default_factory=set)
    inside: frozenset[str] | None = None
    """The only layers whose outputs are cut, together with what reads them; None for all layers."""
    strengths: dict[str, Tensor] = field(default_factory=dict)
    """The importances of layers' output channels: the strongest stay. Other layers keep evenly spaced channels."""
    follow: bool = True
    """Whether the channels are followed through the network. If not, dimensions are cut by their sizes alone, and a
    layer may receive other channels than before."""
    widest: bool = False
    """Whether an attribute gets the largest of several new sizes, as it must where some layers keep their widths."""
    by_attributes: bool = False
    """Whether dimensions are split into the parts that attributes list."""
    widest_in: frozenset[type[nn.Module]] = frozenset()
    """Classes of modules for which ``widest`` holds even if it is false for the others."""


@dataclass(frozen=True)
class Narrowed:
    """A narrower copy of a network's module."""

    module: nn.Module
    kept: dict[str, Tensor]
    """The output channels that layers kept, by path; layers that could not be followed are missing."""


@dataclass(frozen=True)
class Failure:
    """Why a cut does not work, and the path of the module that failed; None if the cause was not a failing run."""

    reason: str
    where: str | None = None


def narrowed(network: Network, cut: Cut, *, aligned: bool) -> Narrowed | Failure:
    """Return a narrower copy of a network's module, or the reason why there is none.

    With ``aligned``, the copy is refused unless every layer is shown to receive the channels that it was cut for.
    """
    architecture = network.architecture
    module = copy_to_cut(network.module)
    try:
        flow = _cut(module, architecture.input, cut)
    except Error as error:
        return Failure(str(error))
    reason_and_path = sanity.failure(architecture, module)
    if reason_and_path is not None:
        reason, path = reason_and_path
        return Failure(f"it does not run afterwards ({reason}); nothing was changed", path)
    if aligned:
        try:
            wrong = [*sorted(flow.conflicts | flow.unknown), *misaligned(module, architecture.input, flow)]
        except FAILURES as error:
            return Failure(f"its channels cannot be followed ({first_line(error)})")
        if wrong:
            return Failure(f"its channels cannot be followed through {wrong[0]}")
    return Narrowed(module, flow.outputs)


def _cut(module: nn.Module, shape: tuple[int, int, int], cut: Cut) -> Flow:
    """Cut a module in place, and return the flow that it was cut by."""
    modules = dict(module.named_modules())
    special = {
        **uneven(module, cut.ratio, cut.round_to),
        **(attribute_splits(module, cut.ratio) if cut.by_attributes else {}),
    }

    def keep(path: str, dim: int, size: int) -> Tensor:
        if cut.inside is not None or size == 1 or (path, dim) in cut.fixed or size == _heads_around(modules, path):
            return torch.arange(size)
        return _kept(path, size)

    def _kept(path: str, size: int) -> Tensor:
        patterns = [special.get((owner, size)) for owner in _owners(path)]
        nearest = next((pattern for pattern in patterns if pattern is not None), None)
        return even_indices(size, cut.ratio, cut.round_to, cut.parts) if nearest is None else nearest

    def choose(path: str, layer: nn.Module) -> Tensor:
        name, dim, size = outputs_of(path, layer)
        if cut.inside is None:
            kept = keep(name, dim, size)
        else:
            kept = _kept(name, size) if path in cut.inside else torch.arange(size)
        strengths = cut.strengths.get(path)
        if strengths is not None and len(strengths) == size and len(kept) < size:
            return strengths.topk(len(kept)).indices.sort().values
        return kept

    try:
        flow = trace(module, shape, choose)
    except FAILURES:
        flow = Flow()  # cut by the sizes alone; the sanity check shows whether that was enough
        flow.conflicts.add("its forward pass")
    for path in flow.single:
        # A single row without a difference may be a class token, which no layer before it computes.
        if len(flow.inputs[path]) == inputs_of(modules[path]) and (f"{path}.weight", 1) not in cut.fixed:
            del flow.inputs[path]
    if not cut.follow:
        flow = _sizes_alone(flow, modules)
    widths = slice_tensors(module, flow, keep)
    # A width inside of a block may be equal to a width outside of it, which stays.
    fit_attributes(module, widths, widest=cut.widest or cut.inside is not None, widest_in=cut.widest_in)
    return flow


def outputs_of(path: str, layer: nn.Module) -> tuple[str, int, int]:
    """Return the tensor, the dimension and the number of a layer's output channels (the state of a recurrent layer)."""
    if isinstance(layer, nn.MultiheadAttention):
        return f"{path}.in_proj_weight", 1, layer.embed_dim
    if isinstance(layer, nn.RNNBase):
        return f"{path}.weight_hh_l0", 1, width_of(layer)
    weight: Any = layer.weight
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return f"{path}.weight", 1, weight.shape[1] * layer.groups
    return f"{path}.weight", 0, weight.shape[0]


def _sizes_alone(flow: Flow, modules: dict[str, nn.Module]) -> Flow:
    """Return only the inputs of a flow that lose nothing, such as the stem's, which no layer computes."""
    whole = {path: kept for path, kept in flow.inputs.items() if len(kept) == inputs_of(modules[path])}
    return Flow(inputs=whole)


def _owners(path: str) -> list[str]:
    """Return the paths of the modules around a tensor, from the nearest to the whole network, whose path is empty."""
    names = path.split(".")[:-1]
    return [".".join(names[:count]) for count in range(len(names), -1, -1)]


def _heads_around(modules: dict[str, nn.Module], path: str) -> int | None:
    """Return the number of heads of the nearest attention around a tensor, or None if there is none."""
    counts = (heads_of(modules[owner]) for owner in _owners(path))
    return next((heads for heads in counts if heads is not None), None)
