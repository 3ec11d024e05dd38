"""Make all layers of a network narrower by slicing."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.architecture import Architecture, Network, capture, skeleton
from kdtool.errors import Error
from kdtool.structure import trial
from kdtool.structure.alignment import misaligned
from kdtool.structure.attributes import fit_attributes
from kdtool.structure.flow import Flow, trace
from kdtool.structure.fresh import fill
from kdtool.structure.patterns import evenly, uneven
from kdtool.structure.slicing import heads_of, slice_tensors
from kdtool.structure.unset import Unset

Fixed = set[tuple[str, int]]
"""(path of a tensor, dimension) whose size follows from the classes or the images."""


def halve_widths(
    network: Network, *, ratio: float = 0.5, round_to: int = 1, times: int = 1, init: str = "fresh"
) -> Network:
    """Return a copy of the network in which every feature dimension of every layer has ``ratio`` of its size.

    Of each dimension the evenly spaced indices are kept, with 0.5 every second one; what an image's channels and the
    classes demand stays. Sizes are rounded up, to multiples of ``round_to``. With ``init="fresh"`` the weights are
    drawn anew under the current random state, as the network's designers start them; with ``"inherit"`` they are the
    kept part of the old ones. ``times`` does it again and again.

    Raises:
        Error: the network does not run afterwards: it has a structure that slicing does not know.
    """
    architecture = network.architecture
    if not 0 < ratio < 1:
        raise Error(f"{architecture.spec}: a ratio of {ratio:g} does not make it smaller; give one between 0 and 1")
    if init == "inherit":
        _refuse_rotary(network)
    base = _base(architecture, fresh=init == "fresh")
    fixed = fixed_dimensions(architecture, base)
    try:
        module = _narrowed(network, fixed, ratio, round_to, times, follow=True, aligned=init == "inherit")
    except Error as error:
        if init == "inherit":
            raise
        try:
            # Sizes that fit are enough for fresh weights.
            module = _narrowed(network, fixed, ratio, round_to, times, follow=False, aligned=False)
        except Error:
            raise error from None
    refined = capture(architecture, module, base=base)
    if init == "fresh":
        fill(module, base)
    return Network(refined, module.eval())


def _refuse_rotary(network: Network) -> None:
    # Rotary embeddings turn pairs of channels; slicing would separate them, and the network would run all the same.
    if any("Rotary" in type(module).__name__ for module in network.module.modules()):
        raise Error(
            f"{network.architecture.spec}: its rotary position embeddings pair channels that slicing would separate"
            "; start from fresh weights instead of inherited ones"
        )


def _narrowed(
    network: Network, fixed: Fixed, ratio: float, round_to: int, times: int, *, follow: bool, aligned: bool
) -> nn.Module:
    """Return a narrower copy of a network's module; ``follow`` its channels through it, or go by sizes alone.

    Raises:
        Error: it does not run, or where it has to be ``aligned``, a layer is given other channels than it was cut for.
    """
    module = copy.deepcopy(network.module).cpu().float().eval()
    text = f"widths x {ratio:g}"
    for count in range(1, times + 1):
        done = text if times == 1 else f"{text}, {count} of {times} times"
        flow = _narrow(network.architecture, module, fixed, ratio, round_to, follow=follow)
        trial.check(network.architecture, module, done)
        wrong = misaligned(module, network.architecture.input, flow) if aligned else []
        if aligned and (wrong or flow.conflicts):
            where = [*wrong, *sorted(flow.conflicts)][0]
            raise Error(
                f"{network.architecture.spec}: {done}: its channels cannot be followed through {where}; "
                "start from fresh weights instead of inherited ones"
            )
    return module


def _base(architecture: Architecture, *, fresh: bool) -> nn.Module:
    if fresh:
        return skeleton(architecture)
    with torch.random.fork_rng(devices=[]), Unset():
        return skeleton(architecture)


def _narrow(
    architecture: Architecture, module: nn.Module, fixed: Fixed, ratio: float, round_to: int, *, follow: bool
) -> Flow:
    owners = dict(module.named_modules())
    special = uneven(module, ratio)

    def keep(path: str, dim: int, size: int) -> Tensor:
        if size == 1 or (path, dim) in fixed or size == _heads_around(owners, path):
            return torch.arange(size)
        inside = [special.get((owner, size)) for owner in _owners(path)]
        return next((kept for kept in inside if kept is not None), evenly(size, ratio, round_to))

    def choose(path: str, layer: nn.Module) -> Tensor:
        weight: Any = layer.weight
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            return keep(f"{path}.weight", 1, weight.shape[1] * layer.groups)
        return keep(f"{path}.weight", 0, weight.shape[0])

    try:
        flow = trace(module, architecture.input, choose)
    except trial.FAILURES:
        flow = Flow()  # the sizes alone decide, and the trial says whether they were enough
    for path in flow.single:
        # One row that shows no difference may be a class token, which no layer before it made.
        if len(flow.inputs[path]) == _inputs(owners[path]) and (f"{path}.weight", 1) not in fixed:
            del flow.inputs[path]
    if not follow:
        flow = _sizes_alone(flow, owners)
    widths = slice_tensors(module, flow, keep)
    fit_attributes(module, widths)
    return flow


def _sizes_alone(flow: Flow, owners: dict[str, nn.Module]) -> Flow:
    """Return what a flow says of inputs that no layer made, such as the stem's."""
    whole = {path: kept for path, kept in flow.inputs.items() if len(kept) == _inputs(owners[path])}
    return Flow(inputs=whole)


def _inputs(layer: nn.Module) -> int:
    return int(getattr(layer, "in_features", 0) or getattr(layer, "in_channels", 0))


def _owners(path: str) -> list[str]:
    """Return the paths of the modules that a tensor is in, from the nearest to the whole network's, which is empty."""
    names = path.split(".")[:-1]
    return [".".join(names[:count]) for count in range(len(names), -1, -1)]


def _heads_around(owners: dict[str, nn.Module], path: str) -> int | None:
    """Return the number of heads of the attention that a tensor is in."""
    found = (heads_of(owners[owner]) for owner in _owners(path))
    return next((heads for heads in found if heads is not None), None)


def fixed_dimensions(architecture: Architecture, base: nn.Module) -> Fixed:
    """Return the dimensions of ``base``, the architecture's skeleton, that other classes and images would change.

    Raises:
        Error: the base network cannot be built for other classes.
    """
    options = architecture.options
    more = {
        "classes": options["classes"] + 1,
        "in_channels": options["in_channels"] + 1,
        "image_size": 2 * options["image_size"],
    }
    try:
        return _changed(base, architecture, more)
    except (Error, *trial.FAILURES):
        # A network for images of one size or of three channels alone, say.
        fixed = _changed(base, architecture, {"classes": more["classes"]})
    for name in ("in_channels", "image_size"):
        with contextlib.suppress(Error, *trial.FAILURES):
            fixed |= _changed(base, architecture, {name: more[name]})
    return fixed


def _changed(base: nn.Module, architecture: Architecture, options: dict[str, int]) -> Fixed:
    changed = dataclasses.replace(architecture, options={**architecture.options, **options})
    with torch.random.fork_rng(devices=[]), Unset():
        other = _shapes(skeleton(changed))
    return {
        (path, dim)
        for path, shape in _shapes(base).items()
        if len(shape) == len(other.get(path, ()))
        for dim, (a, b) in enumerate(zip(shape, other[path], strict=True))
        if a != b
    }


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {path: tuple(tensor.shape) for path, tensor in [*module.named_parameters(), *module.named_buffers()]}
