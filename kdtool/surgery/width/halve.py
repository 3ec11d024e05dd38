"""Make all layers of a network narrower by slicing, at the exact ratio or near it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.models.architecture import Network, capture, skeleton
from kdtool.models.layers import LAYERS
from kdtool.models.reinit import fill
from kdtool.surgery.slicing.fixed_dims import Fixed, fixed_dimensions, outline
from kdtool.surgery.slicing.inherited import InheritedNetwork
from kdtool.surgery.slicing.kept_indices import whole_ratios
from kdtool.surgery.slicing.tensors import heads_of
from kdtool.surgery.width.cut import Cut, Failure, Narrowed, narrowed, outputs_of

# Some structures split a width into halves or quarters.
_PARTS = (2, 4)

# How many coarser ratios are tried.
_MAX_RATIOS = 3

# How many kinds of layers may keep their widths before the network is refused.
_MAX_PINNED = 4


def halve_widths(
    network: Network,
    *,
    ratio: float = 0.5,
    round_to: int = 1,
    times: int = 1,
    init: str = "fresh",
    scope: str = "all",
    inside: frozenset[str] | None = None,
) -> Network:
    """Return a copy of the network in which every feature dimension of every layer has ``ratio`` of its size.

    Evenly spaced indices of each dimension are kept, with a ratio of 0.5 every second one. The channels of the images
    and the classes stay. Sizes are rounded up to multiples of ``round_to``, never below 1; where the exact sizes do not
    fit together (an odd width that is split in two, for example), up to the next sizes that do. ``times`` applies the
    ratio several times: it becomes ``ratio ** times``. With ``scope="inner"``, only the widths inside of residual
    blocks change; with ``inside``, only those of the layers with these paths. With ``init="fresh"``, the weights are
    drawn from the current random state, with the network's own initialisation. With ``"inherit"``, they are the kept
    part of the old weights: that of the strongest channels where Torch-Pruning's graph shows which channels of which
    layers go together.

    Raises:
        Error: an option is invalid; the network has a structure that slicing does not know, so that it does not run
            afterwards; most of its widths would fall below 1; or, with ``init="inherit"``, it cannot be shown that
            each weight reads the same channel as before.
    """
    architecture = network.architecture
    if not 0 < ratio < 1:
        raise Error(f"{architecture.spec}: a ratio of {ratio:g} does not make it smaller; give one between 0 and 1")
    if scope not in ("all", "inner"):
        raise Error(f"{architecture.spec}: unknown scope {scope!r}; choose all or inner")
    if init not in ("fresh", "inherit"):
        raise Error(f"{architecture.spec}: unknown init {init!r}; choose fresh or inherit")
    for option, value in (("times", times), ("round_to", round_to)):
        if value < 1:
            raise Error(f"{architecture.spec}: {option} is {value}; give 1 or more")
    fresh = init == "fresh"
    text = f"widths x {ratio:g}" + f", {times} times" * (times > 1)
    _check_widths_left(network, ratio**times, text)
    if not fresh:
        _check_no_rotary(network)
    base = outline(architecture)
    if scope == "inner":
        from kdtool.surgery.width.inner_layers import inner_layers

        inner = inner_layers(network)
        inside = inner if inside is None else inner & inside
    cut = Cut(ratio**times, round_to, fixed=fixed_dimensions(architecture, base), inside=inside)
    result = _first_that_works(network, cut, fresh=fresh, text=text)
    module = result.module
    refined = capture(architecture, module, base=base)
    if fresh:
        fill(module, skeleton(architecture))
        return Network(refined, module.eval())
    return InheritedNetwork(refined, module.eval(), result.kept)


def least_ratio(network: Network) -> float:
    """Return the ratio below which most widths of the network would fall below 1.

    A few narrow layers, such as those of squeeze-and-excitation, may be reduced to one channel.
    """
    return 1 / (sorted(sizes)[len(sizes) // 2] if (sizes := _widths(network)) else 1)


def _widths(network: Network) -> list[int]:
    """Return the numbers of output channels of all layers that have more than one."""
    layers = [(path, layer) for path, layer in network.module.named_modules() if isinstance(layer, LAYERS)]
    return [size for path, layer in layers if (size := outputs_of(path, layer)[2]) > 1]


def _check_widths_left(network: Network, ratio: float, text: str) -> None:
    """Raise an `Error` if most widths would fall below 1."""
    if ratio < least_ratio(network) * (1 - 1e-9):
        sizes = _widths(network)
        below = sum(size * ratio < 1 for size in sizes)
        raise Error(
            f"{network.architecture.spec}: {text}: {below} of its {len(sizes)} layers would fall below a width of 1"
            "; choose a larger ratio or apply it fewer times"
        )


def _check_no_rotary(network: Network) -> None:
    """Raise an `Error` if the network has rotary position embeddings.

    They rotate pairs of channels. Slicing would separate the pairs, and no other check would notice it.
    """
    if any("Rotary" in type(module).__name__ for module in network.module.modules()):
        raise Error(
            f"{network.architecture.spec}: its rotary position embeddings pair channels that slicing would separate"
            "; start from fresh weights instead of inherited ones"
        )


def _first_that_works(network: Network, cut: Cut, *, fresh: bool, text: str) -> Narrowed:
    """Return a narrower module: with the exact sizes, or with the nearest that fit together.

    Raises:
        Error: no cut works; the message gives the reason for the exact sizes.
    """
    first_failure = None
    if not fresh:
        result = narrowed(network, dataclasses.replace(cut, strengths=_strengths(network)), aligned=True)
        if not isinstance(result, Failure):
            return result
    base_cut = cut
    for _ in range(2):
        for variant in _variants(network.module, base_cut, fresh=fresh):
            result = narrowed(network, variant, aligned=not fresh)
            if not isinstance(result, Failure):
                return result
            first_failure = first_failure or result
        if first_failure is None or first_failure.where is None:
            break
        # In modules of the class that fails, attributes may have to get the largest of several new sizes.
        failing_class = type(network.module.get_submodule(first_failure.where))
        base_cut = dataclasses.replace(cut, widest_in=frozenset({failing_class}))
    assert first_failure is not None
    pinned = _with_pinned_layers(network, cut, first_failure, fresh=fresh)
    if pinned is not None:
        return pinned
    way_out = "" if fresh else "; start from fresh weights instead of inherited ones"
    raise Error(f"{network.architecture.spec}: {text}: {first_failure.reason}{way_out}")


def _strengths(network: Network) -> dict[str, Tensor]:
    """Return the importances of the output channels of layers, by path, without the layers inside of an attention.

    The strongest channels might lie in few heads, but each head has to keep the same number. A layer of an attention
    counts as outside if its importances equal those of a layer elsewhere: then their outputs are added.
    """
    # Imported here because Torch-Pruning takes long to import.
    from kdtool.surgery.channels.groups import strengths

    by_path = strengths(network)
    attends = {path for path in by_path if heads_of(network.module.get_submodule(path.rpartition(".")[0])) is not None}
    outside = [by_path[path] for path in by_path.keys() - attends]
    return {
        path: strength
        for path, strength in by_path.items()
        if path not in attends or any(torch.equal(strength, other) for other in outside)
    }


def _variants(module: nn.Module, cut: Cut, *, fresh: bool) -> Iterator[Cut]:
    """Yield the cut, then variants that interpret attributes in other ways, then variants that round more coarsely.

    Fresh weights need not receive the same channels as before, so for them each variant is also tried by sizes alone.
    """
    ratios = [cut.ratio, *whole_ratios(module, cut.ratio, cut.round_to)[:_MAX_RATIOS]]
    variants = [dataclasses.replace(cut, ratio=ratio) for ratio in ratios]
    variants[1:1] = [dataclasses.replace(cut, widest=True), dataclasses.replace(cut, by_attributes=True)]
    for variant in variants + [dataclasses.replace(cut, parts=parts) for parts in _PARTS]:
        yield variant
        if fresh and cut.inside is None:
            yield dataclasses.replace(variant, follow=False)


def _with_pinned_layers(network: Network, cut: Cut, failure: Failure, *, fresh: bool) -> Narrowed | None:
    """Return a narrower module in which some kinds of layers keep all outputs or inputs, or None if none works.

    The outputs or inputs of such layers are not channels but, for example, one number for each position. The layers of
    the module where the cut fails are tried one after the other, each together with the same layer of all modules of
    that class. If the failure then moves elsewhere, these layers stay whole and the search goes on there.
    """
    for _ in range(_MAX_PINNED):
        if failure.where is None:
            return None
        kinds = _layer_kinds(network.module, failure.where)
        for dim, kind in [(dim, kind) for dim in (0, 1) for kind in kinds]:
            fixed: Fixed = cut.fixed | {(f"{path}.weight", dim) for path in kind}
            pinned_cut = dataclasses.replace(cut, fixed=fixed)
            result = narrowed(network, pinned_cut, aligned=not fresh)
            if not isinstance(result, Failure):
                return result
            if result.where != failure.where:
                cut, failure = pinned_cut, result
                break
        else:
            return None
    return None


def _layer_kinds(module: nn.Module, where: str) -> list[list[str]]:
    """Return for each layer directly in the module at ``where`` its path in every module of the same class.

    If that module contains no layers directly, the nearest one around it that does takes its place.
    """
    owner = module.get_submodule(where)
    while where and (isinstance(owner, LAYERS) or not any(isinstance(child, LAYERS) for child in owner.children())):
        where = where.rpartition(".")[0]
        owner = module.get_submodule(where)
    names = [name for name, child in owner.named_children() if isinstance(child, LAYERS)]
    owners = [path for path, part in module.named_modules() if type(part) is type(owner)]
    return [[f"{path}.{name}".removeprefix(".") for path in owners] for name in names]
