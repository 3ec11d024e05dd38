"""Remove whole channels by their importance: the network becomes really smaller, and its weights stay what they were.

Torch-Pruning's graph says which channels go together (`kdtool.surgery.channels.groups`); they are cut as `halve_widths`
cuts, and the result is proven: every layer must lose those inputs that the flow of the network shows, must be given
the channels it was cut for, and the network must run, train a step and be rebuilt to the last bit. Groups of channels
for which that does not hold are found by trying parts of all, and left as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error
from kdtool.models import sanity
from kdtool.models.architecture import Network, build, capture
from kdtool.models.layers import CONV_LINEAR, inputs_of
from kdtool.models.size import macs
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.groups import Group, Scores, groups
from kdtool.surgery.channels.importance import begins_with
from kdtool.surgery.channels.selection import Costs, Ranked, choose, outputs, ranked, unit_of
from kdtool.surgery.slicing.attributes import fit_attributes
from kdtool.surgery.slicing.tensors import copy_to_cut, slice_tensors
from kdtool.surgery.tracing.alignment import misaligned
from kdtool.surgery.tracing.flow import Flow
from kdtool.surgery.tracing.probe_shape import least_shape
from kdtool.surgery.tracing.trace import trace

OF = ("params", "macs", "channels")

SCOPES = ("global", "layer")


@dataclass(frozen=True)
class Removal:
    """A network that lost channels, and which part of what was asked for is gone."""

    network: Network
    of: str
    asked: float
    removed: float
    reason: str = ""
    """Why some channels had to stay, where some had to."""
    means: Mapping[str, float] = field(default_factory=dict)
    """The mean score of the channels that are left, by the layer that their group begins with."""

    @property
    def capped(self) -> bool:
        """Whether there was not so much to remove: every group of channels is at its least, or has to stay."""
        return self.removed < self.asked - 0.005

    def as_data(self) -> dict[str, Any]:
        """Return what was reached, as plain data for a history."""
        found = {"of": self.of, "asked": self.asked, "removed": round(self.removed, 4)}
        return {**found, "capped": self.reason or "layers are at their least"} if self.capped else found


def remove_channels(
    network: Network,
    *,
    ratio: float,
    importance: Scores,
    of: str = "params",
    scope: str = "global",
    round_to: int = 16,
    limits: Limits | None = None,
) -> Removal:
    """Return a copy of the network without its least important channels, so that ``ratio`` of its size is gone.

    The size is counted in ``of``: ``params``, ``macs`` or ``channels`` (outputs of convolutions and linear layers).
    ``importance`` gives each channel of a Torch-Pruning group its score. With ``scope="global"`` the scores of all
    groups are compared, with ``"layer"`` each group loses the same part of its channels. What a group keeps is a
    multiple of ``round_to``, and never nothing.

    Raises:
        Error: no channels of this network can be removed so that it is proven to be the same network without them.
    """
    spec = network.architecture.spec
    if not 0 < ratio < 1:
        raise Error(f"{spec}: a ratio of {ratio:g} does not make it smaller; give one between 0 and 1")
    if of not in OF or scope not in SCOPES:
        raise Error(f"{of!r} of {scope!r}: the size is one of {', '.join(OF)}, the scope one of {', '.join(SCOPES)}")
    limits = limits or Limits()
    try:
        return _removed(network, ratio, importance, of, scope, round_to, limits)
    except Error as error:
        raise Error(f"{spec}: its channels cannot be removed: {error}; refine it instead") from error


def _removed(
    network: Network, ratio: float, importance: Scores, of: str, scope: str, round_to: int, limits: Limits
) -> Removal:
    shape = network.architecture.input
    original = copy_to_cut(network.module)
    seen = least_shape(original, shape)
    found = [one for group in groups(network, limits, seen) if (one := _rank(group, original, importance, round_to))]
    if not found:
        raise Error("its graph has no group of channels that could go")
    whole = {"params": sum(one.numel() for one in original.parameters()), "channels": _channels(original)}
    costs = Costs(original, shape, of, whole[of] if of in whole else macs(original, shape))
    surgery = Surgery(network, original, limits, seen)
    for candidates in (found, None):
        sound = surgery.sound(sorted(found, key=_breadth)) if candidates is None else candidates
        steps = choose(sound, costs, ratio, scope)
        chosen = [(sound[number], step) for number, step in steps.items()]
        if not chosen:
            break
        module = surgery.without(chosen)
        if module is not None:
            check_rebuilt(result := Network(capture(network.architecture, module), module.eval()), seen)
            means = {begins_with(one.group.graph): _mean_left(one, steps.get(i, 0)) for i, one in enumerate(sound)}
            return Removal(result, of, ratio, costs.removed(steps, sound), surgery.reason, means)
    raise Error(surgery.reason or f"no layer is wider than {round_to} channels")


def _mean_left(one: Ranked, step: int) -> float:
    return float(one.scores[one.group.size - one.kept[step] :].mean())


def _breadth(group: Ranked) -> int:
    return len({member.path for member in group.group.members})


def _channels(module: nn.Module) -> int:
    return sum(outputs(part) for part in module.modules() if isinstance(part, CONV_LINEAR))


def _rank(group: Group, module: nn.Module, importance: Scores, round_to: int) -> Ranked | None:
    """Rank a group's channels; None where they have to stay."""
    unit = unit_of(group, module)
    if unit is None:
        return None
    try:
        scores = importance(group.graph)
    except IndexError:
        return None  # the graph leads to channels that a layer does not have
    if scores is None or scores.shape != (group.size,) or not scores.isfinite().all():
        return None
    made = ranked(group, scores, unit, round_to)
    return made if len(made.kept) > 1 else None


