"""Gates on the channels of a network: where they can stand, and the network that runs through them.

A gate g multiplies channels wherever a convolution or linear layer reads them. What such a layer makes of g * x is what
it makes of x with the columns of its weight multiplied by g, so a gate costs next to nothing in a step, and a closed
one (g = 0) is a column of zeros: its channel can go for good (`kdtool.surgery.gates.remove`). In general the readers
of a channel share its gate. Where layers read a concatenation through norms of their own (DenseNets), each has a gate
of its own for every channel that it is given (`kdtool.surgery.gates.connections`).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.layers import inputs_of
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.groups import Group, groups
from kdtool.surgery.channels.selection import Ranked, ranked, unit_of
from kdtool.surgery.channels.verify import VerifiedSurgery, as_columns, randomised
from kdtool.surgery.gates.connections import Readers, readers_of

FREE = -1
"""The gate of a column, or the unit of an output, that has none: it always stays."""


@dataclass(frozen=True)
class Reader:
    """A layer whose input column c is multiplied by gate ``gates[c]`` (`FREE`: by none); ``norm`` is the path of the
    norm through which it alone reads, where its connections have gates of their own."""

    path: str
    gates: Tensor
    norm: str = ""


@dataclass(frozen=True)
class Places:
    """Where the gates of a network stand.

    A unit is a channel, or the channels of all groups of a grouped convolution that can only go together; it goes once
    all of its gates are closed. Every gate belongs to a set, of which one gate at least stays open: the channels of a
    group that all readers share, or the connections of one reader.
    """

    units: Tensor
    """[gates] the unit that a gate lets through."""
    sets: Tensor
    """[gates] the set that a gate belongs to."""
    groups: Tensor
    """[gates] the group of channels that a gate's unit belongs to."""
    set_names: tuple[tuple[str, bool], ...]
    """The layer that makes a set's channels, False; or the one whose connections they are, True."""
    group_names: tuple[str, ...]
    """The layer that makes a group's channels."""
    readers: tuple[Reader, ...]
    outputs: dict[str, Tensor]
    """[outputs] by the path of a layer that makes gated channels, the unit of each output, or `FREE`."""
    tensors: dict[str, Tensor]
    """[channels] by the path of a layer or parameter that works channel by channel, the unit of each, or `FREE`."""

    @property
    def count(self) -> int:
        """How many gates there are."""
        return len(self.units)

    @property
    def connections(self) -> list[Reader]:
        """The readers whose connections have gates of their own."""
        return [reader for reader in self.readers if reader.norm]


def find_places(network: Network, *, limits: Limits | None = None) -> Places:
    """Return where gates can stand in a network: wherever closing them is proven to be the same as removing channels.

    Raises:
        Error: nowhere.
    """
    spec = network.architecture.spec
    limits = limits or Limits()
    try:
        original = copy.deepcopy(network.module).cpu().float().eval()
        found = [group for group in groups(network, limits) if _gateable(group, original)]
        exact = VerifiedSurgery(Network(network.architecture, original), randomised(original), limits)
        sound = [one.group for one in exact.sound([_by_chance(group, original) for group in found])]
        if not sound:
            raise Error(exact.reason or "its graph has no group of channels that could go")
    except Error as error:
        raise Error(f"{spec}: there is no place for a gate: {error}; use another method") from error
    return _numbered(sound, original, readers_of(sound, original))


def _gateable(group: Group, module: nn.Module) -> bool:
    """Whether a group's channels can be silenced at plain layers that read them, and removed."""
    parts = {member.path: module.get_submodule(member.path) for member in group.members if member.role == "inputs"}
    if not parts or any(isinstance(part, nn.modules.conv._ConvTransposeNd) for part in parts.values()):
        return False
    held = Counter(id(weight) for part in module.modules() for weight in part._parameters.values())
    if any(held[id(part.weight)] > 1 for part in parts.values()):
        return False  # a weight in two places would be multiplied by the gates of both
    unit = unit_of(group, module)
    return unit is not None and group.size > unit


def _by_chance(group: Group, module: nn.Module) -> Ranked:
    """Put a group's channels in an order drawn by chance, in which half of them go when it is tried."""
    scores = torch.rand(group.size, generator=torch.Generator().manual_seed(0))
    return ranked(group, scores, unit_of(group, module) or 1, 1)


