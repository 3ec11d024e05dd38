"""Find where gates can stand on the channels of a network, and run the network through them.

A gate g multiplies a channel wherever a convolution or linear layer reads it. The layer's output for g * x equals its
output for x with the columns of its weight multiplied by g. So a gate costs very little in a training step, and a
closed gate (g = 0) is a column of zeros, whose channel can be removed (`kdtool.surgery.gates.remove`). In general all
readers of a channel share its gate. Where layers read a concatenation through norms of their own (DenseNets), each
layer has its own gate for every channel that it reads (`kdtool.surgery.gates.connections`).
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

from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.conversion import conversion_of
from kdtool.models.layers import inputs_of
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.groups import Group, groups
from kdtool.surgery.channels.selection import Ranked, ranked, unit_of
from kdtool.surgery.channels.verify import VerifiedSurgery, as_columns, randomised
from kdtool.surgery.gates.connections import Readers, readers_of
from kdtool.surgery.gates.stream import in_stream

FREE = -1
"""Stands for the gate of a column, or the unit of an output, that has none and always stays."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads gated channels."""

    path: str
    gates: Tensor
    """[inputs] the gate that multiplies each input column of the weight, or `FREE`."""
    norm: str = ""
    """The path of the norm that only this layer reads, if its connections have gates of their own."""


@dataclass(frozen=True)
class Places:
    """Where the gates of a network stand.

    A unit is one channel, or the channels of all groups of a grouped convolution that must be removed together. A unit
    is removed when all of its gates are closed. Every gate belongs to a set, in which at least one gate stays open: the
    gates of a group that all readers share, or the connections of one reader.
    """

    units: Tensor
    """[gates] the unit that a gate multiplies."""
    sets: Tensor
    """[gates] the set that a gate belongs to."""
    groups: Tensor
    """[gates] the group of channels that a gate's unit belongs to."""
    set_names: tuple[tuple[str, bool], ...]
    """For each set, a path and a flag: False with the layer that outputs the set's channels, True with the reader whose
    connections the set holds."""
    group_names: tuple[str, ...]
    """For each group, the path of the layer that outputs its channels."""
    readers: tuple[Reader, ...]
    outputs: dict[str, Tensor]
    """[outputs] the unit of each output, or `FREE`, by the path of a layer that outputs gated channels."""
    tensors: dict[str, Tensor]
    """[channels] the unit of each channel, or `FREE`, by the path of a norm or of a parameter of its own."""
    streams: tuple[int, ...] = ()
    """The groups that are residual streams: several layers add to their channels."""
    channels: tuple[int, ...] = ()
    """For each set, of how many channels a layer loses a multiple with each of its gates."""

    @property
    def in_stream(self) -> Tensor:
        """A mask [gates] of the gates on channels of a residual stream."""
        return torch.isin(self.groups, torch.tensor(self.streams, dtype=self.groups.dtype))

    @property
    def count(self) -> int:
        """How many gates there are."""
        return len(self.units)

    @property
    def parts(self) -> list[Tensor]:
        """Numbers of gates [gates], of which each has to keep an open gate, so that no layer loses all its outputs.

        They tell apart the layers that output only some units of a group, as before a concatenation; those that share
        units are in different tensors. There is none where every layer outputs whole groups.
        """
        of_unit = torch.full((int(self.units.max()) + 1,), FREE)
        of_unit[self.units] = self.groups
        numbered: list[Tensor] = []
        for units in self.outputs.values():
            own = units[units != FREE].unique()
            for group in of_unit[own].unique():
                part = own[of_unit[own] == group]
                if len(part) == (of_unit == group).count_nonzero():
                    continue
                place = next((one for one in numbered if bool((one[part] < len(self.group_names)).all())), None)
                if place is None:
                    place = of_unit.clone()
                    numbered.append(place)
                place[part] = int(place.max()) + len(self.group_names)
        return [place[self.units].unique(return_inverse=True)[1] for place in numbered]

    @property
    def connections(self) -> list[Reader]:
        """The readers whose connections have gates of their own."""
        return [reader for reader in self.readers if reader.norm]


def find_places(network: Network, *, limits: Limits | None = None) -> Places:
    """Return where gates can stand in a network: where closing them gives the same outputs as removing the channels.

    Raises:
        Error: they can stand nowhere.
    """
    spec = network.architecture.spec
    limits = limits or Limits()
    try:
        original = copy.deepcopy(network.module).cpu().float().eval()
        candidates = [group for group in groups(network, limits) if _gateable(group, original)]
        surgery = VerifiedSurgery(Network(network.architecture, original), randomised(original), limits)
        orders = [_random_order(group, original, seed) for seed, group in enumerate(candidates)]
        sound = [ranking.group for ranking in surgery.sound(orders)]
        if not sound:
            raise Error(surgery.reason or "its graph has no group of channels that could be removed")
    except Error as error:
        raise Error(f"{spec}: there is no place for a gate: {error}; use another method") from error
    return _numbered(sound, original, readers_of(sound, original))


def _gateable(group: Group, module: nn.Module) -> bool:
    """Return whether a group's channels can be silenced in the weights that read them, and removed."""
    parts = {member.path: module.get_submodule(member.path) for member in group.members if member.role == "inputs"}
    if not parts or any(isinstance(part, nn.modules.conv._ConvTransposeNd) for part in parts.values()):
        return False
    held = Counter(id(weight) for part in module.modules() for weight in part._parameters.values())
    if any(held[id(part.weight)] > 1 for part in parts.values()):
        return False  # a weight in two places would be multiplied by the gates of both
    unit = unit_of(group, module)
    return unit is not None and group.size > unit