def width_of(layer: nn.Module) -> int:
    """Return how many channels a layer puts out, or keeps inside where that is another number."""
    inside = getattr(layer, "embed_dim", 0) or getattr(layer, "hidden_size", 0)
    return outputs(layer) or int(inside)


class _Lost:
    """What each layer loses, by path: output channels, input channels, and those of tensors of its own."""

    def __init__(self, chosen: Sequence[tuple[Ranked, int]]) -> None:
        found: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.dims: dict[str, int] = {}
        for one, step in chosen:
            gone = torch.zeros(one.group.size, dtype=torch.bool)
            gone[one.lost(step)] = True
            for member in one.group.members:
                channels = member.channels[gone[member.roots]].tolist()
                for role in ("outputs", "inputs") if member.role == "both" else (member.role,):
                    found[member.path, role].update(channels)
                self.dims[member.path] = member.dim
        self.by_role = found

    def kept(self, path: str, role: str, size: int) -> Tensor:
        stays = torch.ones(size, dtype=torch.bool)
        stays[list(self.by_role.get((path, role), ()))] = False
        return stays.nonzero().flatten()


class Surgery:
    """Cuts copies of one network, and remembers why the last one was not fit."""

    def __init__(
        self, network: Network, original: nn.Module, limits: Limits, shape: tuple[int, int, int] | None = None
    ) -> None:
        self.network, self.original, self.limits = network, original, limits
        self.shape = shape or network.architecture.input
        self.parts = dict(original.named_modules())
        self.reason = ""

    def sound(self, candidates: list[Ranked]) -> list[Ranked]:
        """Return those groups of which about half of the channels can go, found by trying parts of the list."""
        self.limits.check()
        if not candidates or self.without([(one, len(one.kept) // 2) for one in candidates]) is not None:
            return candidates
        if len(candidates) == 1:
            return []
        middle = len(candidates) // 2
        return self.sound(candidates[:middle]) + self.sound(candidates[middle:])

    def without(self, chosen: Sequence[tuple[Ranked, int]]) -> nn.Module | None:
        """Return a copy without the chosen channels, or None where it is not proven to be sound."""
        lost = _Lost(chosen)
        try:
            flow = trace(
                self.original,
                self.shape,
                lambda path, layer: lost.kept(path, "outputs", width_of(layer)),
            )
            wrong = [*flow.conflicts, *self._otherwise(flow, lost)]
            if not wrong:
                return self._cut(flow, lost)
            self.reason = f"its channels cannot be followed through {wrong[0]}"
        except FAILURES as error:
            self.reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        except Error as error:
            self.reason = str(error)
        return None

    def _cut(self, flow: Flow, lost: _Lost) -> nn.Module | None:
        def keep(path: str, dim: int, size: int) -> Tensor:
            return torch.arange(size)

        # Attributes that are widths change only where the network does not run as they are: most of them are those of
        # the inside of attention, which stays.
        for fitted, widest in ((False, False), (True, True), (True, False)):
            module = copy_to_cut(self.original)
            widths = slice_tensors(module, flow, keep)
            fit_attributes(module, widths if fitted else {}, widest=widest)
            try:
                sanity.check(self.network.architecture, module, "channels removed", self.shape)
                wrong = misaligned(module, self.shape, flow)
                if not wrong:
                    return module
                self.reason = f"its channels cannot be followed through {wrong[0]}"
            except (Error, *FAILURES) as error:
                self.reason = str(error)
        return None

    def _otherwise(self, flow: Flow, lost: _Lost) -> list[str]:
        """Return the layers for which the network's flow shows other losses than the graph does."""
        wrong = []
        for path in {path for path, _ in flow.answers}:
            part = self.parts[path]
            if not isinstance(part, CONV_LINEAR):
                continue
            size = inputs_of(part)
            inputs = lost.kept(path, "inputs", size), flow.inputs.get(path)
            outs = lost.kept(path, "outputs", outputs(part)), flow.outputs.get(path)
            if any(seen is None or not torch.equal(meant, seen) for meant, seen in (inputs, outs)):
                wrong.append(path)
        seen_inputs = {path for path, role in lost.by_role if role == "inputs"}
        wrong += sorted(seen_inputs - {path for path, _ in flow.answers})
        for (path, role), gone in lost.by_role.items():
            if role == "tensor" and gone:
                wrong += self._tensors_otherwise(path, flow, lost)
        return wrong

    def _tensors_otherwise(self, path: str, flow: Flow, lost: _Lost) -> list[str]:
        if path in self.parts:
            part = self.parts[path]
            own = [
                f"{path}.{name}"
                for name, tensor in [*part._parameters.items(), *part._buffers.items()]
                if tensor is not None and tensor.dim()
            ]
        else:
            own = [path]
        for name in own:
            tensor = self._tensor(name)
            dim = lost.dims[path] if name == path else tensor.dim() - 1
            kept = lost.kept(path, "tensor", tensor.shape[dim])
            seen = flow.tensors.setdefault(name, {dim: kept})
            if not torch.equal(seen.get(dim, kept), kept) or dim not in seen:
                return [name]
        return []

    def _tensor(self, path: str) -> Tensor:
        owner, _, name = path.rpartition(".")
        tensor: Tensor = getattr(self.original.get_submodule(owner), name)
        return tensor


def check_rebuilt(network: Network, shape: tuple[int, int, int] | None = None) -> None:
    """Build a network anew from its plain data and compare, on an image of ``shape`` where it is not its own.

    Raises:
        Error: it is another one.
    """
    images = torch.rand(1, *(shape or network.architecture.input), generator=torch.Generator().manual_seed(0))
    rebuilt = build(network.architecture, network.module.state_dict())
    with torch.no_grad():
        if not torch.equal(rebuilt(images), network.module(images)):
            raise Error("it would not be rebuilt from its checkpoint as it is")
