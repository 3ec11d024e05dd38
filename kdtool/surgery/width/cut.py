"""One cut through all widths of a network: what stays, followed through the layers, and the proof that it fits."""

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
from kdtool.surgery.slicing.kept_indices import even_indices, told, uneven
from kdtool.surgery.slicing.tensors import copy_to_cut, heads_of, slice_tensors
from kdtool.surgery.tracing.alignment import misaligned
from kdtool.surgery.tracing.flow import Flow
from kdtool.surgery.tracing.recurrent import width_of
from kdtool.surgery.tracing.trace import trace


@dataclass(frozen=True)
class Cut:
    """What stays of a network's dimensions: ``ratio`` of each but the ``fixed``.

    Sizes are rounded up to multiples of ``round_to``, and to equally many channels in each of ``parts`` parts. Where
    ``inside`` is given, only the outputs of these layers are cut, and what reads them. ``strengths`` are the
    importances of layers' output channels, of which the strongest stay; of other layers, evenly spaced ones. With
    ``follow`` false the sizes alone decide, and nothing is known of which channels a layer is given.
    """

    ratio: float
    round_to: int = 1
    parts: int = 1
    fixed: Fixed = field(default_factory=set)
    inside: frozenset[str] | None = None
    strengths: dict[str, Tensor] = field(default_factory=dict)
    follow: bool = True
    widest: bool = False
    """Whether attributes mean the widest of several sizes, as they do where something is as wide as ever."""
    told: bool = False
    """Whether dimensions are split as attributes say."""
    widest_in: frozenset[type[nn.Module]] = frozenset()
    """Classes of modules whose attributes alone do."""


@dataclass(frozen=True)
class Failure:
    """Why a cut does not work, and in which module (a path) it did not run; None where that was not the matter."""

    reason: str
    where: str | None = None


def narrowed(network: Network, cut: Cut, *, aligned: bool) -> nn.Module | Failure:
    """Return a narrower copy of a network's module, or why there is none.

    With ``aligned`` every layer must have been seen to get the channels it was cut for.
    """
    architecture = network.architecture
    module = copy_to_cut(network.module)
    try:
        flow = _cut(module, architecture.input, cut)
    except Error as error:
        return Failure(str(error))
    failed = sanity.failure(architecture, module)
    if failed is not None:
        return Failure(f"it does not run afterwards ({failed[0]}); nothing was changed", failed[1])
    if aligned:
        try:
            where = [*sorted(flow.conflicts | flow.unknown), *misaligned(module, architecture.input, flow)]
        except FAILURES as error:
            return Failure(f"its channels cannot be followed ({first_line(error)})")
        if where:
            return Failure(f"its channels cannot be followed through {where[0]}")
    return module


def _cut(module: nn.Module, shape: tuple[int, int, int], cut: Cut) -> Flow:
    owners = dict(module.named_modules())
    special = {**uneven(module, cut.ratio, cut.round_to), **(told(module, cut.ratio) if cut.told else {})}

    def keep(path: str, dim: int, size: int) -> Tensor:
        if cut.inside is not None or size == 1 or (path, dim) in cut.fixed or size == _heads_around(owners, path):
            return torch.arange(size)
        return _kept(path, size)

    def _kept(path: str, size: int) -> Tensor:
        inside = [special.get((owner, size)) for owner in _owners(path)]
        found = next((kept for kept in inside if kept is not None), None)
        return even_indices(size, cut.ratio, cut.round_to, cut.parts) if found is None else found

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
        flow = Flow()  # the sizes alone decide, and the trial says whether they were enough
        flow.conflicts.add("its forward")
    for path in flow.single:
        # One row that shows no difference may be a class token, which no layer before it made.
        if len(flow.inputs[path]) == inputs_of(owners[path]) and (f"{path}.weight", 1) not in cut.fixed:
            del flow.inputs[path]
    if not cut.follow:
        flow = _sizes_alone(flow, owners)
    widths = slice_tensors(module, flow, keep)
    # What is narrowed inside of a block may be as wide as what is not.
    fit_attributes(module, widths, widest=cut.widest or cut.inside is not None, widest_in=cut.widest_in)
    return flow


def outputs_of(path: str, layer: nn.Module) -> tuple[str, int, int]:
    """Return the tensor, the dimension and the number of a layer's output channels (a recurrent one's state)."""
    if isinstance(layer, nn.MultiheadAttention):
        return f"{path}.in_proj_weight", 1, layer.embed_dim
    if isinstance(layer, nn.RNNBase):
        return f"{path}.weight_hh_l0", 1, width_of(layer)
    weight: Any = layer.weight
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return f"{path}.weight", 1, weight.shape[1] * layer.groups
    return f"{path}.weight", 0, weight.shape[0]


def _sizes_alone(flow: Flow, owners: dict[str, nn.Module]) -> Flow:
    """Return what a flow says of inputs that no layer made, such as the stem's."""
    whole = {path: kept for path, kept in flow.inputs.items() if len(kept) == inputs_of(owners[path])}
    return Flow(inputs=whole)


def _owners(path: str) -> list[str]:
    """Return the paths of the modules that a tensor is in, from the nearest to the whole network's, which is empty."""
    names = path.split(".")[:-1]
    return [".".join(names[:count]) for count in range(len(names), -1, -1)]


def _heads_around(owners: dict[str, nn.Module], path: str) -> int | None:
    """Return the number of heads of the attention that a tensor is in."""
    found = (heads_of(owners[owner]) for owner in _owners(path))
    return next((heads for heads in found if heads is not None), None)
