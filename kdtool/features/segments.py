"""Run a part of a network, from the output of one layer of its trunk to that of another.

Any network can be cut without knowing its code: the layers before the cut are replaced by constants, the layer at the
cut returns the given output, and a hook at the end of the segment stops the forward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, UsageError
from kdtool.features.pairs import as_maps
from kdtool.features.preactivation import Watched
from kdtool.features.taps import Tap, Unit, units
from kdtool.models.architecture import Network
from kdtool.models.hooks import answering, evaluating, replaced


@dataclass(frozen=True)
class Segment:
    """The layers after ``begin`` (None: from the images) up to and including ``end`` (None: to the logits).

    ``skipped`` are the paths and output shapes (of one image) of the trunk's modules before ``begin``; they do not run.
    ``image`` is the shape of an image [channels, height, width].
    """

    begin: Tap | None = None
    end: Tap | None = None
    skipped: tuple[tuple[str, tuple[int, ...]], ...] = ()
    image: tuple[int, int, int] = (3, 32, 32)

    def run(self, module: nn.Module, x: Tensor, watch: Sequence[Tap] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output of the segment, and those of the watched layers by the names of their taps.

        ``x`` is the output of ``begin``, [batch, ...], or the images [batch, channels, height, width]. The watched
        layers must lie within the segment.
        """
        maps: dict[str, Tensor] = {}
        images = x
        with contextlib.ExitStack() as stack:
            if self.begin is not None:
                # Zeros without memory of their own: nothing that depends on their values reaches the output.
                images = x.new_zeros(1).expand(len(x), *self.image)
                for path, shape in self.skipped:
                    stack.enter_context(answering(module.get_submodule(path), x.new_zeros(1).expand(len(x), *shape)))
                for layer in {module.get_submodule(self.begin.path), _last_of(module, self.begin.path)}:
                    stack.enter_context(answering(layer, x))
            for tap in watch:
                stack.enter_context(_recording(_last_of(module, tap.path), tap, maps))
            if self.end is not None:
                stack.enter_context(_stopping_at(_last_of(module, self.end.path)))
            try:
                output = module(images)
            except _ReachedError as reached:
                output = reached.output
        return output, maps


def watched(module: nn.Module, images: Tensor, taps: Sequence[Tap]) -> tuple[Tensor, list[Tensor]]:
    """Return the output of a network on images, and those of the layers ``taps`` as [batch, channels, height, width].

    ``images`` are [batch, channels, height, width].
    """
    output, maps = Segment().run(module, images, taps)
    return output, [as_maps(maps[layer.name], layer) for layer in taps]


