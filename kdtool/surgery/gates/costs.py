"""What a network costs with some of its gates closed, and what each gate saves: exact, and quick enough for each step.

A layer's cost is the product of its inputs and its outputs that are left. A reader's input is left while its gate is
open, a layer's output while anyone reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdtool.models.layers import is_depthwise
from kdtool.models.size import macs, macs_of_parts
from kdtool.surgery.gates.gated import FREE, Gated


class GateCosts(nn.Module):
    """The cost of a gated network by the gates that are open; a module, so that it moves to a device with its tables.

    Sets of gates keep multiples of ``round_to`` columns: where fewer gates are open, the first of the closed ones keep
    theirs, at zero.
    """

    product: Tensor
    """[layers] what a layer costs with all of its inputs and outputs."""
    per_unit: Tensor
    """[units] what else goes with a unit: depthwise layers, biases, norms."""
    per_gate: Tensor
    """[gates] what else goes with a gate's column: norms of connections."""
    units: Tensor
    sets: Tensor
    groups: Tensor
    set_sizes: Tensor
    set_starts: Tensor

    def __init__(self, gated: Gated, shape: tuple[int, int, int], count: str = "macs", round_to: int = 1) -> None:
        """Take the costs of the layers, for images of ``shape``; ``count`` is ``macs`` or ``parameters``."""
        super().__init__()
        places, module = gated.places, gated.network
        self.count, self.round_to, self.gates = count, round_to, places.count
        of_parts = macs_of_parts(module, shape) if count == "macs" else {}
        self.total = macs(module, shape) if count == "macs" else sum(one.numel() for one in module.parameters())
        units = int(places.units.max()) + 1
        per_unit, per_gate = torch.zeros(units, dtype=torch.double), torch.zeros(places.count, dtype=torch.double)
        product: list[float] = []
        ins: list[Tensor] = []
        outs: list[Tensor] = []
        columns = {reader.path: reader.gates for reader in places.readers}
        for path in dict.fromkeys([*columns, *places.outputs]):
            layer = module.get_submodule(path)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            cost = of_parts.get(path, 0) if count == "macs" else weight.numel()
            made = places.outputs.get(path)
            if made is not None and is_depthwise(layer):
                _spread(per_unit, made, cost)
            else:
                product.append(cost)
                ins.append(columns[path] if path in columns else torch.tensor([FREE]))
                outs.append(made if made is not None else torch.tensor([FREE]))
            if made is not None and count == "parameters":
                _spread(per_unit, made, _numel(module, path) - weight.numel())
        if count == "parameters":
            for path, made in places.tensors.items():
                _spread(per_unit, made, _numel(module, path))
            for reader in places.connections:
                _spread(per_gate, reader.gates, _numel(module, reader.norm))
        sizes = torch.bincount(places.sets)
        for name, tensor in {
            "product": torch.tensor(product, dtype=torch.double),
            "per_unit": per_unit,
            "per_gate": per_gate,
            "units": places.units,
            "sets": places.sets,
            "groups": places.groups,
            "set_sizes": sizes,
            "set_starts": sizes.cumsum(0) - sizes,
        }.items():
            self.register_buffer(name, tensor, persistent=False)
        self.set_count, self.group_count = len(places.set_names), len(places.group_names)
        self.ins, self.outs = _Channels(ins), _Channels(outs)
        self.fixed = self.total - float(self._variable(torch.ones(places.count, dtype=torch.bool)))

    @property
    def kinds(self) -> tuple[tuple[Tensor, int], tuple[Tensor, int]]:
        """The number of each gate's set and of each gate's group, [gates], and how many sets and groups there are."""
        return (self.sets, self.set_count), (self.groups, self.group_count)

    def kept(self, is_open: Tensor) -> Tensor:
        """Return which gates' columns stay: the open ones, and so many closed ones that sets are multiples."""
        if self.round_to == 1:
            return is_open
        order = torch.argsort(self.sets * 2 + (~is_open).long(), stable=True)
        left = torch.zeros_like(self.set_sizes).index_add_(0, self.sets, is_open.long())
        left = ((left + self.round_to - 1) // self.round_to * self.round_to).minimum(self.set_sizes)
        sets = self.sets[order]
        place = torch.arange(self.gates, device=order.device) - self.set_starts[sets]
        return torch.zeros_like(is_open).scatter_(0, order, place < left[sets])

    def of(self, is_open: Tensor) -> float:
        """Return the cost with these gates [gates] open and the others closed."""
        return self.fixed + float(self._variable(self.kept(is_open)))

    def readers_of(self, kept: Tensor) -> Tensor:
        """Return how many gates' columns read each unit [units]."""
        return torch.zeros_like(self.per_unit).index_add_(0, self.units, kept.double())

    def saved(self, is_open: Tensor) -> Tensor:
        """Return what each gate alone saves [gates] while the others are as they are: an open one when it closes, a
        closed one compared with its being open.

        A unit that others still read costs what it costs; that goes with its last open gate.
        """
        read = self.readers_of(is_open)
        ins, outs = self.ins.shares(is_open), self.outs.shares(read > 0)
        alone = (read[self.units] - is_open.double()) == 0
        reading = self.ins.summed(self.product * outs, self.gates)
        making = self.outs.summed(self.product * ins, len(self.per_unit))
        return reading + self.per_gate + alone * (making + self.per_unit)[self.units]

    def _variable(self, kept: Tensor) -> Tensor:
        left = self.readers_of(kept) > 0
        products = self.product * self.ins.shares(kept) * self.outs.shares(left)
        return products.sum() + (self.per_unit * left).sum() + (self.per_gate * kept).sum()


class _Channels(nn.Module):
    """The inputs, or the outputs, of all layers: which of them have a number, of a gate or a unit, and which have none
    and stay."""

    numbers: Tensor
    layers: Tensor
    sizes: Tensor
    free: Tensor

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

    def shares(self, left: Tensor) -> Tensor:
        """Return which part of each layer's channels is left, [layers]."""
        return self.free.index_add(0, self.layers, left[self.numbers].double()) / self.sizes

    def summed(self, costs: Tensor, size: int) -> Tensor:
        """Return for each number, [size], what the channels of that number have of the layers' ``costs``."""
        each = (costs / self.sizes)[self.layers]
        return torch.zeros(size, dtype=torch.double, device=costs.device).index_add_(0, self.numbers, each)


def _numel(module: nn.Module, path: str) -> int:
    """Return how many parameters a layer, or a parameter of its own, has."""
    owner, _, name = path.rpartition(".")
    own = module.get_submodule(owner)._parameters.get(name)
    if own is not None:
        return own.numel()
    return sum(one.numel() for one in module.get_submodule(path).parameters(recurse=False))


def _spread(table: Tensor, numbers: Tensor, cost: float) -> None:
    """Add to the place of each number its part of a layer's cost."""
    found = numbers[numbers != FREE]
    table.index_add_(0, found, torch.full(found.shape, cost / len(numbers), dtype=torch.double))
