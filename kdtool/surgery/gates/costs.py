"""The exact cost of a network with some of its gates closed, and what each gate saves; fast enough for each step.

The cost of a layer is proportional to the product of its remaining inputs and outputs. An input of a reader remains
while its gate is open, and an output of a layer remains while any layer reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kdtool.models.layers import is_depthwise
from kdtool.models.size import macs, macs_of_parts
from kdtool.surgery.gates.gated import FREE, Gated


class GateCosts(nn.Module):
    """The cost of a gated network as a function of its open gates; a module, so that `to` moves its tables.

    Each set of gates keeps a multiple of ``round_to`` channels. If fewer gates are open, the first closed gates keep
    their columns, which are zero.
    """

    product: Tensor
    """[layers] the cost of a layer with all of its inputs and outputs."""
    per_unit: Tensor
    """[units] the further cost that goes with a unit: depthwise layers, biases, norms."""
    per_gate: Tensor
    """[gates] the further cost that goes with a gate's column: norms of connections."""
    units: Tensor
    """[gates] the unit of each gate."""
    sets: Tensor
    """[gates] the set of each gate."""
    groups: Tensor
    """[gates] the group of each gate."""
    set_sizes: Tensor
    """[sets] how many gates a set has."""
    set_starts: Tensor
    """[sets] the place of a set's first gate when the gates are sorted by set."""
    blocks: Tensor
    """[sets] of how many gates a set keeps a multiple: fewer than ``round_to`` if a gate is for several channels."""

    def __init__(self, gated: Gated, shape: tuple[int, int, int], count: str = "macs", round_to: int = 1) -> None:
        """Compute the costs of the layers for images of ``shape`` [channels, height, width].

        ``count`` is ``macs`` (of one image) or ``parameters``.
        """
        super().__init__()
        places, module = gated.places, gated.network
        self.count, self.round_to, self.gates = count, round_to, places.count
        of_layers = _macs_of_layers(module, shape) if count == "macs" else {}
        fresh = _Fresh()
        self.total = macs(module, shape) if count == "macs" else sum(weight.numel() for weight in module.parameters())
        units = int(places.units.max()) + 1
        per_unit, per_gate = torch.zeros(units, dtype=torch.double), torch.zeros(places.count, dtype=torch.double)
        product: list[float] = []
        ins: list[Tensor] = []
        outs: list[Tensor] = []
        columns = {reader.path: reader.gates for reader in places.readers}
        for path in dict.fromkeys([*columns, *places.outputs]):
            layer = module.get_submodule(path)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            cost = of_layers[layer] if count == "macs" else fresh.numel([weight])
            units_made = places.outputs.get(path)
            if units_made is not None and is_depthwise(layer):
                _spread(per_unit, units_made, cost)
            else:
                product.append(cost)
                ins.append(columns[path] if path in columns else torch.tensor([FREE]))
                outs.append(units_made if units_made is not None else torch.tensor([FREE]))
            if units_made is not None and count == "parameters":
                _spread(per_unit, units_made, fresh.numel(_parameters_at(module, path)))
        if count == "parameters":
            for path, channel_units in places.tensors.items():
                _spread(per_unit, channel_units, fresh.numel(_parameters_at(module, path)))
            for reader in places.connections:
                _spread(per_gate, reader.gates, fresh.numel(_parameters_at(module, reader.norm)))
        sizes = torch.bincount(places.sets)
        channels = places.channels or (1,) * len(sizes)
        self.rounding = [round_to // math.gcd(round_to, unit) for unit in channels]
        for name, tensor in {
            "product": torch.tensor(product, dtype=torch.double),
            "per_unit": per_unit,
            "per_gate": per_gate,
            "units": places.units,
            "sets": places.sets,
            "groups": places.groups,
            "set_sizes": sizes,
            "set_starts": sizes.cumsum(0) - sizes,
            "blocks": torch.tensor(self.rounding),
        }.items():
            self.register_buffer(name, tensor, persistent=False)
        self.set_count, self.group_count = len(places.set_names), len(places.group_names)
        parts = places.parts
        self.part_counts = [int(part.max()) + 1 for part in parts]
        for number, part in enumerate(parts):
            self.register_buffer(f"part{number}", part, persistent=False)
        self.ins, self.outs = _Channels(ins), _Channels(outs)
        self.fixed = self.total - float(self._variable(torch.ones(places.count, dtype=torch.bool)))

    @property
    def kinds(self) -> list[tuple[Tensor, int]]:
        """The number of each gate's set and group, and of what `Places.parts` tells apart, [gates], and how many."""
        parts = [(self.get_buffer(f"part{number}"), count) for number, count in enumerate(self.part_counts)]
        return [(self.sets, self.set_count), (self.groups, self.group_count), *parts]

    def kept(self, is_open: Tensor) -> Tensor:
        """Return a mask [gates] of the columns that stay, those of closed gates included that fill up multiples."""
        if max(self.rounding) == 1:
            return is_open
        order = torch.argsort(self.sets * 2 + (~is_open).long(), stable=True)
        counts = torch.zeros_like(self.set_sizes).index_add_(0, self.sets, is_open.long())
        counts = ((counts + self.blocks - 1) // self.blocks * self.blocks).minimum(self.set_sizes)
        sets = self.sets[order]
        place = torch.arange(self.gates, device=order.device) - self.set_starts[sets]
        return torch.zeros_like(is_open).scatter_(0, order, place < counts[sets])

    def of(self, is_open: Tensor) -> float:
        """Return the cost, in MACs or parameters, with these gates [gates] open and the others closed."""
        return self.of_kept(self.kept(is_open))

    def of_kept(self, kept: Tensor) -> float:
        """Return the cost, in MACs or parameters, with exactly these columns [gates] kept."""
        return self.fixed + float(self._variable(kept))

    def readers_of(self, kept: Tensor) -> Tensor:
        """Return how many of the kept columns [gates] read each unit, [units]."""
        return torch.zeros_like(self.per_unit).index_add_(0, self.units, kept.double())

    def saved(self, is_open: Tensor) -> Tensor:
        """Return what each gate saves alone [gates], in MACs or parameters, while the others stay as they are.

        This is the difference between the cost with the gate open and the cost with the gate closed. The cost of a unit
        that other gates still read is not saved: it goes with the unit's last open gate.
        """
        read = self.readers_of(is_open)
        ins, outs = self.ins.shares(is_open), self.outs.shares(read > 0)
        alone = (read[self.units] - is_open.double()) == 0
        reading = self.ins.summed(self.product * outs, self.gates)
        making = self.outs.summed(self.product * ins, len(self.per_unit))
        return reading + self.per_gate + alone * (making + self.per_unit)[self.units]

    def _variable(self, kept: Tensor) -> Tensor:
        """Return the part of the cost that depends on gates, with these columns [gates] kept."""
        read = self.readers_of(kept) > 0
        products = self.product * self.ins.shares(kept) * self.outs.shares(read)
        return products.sum() + (self.per_unit * read).sum() + (self.per_gate * kept).sum()


class _Channels(nn.Module):
    """The inputs, or the outputs, of all layers.

    Some have a number, that of a gate for inputs and of a unit for outputs. The others have none and always stay.
    """

    numbers: Tensor
    """[numbered channels] the number of each channel that has one."""
    layers: Tensor
    """[numbered channels] the index of its layer."""
    sizes: Tensor
    """[layers] how many channels a layer has."""
    free: Tensor
    """[layers] how many of them have no number."""

    def __init__(self, sides: Sequence[Tensor]) -> None:
        super().__init__()
        numbers = torch.cat(list(sides))
        layers = torch.repeat_interleave(torch.tensor([len(side) for side in sides]))
        numbered = numbers != FREE
        self.register_buffer("numbers", numbers[numbered], persistent=False)
        self.register_buffer("layers", layers[numbered], persistent=False)
        self.register_buffer("sizes", torch.bincount(layers).double(), persistent=False)
        free = torch.bincount(layers[~numbered], minlength=len(sides)).double()
        self.register_buffer("free", free, persistent=False)

    def shares(self, kept: Tensor) -> Tensor:
        """Return the fraction [layers] of each layer's channels that stays, with a mask of the numbers that stay."""
        return self.free.index_add(0, self.layers, kept[self.numbers].double()) / self.sizes

    def summed(self, costs: Tensor, size: int) -> Tensor:
        """Return for each number, [size], its channels' share of the layers' ``costs`` [layers]."""
        each = (costs / self.sizes)[self.layers]
        return torch.zeros(size, dtype=torch.double, device=costs.device).index_add_(0, self.numbers, each)


class _Fresh:
    """Counts parameters that several layers share for the first one."""

    def __init__(self) -> None:
        self.known: set[int] = set()

    def numel(self, parameters: Iterable[Tensor]) -> int:
        """Return how many numbers those of the parameters have that were not counted before."""
        fresh = {id(weight): weight for weight in parameters if id(weight) not in self.known}
        self.known.update(fresh)
        return sum(weight.numel() for weight in fresh.values())


def _parameters_at(module: nn.Module, path: str) -> list[Tensor]:
    """Return the parameter at this path, or the parameters of the layer at this path."""
    owner, _, name = path.rpartition(".")
    parameter = module.get_submodule(owner)._parameters.get(name)
    return [*module.get_submodule(path).parameters(recurse=False)] if parameter is None else [parameter]


def _macs_of_layers(module: nn.Module, shape: tuple[int, int, int]) -> dict[nn.Module, int]:
    """Return the MACs of one image of ``shape`` in every submodule.

    A module that has several paths has its MACs at one of them, which need not be the first.
    """
    of_parts = macs_of_parts(module, shape)
    of_layers: dict[nn.Module, int] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        of_layers[part] = of_layers.get(part, 0) + of_parts.get(path, 0)
    return of_layers


def _spread(table: Tensor, numbers: Tensor, cost: float) -> None:
    """Add to the table, at each number, its share of a layer's cost."""
    used = numbers[numbers != FREE]
    table.index_add_(0, used, torch.full(used.shape, cost / len(numbers), dtype=torch.double))