class _ReachedError(Exception):
    """Stops the forward pass at the end of a segment; not a failure."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def _last_of(network: nn.Module, path: str) -> nn.Module:
    """Return the layer that puts out what the one at ``path`` does.

    timm's networks that recompute their activations call the blocks of a stage, and never the stage itself. In others
    the last layer of a stage may run in other places too, such as an activation that all share.
    """
    layer, recomputes = network, False
    for name in filter(None, path.split(".")):
        recomputes |= bool(vars(layer).get("grad_checkpointing"))
        layer = layer.get_submodule(name)
    while (
        recomputes and isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward and len(layer)
    ):
        layer = layer[-1]
    return layer


@contextlib.contextmanager
def _recording(layer: nn.Module, tap: Tap, maps: dict[str, Tensor]) -> Iterator[None]:
    def keep(output: Tensor) -> None:
        maps[tap.name] = output

    if tap.before:
        with replaced(layer, Watched(layer.forward, keep)):
            yield
        return

    def record(_: nn.Module, __: Any, output: Tensor) -> None:
        keep(output.clone() if tap.copied else output)

    handle = layer.register_forward_hook(record)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _stopping_at(layer: nn.Module) -> Iterator[None]:
    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        raise _ReachedError(output)

    handle = layer.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def segments(network: Network, taps: Sequence[Tap]) -> list[Segment]:
    """Return the network cut at the taps: one segment that ends at each of them, and one after the last.

    Raises:
        UsageError: the taps are not in the order in which they run.
        Error: the layers after a tap read more than its output, so that the network cannot be cut there.
    """
    paths, order = [tap.path for tap in taps], list(_outputs(network, taps)[1])
    if paths != order:
        raise UsageError(
            f"{network.architecture.spec}: cannot be cut at {', '.join(paths)}: name each layer once, in the order in "
            f"which they run ({', '.join(order)})"
        )
    possible = cuttable(network, taps)
    for tap in taps:
        if tap not in possible:
            raise Error(
                f"{network.architecture.spec}: cannot be cut at {tap.path}: later layers read more than its output; "
                "name other layers with --taps"
            )
    trunk = units(network)
    return [_segment(network, trunk, begin, end) for begin, end in zip([None, *taps], [*taps, None], strict=True)]


def cuttable(network: Network, taps: Sequence[Tap]) -> list[Tap]:
    """Return the taps at which the network can be cut: their output alone determines the logits."""
    possible, trunk = [], units(network)
    logits, maps = _outputs(network, taps)
    with torch.no_grad(), evaluating(network.module):
        for tap in taps:
            try:
                from_tap, _ = _segment(network, trunk, tap, None).run(network.module, maps[tap.path])
            except FAILURES:
                continue
            if from_tap.shape == logits.shape and torch.allclose(from_tap, logits, rtol=1e-4, atol=1e-5):
                possible.append(tap)
    return possible


def _outputs(network: Network, taps: Sequence[Tap]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits of two random images and the outputs of the taps by path, in the order in which they run."""
    shape = network.architecture.input
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(network.module):
        return Segment(image=shape).run(network.module, images, taps)


def _segment(network: Network, trunk: Sequence[Unit], begin: Tap | None, end: Tap | None) -> Segment:
    paths = [unit.tap.path for unit in trunk]
    count = paths.index(begin.path) if begin is not None and begin.path in paths else 0
    skipped = tuple((unit.tap.path, unit.tap.shape) for unit in trunk[:count])
    return Segment(begin, end, skipped, network.architecture.input)


@dataclass(frozen=True)
class Part:
    """One segment of a network that was cut.

    ``cut`` are all segments, ``learnt`` the names of the parameters that are trained in each, and ``index`` is the
    place of this one.
    """

    index: int
    cut: tuple[Segment, ...]
    learnt: tuple[tuple[str, ...], ...]

    @property
    def segment(self) -> Segment:
        """The segment of this part."""
        return self.cut[self.index]

    @property
    def learns(self) -> tuple[str, ...]:
        """The names of the parameters that are trained in this part."""
        return self.learnt[self.index]


def parts_of(network: Network, taps: Sequence[Tap]) -> list[Part]:
    """Return the network cut at the taps, each part with the parameters that no part before it depends on.

    Raises:
        Error: the network cannot be cut at one of the taps.
    """
    cut = segments(network, taps)
    learnt = tuple(learnt_in(network, cut))
    return [Part(index, tuple(cut), learnt) for index in range(len(cut))]


def learnt_in(network: Network, cut: Sequence[Segment]) -> list[tuple[str, ...]]:
    """Return for each segment the names of the parameters that it is the first to depend on."""
    shape = network.architecture.input
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    named: Mapping[str, nn.Parameter] = dict(network.module.named_parameters())
    flags = {name: parameter.requires_grad for name, parameter in named.items()}
    remaining = dict(named)
    learnt = []
    network.module.requires_grad_(True)
    try:
        with evaluating(network.module), torch.enable_grad():
            for segment in cut:
                output, _ = segment.run(network.module, x)
                gradients = torch.autograd.grad(output.sum(), list(remaining.values()), allow_unused=True)
                used = tuple(name for name, grad in zip(remaining, gradients, strict=True) if grad is not None)
                learnt.append(used)
                remaining = {name: parameter for name, parameter in remaining.items() if name not in used}
                x = output.detach()
                if not remaining:
                    break
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(flags[name])
    return [*learnt, *[()] * (len(cut) - len(learnt))]