def _random_order(group: Group, module: nn.Module, seed: int) -> Ranked:
    """Return a group with its channels in random order, for a test that removes half of them.

    Each group has a seed of its own: with equal orders, groups that share a tensor would lose the same channels in the
    test, and others in the search.
    """
    scores = torch.rand(group.size, generator=torch.Generator().manual_seed(seed))
    return ranked(group, scores, unit_of(group, module) or 1, 1)


def _numbered(gated: Sequence[Group], module: nn.Module, readers: Readers) -> Places:
    """Return the places of the gates on these groups, with their units, gates, sets and groups numbered."""
    numbers = _Numbers()
    columns: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for group in gated:
        unit = unit_of(group, module)
        assert unit is not None
        producer = next(member.path for member in group.members if member.role == "outputs")
        units = group.size // unit
        first = numbers.group(producer, units)
        own = id(group) in readers.own
        shared = None if own else numbers.gates((producer, False), first, units, unit)
        for member in group.members:
            place = member.roots % units
            if member.role == "inputs":
                width = inputs_of(module.get_submodule(member.path))
                begin = numbers.gates((member.path, True), first, units, unit) if shared is None else shared
                columns.setdefault(member.path, torch.full((width,), FREE))[member.channels] = begin + place
            else:
                table = outputs if member.role in ("outputs", "both") else tensors
                table.setdefault(member.path, torch.full((member.size,), FREE))[member.channels] = first + place
    own_norms = {readers.norms[path] for path in columns if path in readers.norms}
    return Places(
        torch.tensor(numbers.units),
        torch.tensor(numbers.sets),
        torch.tensor(numbers.groups),
        tuple(numbers.set_names),
        tuple(numbers.group_names),
        tuple(Reader(path, gates, readers.norms.get(path, "")) for path, gates in columns.items()),
        outputs,
        {path: units for path, units in tensors.items() if path not in own_norms},
        tuple(number for number, group in enumerate(gated) if in_stream(group)),
        tuple(numbers.channels),
    )


class _Numbers:
    """Numbers units, gates, sets and groups in the order in which they are added."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self.sets: list[int] = []
        self.groups: list[int] = []
        self.set_names: dict[tuple[str, bool], int] = {}
        self.group_names: list[str] = []
        self.channels: list[int] = []
        self._next = 0

    def group(self, name: str, units: int) -> int:
        """Start a group of this many units and return the number of its first unit."""
        self.group_names.append(name)
        self._next += units
        return self._next - units

    def gates(self, set_name: tuple[str, bool], first: int, units: int, channels: int) -> int:
        """Add a gate for each of a group's units, of so many channels, to a set; return the number of the first."""
        if set_name not in self.set_names:
            self.channels.append(channels)
        number = self.set_names.setdefault(set_name, len(self.set_names))
        begin = len(self.units)
        self.units += range(first, first + units)
        self.sets += [number] * units
        self.groups += [len(self.group_names) - 1] * units
        return begin


class Gated(nn.Module):
    """A network that runs through gates, which are all open at first; weights and gates are both trained."""

    columns: Tensor
    """[columns of all readers] the gate of each column; ``places.count`` for columns without a gate."""

    def __init__(self, module: nn.Module, places: Places) -> None:
        """Put gates on ``module``, which becomes the attribute ``network``."""
        super().__init__()
        self.network = module
        self.gates = nn.Parameter(torch.ones(places.count))
        self.places = places
        every = torch.cat([reader.gates for reader in places.readers])
        self.register_buffer("columns", torch.where(every == FREE, places.count, every), persistent=False)
        self.widths = [len(reader.gates) for reader in places.readers]

    def forward(self, x: Tensor) -> Any:
        """Return the network's output for images x [batch, channels, height, width], with gated channels."""
        return functional_call(self.network, self.weights(), (x,), tie_weights=False)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of all readers, with their columns multiplied by the gates, by parameter name."""
        scales = torch.cat([self.gates, self.gates.new_ones(1)]).index_select(0, self.columns).split(self.widths)
        scaled = {}
        for reader, scale in zip(self.places.readers, scales, strict=True):
            layer, name = self.network.get_submodule(reader.path), f"{reader.path}.weight"
            scaled[name] = self.network.get_parameter(name) * as_columns(layer, scale)
        return scaled

    def folded(self) -> nn.Module:
        """Return a copy of the network with the gates multiplied into its weights; its outputs are the same."""
        module = copy.deepcopy(self.network)
        with torch.no_grad():
            for name, weight in self.weights().items():
                module.get_parameter(name).copy_(weight)
        return module


def gate_channels(network: Network, *, limits: Limits | None = None) -> Network:
    """Return a network whose module is `Gated`: a copy of ``network`` with gates wherever they can stand.

    Raises:
        Error: they can stand nowhere.
        UsageError: the network's images are converted, so that its weights could not go on in this run.
    """
    if conversion_of(network.module) is not None:
        raise UsageError(
            f"--mean, --std: the student is searched in {network.architecture.spec}, whose weights expect those of "
            "their training; leave both out"
        )
    places = find_places(network, limits=limits)
    return Network(network.architecture, Gated(copy.deepcopy(network.module), places))