def _numbered(found: Sequence[Group], module: nn.Module, readers: Readers) -> Places:
    """Number units, gates and sets."""
    made = _Numbers()
    columns: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for group in found:
        unit = unit_of(group, module)
        assert unit is not None
        producer = next(member.path for member in group.members if member.role == "outputs")
        first = made.group(producer, group.size // unit)
        shared = None if id(group) in readers.own else made.gates((producer, False), first, group.size // unit)
        for member in group.members:
            place = member.roots % (group.size // unit)
            if member.role == "inputs":
                width = inputs_of(module.get_submodule(member.path))
                begin = made.gates((member.path, True), first, group.size) if shared is None else shared
                columns.setdefault(member.path, torch.full((width,), FREE))[member.channels] = begin + place
            else:
                kept = outputs if member.role in ("outputs", "both") else tensors
                kept.setdefault(member.path, torch.full((member.size,), FREE))[member.channels] = first + place
    own = {readers.norms[path]: path for path in columns if path in readers.norms}
    return Places(
        torch.tensor(made.units),
        torch.tensor(made.sets),
        torch.tensor(made.groups),
        tuple(made.set_names),
        tuple(made.group_names),
        tuple(Reader(path, gates, readers.norms.get(path, "")) for path, gates in columns.items()),
        outputs,
        {path: units for path, units in tensors.items() if path not in own},
    )


class _Numbers:
    """Hands out numbers of units, gates, sets and groups."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self.sets: list[int] = []
        self.groups: list[int] = []
        self.set_names: dict[tuple[str, bool], int] = {}
        self.group_names: list[str] = []
        self._next = 0

    def group(self, name: str, units: int) -> int:
        """Begin a group of so many units; return the number of its first."""
        self.group_names.append(name)
        self._next += units
        return self._next - units

    def gates(self, set_name: tuple[str, bool], first: int, units: int) -> int:
        """Add a gate for each of a group's units to a set; return the number of the first."""
        number = self.set_names.setdefault(set_name, len(self.set_names))
        begin = len(self.units)
        self.units += range(first, first + units)
        self.sets += [number] * units
        self.groups += [len(self.group_names) - 1] * units
        return begin


class Gated(nn.Module):
    """A network that runs through gates, all open at first; its weights and its gates learn alike."""

    columns: Tensor
    rounded: Tensor

    def __init__(self, module: nn.Module, places: Places) -> None:
        """Put gates into ``module``, which this one then holds as ``network``."""
        super().__init__()
        self.network = module
        self.gates = nn.Parameter(torch.ones(places.count))
        self.places = places
        every = torch.cat([reader.gates for reader in places.readers])
        self.register_buffer("columns", torch.where(every == FREE, places.count, every), persistent=False)
        self.widths = [len(reader.gates) for reader in places.readers]

    def forward(self, x: Tensor) -> Any:
        """Return what the network makes of x, its channels multiplied by the gates."""
        return functional_call(self.network, self.weights(), (x,), tie_weights=False)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of all readers, their columns multiplied by the gates."""
        scales = torch.cat([self.gates, self.gates.new_ones(1)]).index_select(0, self.columns).split(self.widths)
        scaled = {}
        for reader, scale in zip(self.places.readers, scales, strict=True):
            layer, name = self.network.get_submodule(reader.path), f"{reader.path}.weight"
            scaled[name] = self.network.get_parameter(name) * as_columns(layer, scale)
        return scaled

    def folded(self) -> nn.Module:
        """Return a copy of the network whose weights hold the gates; it gives the outputs of this one."""
        module = copy.deepcopy(self.network)
        with torch.no_grad():
            for name, weight in self.weights().items():
                module.get_parameter(name).copy_(weight)
        return module


def gate_channels(network: Network, *, limits: Limits | None = None) -> Network:
    """Return a network that is `Gated`: a copy of ``network`` with gates wherever there is place for them.

    Raises:
        Error: there is none.
    """
    places = find_places(network, limits=limits)
    return Network(network.architecture, Gated(copy.deepcopy(network.module), places))
