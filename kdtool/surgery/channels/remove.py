"""Remove the least important channels of a network, which becomes smaller and keeps its other weights.

Torch-Pruning's graph says which channels go together (`kdtool.surgery.channels.groups`). The graph can be wrong, so
the result is checked: each layer must lose those inputs that kdtool's own trace of the network shows, and receive the
channels that it was cut for. The network must run, train for one step, and be rebuilt exactly from its plain data.
Groups that fail these checks are found by bisection and left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models import sanity
from kdtool.models.architecture import Network, build, capture
from kdtool.models.layers import CONV_LINEAR, inputs_of, outputs_of
from kdtool.models.size import macs
from kdtool.plugins.method_code import MethodError
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.groups import Group, Scores, groups
from kdtool.surgery.channels.importance import begins_with, scores_of
from kdtool.surgery.channels.lost import Lost
from kdtool.surgery.channels.selection import SCOPES, Costs, Ranked, Widths, choose, partial, ranked, staying, unit_of
from kdtool.surgery.slicing.attributes import fit_attributes
from kdtool.surgery.slicing.inherited import InheritedNetwork
from kdtool.surgery.slicing.tensors import PLAIN_FIRST, copy_to_cut, slice_tensors
from kdtool.surgery.tracing.alignment import misaligned
from kdtool.surgery.tracing.flow import Flow
from kdtool.surgery.tracing.probe_shape import least_shape
from kdtool.surgery.tracing.trace import trace

OF = ("params", "macs", "channels")
LEAST = "all layers that may shrink have their least width, see --floor and --round-to"
NEAR = 0.005  # a part of the size that is missing to what was asked for, and is not worth a word


@dataclass(frozen=True)
class Removal:
    """A network without some channels, and the fraction of its size that was requested and removed."""

    network: InheritedNetwork
    of: str
    """The size that the fractions are of: ``params``, ``macs`` or ``channels``."""
    asked: float
    removed: float
    reason: str = ""
    """Why some channels had to stay; empty if none had to."""
    means: Mapping[str, float] = field(default_factory=dict)
    """The mean score of the channels that are left, by the path of the first layer of their group."""
    before: Mapping[str, int] = field(default_factory=dict)
    """The channels that the groups had before, by the same paths."""

    @property
    def capped(self) -> bool:
        """Whether less was removed than requested: every group of channels is at its minimum, or has to stay."""
        return self.removed < self.asked - NEAR

    def as_data(self) -> dict[str, Any]:
        """Return the fractions, as plain data for a history."""
        why = {"capped": self.reason or LEAST} if self.capped else {}
        return {"of": self.of, "asked": self.asked, "removed": round(self.removed, 4), **why}


def remove_channels(
    network: Network,
    *,
    ratio: float,
    importance: Scores,
    of: str = "params",
    scope: str = "global",
    round_to: int = 16,
    floor: float = 0.0,
    before: Mapping[str, int] | None = None,
    limits: Limits | None = None,
) -> Removal:
    """Return a copy of the network without its least important channels, so that ``ratio`` of its size is gone.

    The size is counted in ``of``: ``params``, ``macs`` or ``channels`` (outputs of convolutions and linear layers).
    ``importance`` returns a score for each channel of a Torch-Pruning group. With ``scope="global"`` the scores of all
    groups are compared, with ``"layer"`` each group loses the same fraction of its channels, with ``"isomorphic"`` each
    class of groups with the same structure. Each group keeps a positive multiple of ``round_to`` channels, and at least
    the fraction ``floor`` of its channels, or of those in ``before`` (see `Removal.before`).

    Raises:
        Error: an option is invalid, or no channels of this network can be removed such that the result passes the
            checks of this module.
    """
    spec = network.architecture.spec
    if not 0 < ratio < 1:
        raise Error(f"{spec}: a ratio of {ratio:g} does not make it smaller; give one between 0 and 1")
    if of not in OF or scope not in SCOPES:
        raise Error(f"of={of!r}, scope={scope!r}: of is one of {', '.join(OF)}, scope one of {', '.join(SCOPES)}")
    try:
        widths = Widths(round_to, floor, before or {})
        return _removed(network, ratio, importance, of, scope, widths, limits or Limits())
    except MethodError:
        raise
    except Error as error:
        # A refiner would refuse a layer that computes its weight, too.
        way_out = "" if PLAIN_FIRST in str(error) or "--round-to" in str(error) else "; use a refiner instead"
        raise Error(f"{spec}: its channels cannot be removed: {error}{way_out}") from error


def _removed(
    network: Network, ratio: float, importance: Scores, of: str, scope: str, widths: Widths, limits: Limits
) -> Removal:
    shape = network.architecture.input
    original = copy_to_cut(network.module)
    probe_shape = least_shape(original, shape)
    every = [_rank(group, original, importance, widths) for group in groups(network, limits, probe_shape)]
    scored = [group for group in every if group]
    candidates = [group for group in scored if len(group.kept) > 1]
    if not scored:
        raise Error("its graph has no group of channels that could be removed")
    if not candidates:
        raise Error(f"no layer may be narrower with --round-to {widths.round_to} and --floor {widths.floor:g}")
    whole = {"params": sum(weight.numel() for weight in original.parameters()), "channels": _channels(original)}
    costs = Costs(original, shape, of, whole[of] if of in whole else macs(original, shape))
    surgery = Surgery(network, original, limits, probe_shape)
    # First with all groups, which usually pass; the search for those that pass takes longer.
    for search in (False, True):
        sound = surgery.sound(sorted(candidates, key=_breadth)) if search else candidates
        steps = choose(sound, costs, ratio, scope)
        chosen = [(sound[number], step) for number, step in steps.items()]
        if not chosen:
            break
        module = surgery.without(chosen)
        if module is not None:
            result = InheritedNetwork(capture(network.architecture, module), module.eval(), surgery.kept)
            check_rebuilt(result, probe_shape)
            means = {begins_with(item.group.graph): _mean_left(item, steps.get(i, 0)) for i, item in enumerate(sound)}
            more = any(steps.get(number, 0) < len(item.kept) - 1 for number, item in enumerate(sound))
            reason = surgery.reason or (widths.reason if more else "")
            before: dict[str, int] = {}
            for item in scored:
                begin = begins_with(item.group.graph)
                before |= {begin: item.group.size, **{name: len(own) for name, own in partial(item.group, begin)}}
            before |= widths.before
            return Removal(result, of, ratio, costs.removed(steps, sound), reason, means, before)
    too_much = f"the least that --round-to {widths.round_to} can remove is more than {ratio:.2%} of the {of}"
    raise Error(surgery.reason or too_much)


def _mean_left(ranking: Ranked, step: int) -> float:
    """Return the mean score of the channels that a group has left after so many steps."""
    return float(ranking.scores[ranking.group.size - ranking.kept[step] :].mean())


def _breadth(group: Ranked) -> int:
    """Return over how many layers and parameters a group goes."""
    return len({member.path for member in group.group.members})


def _channels(module: nn.Module) -> int:
    """Return how many output channels all convolutions and linear layers have together."""
    return sum(outputs_of(part) for part in module.modules() if isinstance(part, CONV_LINEAR))


def _rank(group: Group, module: nn.Module, importance: Scores, widths: Widths) -> Ranked | None:
    """Return a group with its channels ranked, None if they have to stay."""
    unit = unit_of(group, module)
    scores = None if unit is None else scores_of(group, importance)
    if unit is None or scores is None:
        return None
    begin = begins_with(group.graph)
    least, stays = widths.least(begin, group.size), staying(group, scores, widths, begin)
    return ranked(group, scores, unit, widths.round_to, least, stays)


def width_of(layer: nn.Module) -> int:
    """Return how many output channels a layer has; for attention and recurrent layers, their inner width."""
    inside = getattr(layer, "embed_dim", 0) or getattr(layer, "hidden_size", 0)
    return outputs_of(layer) or int(inside)


class Surgery:
    """Cuts copies of one network, checks them, and remembers which outputs layers kept and why the last copy failed."""

    def __init__(
        self, network: Network, original: nn.Module, limits: Limits, shape: tuple[int, int, int] | None = None
    ) -> None:
        self.network, self.original, self.limits = network, original, limits
        self.shape = shape or network.architecture.input
        self.parts = dict(original.named_modules())
        self.reason = ""
        self.kept: Mapping[str, Tensor] = {}

    def sound(self, candidates: list[Ranked]) -> list[Ranked]:
        """Return the groups that can lose about half of their channels, found by bisecting the list."""
        self.limits.check()
        if not candidates or self.without([(group, len(group.kept) // 2) for group in candidates]) is not None:
            return candidates
        if len(candidates) == 1:
            return []
        middle = len(candidates) // 2
        return self.sound(candidates[:middle]) + self.sound(candidates[middle:])

    def without(self, chosen: Sequence[tuple[Ranked, int]]) -> nn.Module | None:
        """Return a copy without the chosen channels, or None if it fails a check."""
        lost = Lost(chosen)
        try:
            flow = trace(self.original, self.shape, lambda path, layer: lost.kept(path, "outputs", width_of(layer)))
            self.kept = flow.outputs
            wrong = [*flow.conflicts, *self._differing(flow, lost)]
            if not wrong:
                return self._cut(flow)
            self.reason = f"its channels cannot be followed through {wrong[0]}"
        except FAILURES as error:
            self.reason = first_line(error)
        except Error as error:
            self.reason = str(error)
        return None

    def _cut(self, flow: Flow) -> nn.Module | None:
        """Return a copy that is cut as the flow says, or None if it fails a check."""
        # Attributes that hold widths are changed only if the network does not run with the old ones: most of them are
        # widths inside attention, which does not change.
        for fitted, widest in ((False, False), (True, True), (True, False)):
            module = copy_to_cut(self.original)
            widths = slice_tensors(module, flow, lambda path, dim, size: torch.arange(size))
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

    def _differing(self, flow: Flow, lost: Lost) -> list[str]:
        """Return the layers that lose other channels by the network's flow than by the graph."""
        wrong = []
        for path in {path for path, _ in flow.answers}:
            part = self.parts[path]
            if not isinstance(part, CONV_LINEAR):
                continue
            size = inputs_of(part)
            inputs = lost.kept(path, "inputs", size), flow.inputs.get(path)
            outs = lost.kept(path, "outputs", outputs_of(part)), flow.outputs.get(path)
            if any(traced is None or not torch.equal(expected, traced) for expected, traced in (inputs, outs)):
                wrong.append(path)
        readers = {path for path, role in lost.by_role if role == "inputs"}
        wrong += sorted(readers - {path for path, _ in flow.answers})
        for (path, role), gone in lost.by_role.items():
            if role == "tensor" and gone:
                wrong += self._differing_tensors(path, flow, lost)
        return wrong

    def _differing_tensors(self, path: str, flow: Flow, lost: Lost) -> list[str]:
        """Return the first tensor of a layer, or the parameter, that loses other channels by the flow; [] if none."""
        if path in self.parts:
            part = self.parts[path]
            names = [
                f"{path}.{name}"
                for name, tensor in [*part._parameters.items(), *part._buffers.items()]
                if tensor is not None and tensor.dim()
            ]
        else:
            names = [path]
        for name in names:
            tensor = self._tensor(name)
            dim = lost.dims[path] if name == path else tensor.dim() - 1
            kept = lost.kept(path, "tensor", tensor.shape[dim])
            traced = flow.tensors.setdefault(name, {dim: kept})
            if not torch.equal(traced.get(dim, kept), kept) or dim not in traced:
                return [name]
        return []

    def _tensor(self, path: str) -> Tensor:
        owner, _, name = path.rpartition(".")
        tensor: Tensor = getattr(self.original.get_submodule(owner), name)
        return tensor


def check_rebuilt(network: Network, shape: tuple[int, int, int] | None = None) -> None:
    """Check that a network rebuilt from its plain data has exactly the same outputs.

    They are compared on an image of ``shape`` [channels, height, width], by default that of its architecture.

    Raises:
        Error: the outputs differ.
    """
    images = torch.rand(1, *(shape or network.architecture.input), generator=torch.Generator().manual_seed(0))
    rebuilt = build(network.architecture, network.module.state_dict())
    with torch.no_grad():
        if not torch.equal(rebuilt(images), network.module(images)):
            raise Error("rebuilt from its checkpoint it has other outputs")
