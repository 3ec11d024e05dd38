"""Run a part of a network: from the output of one layer of its trunk to that of another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, UsageError
from kdtool.features.taps import Tap, Unit, units
from kdtool.models.architecture import Network
from kdtool.models.hooks import answering, evaluating


@dataclass(frozen=True)
class Segment:
    """The layers behind ``begin`` (None: from the images) up to and with ``end`` (None: to the logits).

    ``skipped`` are the paths and output shapes of the trunk's modules before ``begin``; they do not run.
    """

    begin: Tap | None = None
    end: Tap | None = None
    skipped: tuple[tuple[str, tuple[int, ...]], ...] = ()
    image: tuple[int, int, int] = (3, 32, 32)

    def run(self, module: nn.Module, x: Tensor, watch: Sequence[Tap] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output of the segment and those of the watched layers by path.

        ``x`` are images, or what `begin` put out, [batch, ...]. The watched layers lie within the segment.
        """
        maps: dict[str, Tensor] = {}
        given = x
        with contextlib.ExitStack() as stack:
            if self.begin is not None:
                given = x.new_zeros(1).expand(len(x), *self.image)
                for path, shape in self.skipped:
                    stack.enter_context(answering(module.get_submodule(path), x.new_zeros(1).expand(len(x), *shape)))
                stack.enter_context(answering(module.get_submodule(self.begin.path), x))
            for tap in watch:
                stack.enter_context(_noted(module.get_submodule(tap.path), tap, maps))
            if self.end is not None:
                stack.enter_context(_stopping(module.get_submodule(self.end.path)))
            try:
                output = module(given)
            except _ReachedError as reached:
                output = reached.output
        return output, maps


class _ReachedError(Exception):
    """The end of a segment; not a failure."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


@contextlib.contextmanager
def _noted(layer: nn.Module, tap: Tap, maps: dict[str, Tensor]) -> Iterator[None]:
    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        maps[tap.path] = output.clone() if tap.copied else output

    handle = layer.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _stopping(layer: nn.Module) -> Iterator[None]:
    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        raise _ReachedError(output)

    handle = layer.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def segments(network: Network, taps: Sequence[Tap]) -> list[Segment]:
    """Return the network cut at the taps: one segment to each of them, and the head behind the last.

    Raises:
        UsageError: the taps are not in the order in which they run.
        Error: what is behind a tap depends on more than its output, so that the network cannot be cut there.
    """
    named, order = [tap.path for tap in taps], list(_outputs(network, taps)[1])
    if named != order:
        raise UsageError(
            f"{network.architecture.spec}: cannot be cut at {', '.join(named)}: name each layer once, in the order in "
            f"which they run ({', '.join(order)})"
        )
    left = cuttable(network, taps)
    for tap in taps:
        if tap not in left:
            raise Error(
                f"{network.architecture.spec}: cannot be cut at {tap.path}: later layers read more than its output; "
                "name other layers with --taps"
            )
    trunk = units(network)
    return [_segment(network, trunk, begin, end) for begin, end in zip([None, *taps], [*taps, None], strict=True)]


def cuttable(network: Network, taps: Sequence[Tap]) -> list[Tap]:
    """Return those of the taps whose output alone decides the logits."""
    left, trunk = [], units(network)
    logits, maps = _outputs(network, taps)
    with torch.no_grad(), evaluating(network.module):
        for tap in taps:
            try:
                again, _ = _segment(network, trunk, tap, None).run(network.module, maps[tap.path])
            except FAILURES:
                continue
            if again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-4, atol=1e-5):
                left.append(tap)
    return left


def _outputs(network: Network, taps: Sequence[Tap]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits of some noise, and the outputs at the taps, in the order in which they run."""
    shape = network.architecture.input
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(network.module):
        return Segment(image=shape).run(network.module, images, taps)


def _segment(network: Network, trunk: Sequence[Unit], begin: Tap | None, end: Tap | None) -> Segment:
    paths = [unit.tap.path for unit in trunk]
    place = paths.index(begin.path) if begin is not None and begin.path in paths else 0
    skipped = tuple((unit.tap.path, unit.tap.shape) for unit in trunk[:place])
    return Segment(begin, end, skipped, network.architecture.input)


@dataclass(frozen=True)
class Part:
    """One segment of a network that was cut, with the names of the parameters that learn in each of them."""

    index: int
    cut: tuple[Segment, ...]
    learnt: tuple[tuple[str, ...], ...]

    @property
    def segment(self) -> Segment:
        """The segment itself."""
        return self.cut[self.index]

    @property
    def learns(self) -> tuple[str, ...]:
        """Its own parameters."""
        return self.learnt[self.index]


def parts_of(network: Network, taps: Sequence[Tap]) -> list[Part]:
    """Return the network cut at the taps, each part with the parameters that nothing before it depends on.

    Raises:
        Error: it cannot be cut there.
    """
    cut = segments(network, taps)
    learnt = tuple(learnt_in(network, cut))
    return [Part(index, tuple(cut), learnt) for index in range(len(cut))]


def learnt_in(network: Network, cut: Sequence[Segment]) -> list[tuple[str, ...]]:
    """Return the names of the parameters that each segment is the first to depend on."""
    shape = network.architecture.input
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    named: Mapping[str, nn.Parameter] = dict(network.module.named_parameters())
    flags = {name: parameter.requires_grad for name, parameter in named.items()}
    left = dict(named)
    found = []
    network.module.requires_grad_(True)
    try:
        with evaluating(network.module), torch.enable_grad():
            for segment in cut:
                output, _ = segment.run(network.module, x)
                gradients = torch.autograd.grad(output.sum(), list(left.values()), allow_unused=True)
                here = tuple(name for name, one in zip(left, gradients, strict=True) if one is not None)
                found.append(here)
                left = {name: parameter for name, parameter in left.items() if name not in here}
                x = output.detach()
                if not left:
                    break
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(flags[name])
    return [*found, *[()] * (len(cut) - len(found))]
