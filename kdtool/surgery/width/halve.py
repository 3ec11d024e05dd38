"""Make all layers of a network narrower by slicing."""

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
from kdtool.surgery.slicing.kept_indices import whole_ratios
from kdtool.surgery.slicing.tensors import heads_of
from kdtool.surgery.width.cut import Cut, Failure, narrowed, outputs_of

# What structures demand of a width: halves or quarters that are split apart.
_PARTS = (2, 4)

_MOST_RATIOS = 3

# How many kinds of layers may be left as wide as they are before a network is given up.
_MOST_PINNED = 4


def halve_widths(
    network: Network,
    *,
    ratio: float = 0.5,
    round_to: int = 1,
    times: int = 1,
    init: str = "fresh",
    scope: str = "all",
) -> Network:
    """Return a copy of the network in which every feature dimension of every layer has ``ratio`` of its size.

    Of each dimension the evenly spaced indices are kept, with 0.5 every second one; what an image's channels and the
    classes demand stays. Sizes are rounded up, to multiples of ``round_to``, never below 1; where the exact ones do
    not fit together (odd widths that are split in two), up to the next that do. ``times`` is that with
    ``ratio ** times``. With ``scope="inner"`` only the widths inside of residual blocks change. With ``init="fresh"``
    the weights are drawn anew under the current random state, as the network's designers start them; with
    ``"inherit"`` they are the kept part of the old ones, of the strongest channels where it is known which layers'
    channels go together.

    Raises:
        Error: the network does not run afterwards: it has a structure that slicing does not know. Or most of its
            widths would fall below 1. Or it cannot be proven that each inherited weight is given the channel that it
            was given before.
    """
    architecture = network.architecture
    if not 0 < ratio < 1:
        raise Error(f"{architecture.spec}: a ratio of {ratio:g} does not make it smaller; give one between 0 and 1")
    if scope not in ("all", "inner"):
        raise Error(f"{architecture.spec}: there is no scope {scope!r}; it is all or inner")
    fresh = init == "fresh"
    text = f"widths x {ratio:g}" + f", {times} times" * (times > 1)
    _refuse_nothing_left(network, ratio**times, text)
    if not fresh:
        _refuse_rotary(network)
    base = outline(architecture)
    inside = None
    if scope == "inner":
        from kdtool.surgery.width.inner_layers import inner_layers

        inside = inner_layers(network)
    cut = Cut(ratio**times, round_to, fixed=fixed_dimensions(architecture, base), inside=inside)
    module = _first_that_works(network, cut, fresh=fresh, text=text)
    refined = capture(architecture, module, base=base)
    if fresh:
        fill(module, skeleton(architecture))
    return Network(refined, module.eval())


def least_ratio(network: Network) -> float:
    """Return the ratio below which most widths would fall below 1.

    A few narrow layers, such as those that squeeze, may well come down to one channel.
    """
    return 1 / (sorted(sizes)[len(sizes) // 2] if (sizes := _widths(network)) else 1)


def _widths(network: Network) -> list[int]:
    layers = [(path, layer) for path, layer in network.module.named_modules() if isinstance(layer, LAYERS)]
    return [size for path, layer in layers if (size := outputs_of(path, layer)[2]) > 1]


def _refuse_nothing_left(network: Network, ratio: float, text: str) -> None:
    if ratio < least_ratio(network) * (1 - 1e-9):
        sizes = _widths(network)
        below = sum(size * ratio < 1 for size in sizes)
        raise Error(
            f"{network.architecture.spec}: {text}: {below} of its {len(sizes)} layers would fall below a width of 1"
            "; ask for less"
        )


def _refuse_rotary(network: Network) -> None:
    # Rotary embeddings turn pairs of channels; slicing would separate them, and the network would run all the same.
    if any("Rotary" in type(module).__name__ for module in network.module.modules()):
        raise Error(
            f"{network.architecture.spec}: its rotary position embeddings pair channels that slicing would separate"
            "; start from fresh weights instead of inherited ones"
        )


def _first_that_works(network: Network, cut: Cut, *, fresh: bool, text: str) -> nn.Module:
    """Return a narrower module, by the exact sizes or else by the nearest that fit together.

    Raises:
        Error: why the exact ones do not.
    """
    first = None
    if not fresh:
        found = narrowed(network, dataclasses.replace(cut, strengths=_strengths(network)), aligned=True)
        if not isinstance(found, Failure):
            return found
    tried = cut
    for _ in range(2):
        for one in _cuts(network.module, tried, fresh=fresh):
            found = narrowed(network, one, aligned=not fresh)
            if not isinstance(found, Failure):
                return found
            first = first or found
        if first is None or first.where is None:
            break
        # In the module where it fails, and its like, attributes may mean the widest of several sizes.
        tried = dataclasses.replace(cut, widest_in=frozenset({type(network.module.get_submodule(first.where))}))
    assert first is not None
    pinned = _pinned(network, cut, first, fresh=fresh)
    if pinned is not None:
        return pinned
    way_out = "" if fresh else "; start from fresh weights instead of inherited ones"
    raise Error(f"{network.architecture.spec}: {text}: {first.reason}{way_out}")


def _strengths(network: Network) -> dict[str, Tensor]:
    """Return the importances of the output channels of layers, but not of those inside of an attention.

    Heads have to keep equally many channels each. A layer of an attention is not inside of it where its channels are
    as important as those of a layer elsewhere: then they are added.
    """
    # Not at the top: the library behind it takes a while to import.
    from kdtool.surgery.channels.groups import strengths

    found = strengths(network)
    attends = {path for path in found if heads_of(network.module.get_submodule(path.rpartition(".")[0])) is not None}
    outside = [found[path] for path in found.keys() - attends]
    return {
        path: one
        for path, one in found.items()
        if path not in attends or any(torch.equal(one, other) for other in outside)
    }


def _cuts(module: nn.Module, cut: Cut, *, fresh: bool) -> Iterator[Cut]:
    """Yield the cut, then ones that read attributes otherwise, then ones that round more coarsely.

    By sizes alone as well, which is enough for fresh weights.
    """
    ratios = [cut.ratio, *whole_ratios(module, cut.ratio, cut.round_to)[:_MOST_RATIOS]]
    coarser = [dataclasses.replace(cut, ratio=ratio) for ratio in ratios]
    coarser[1:1] = [dataclasses.replace(cut, widest=True), dataclasses.replace(cut, told=True)]
    for one in coarser + [dataclasses.replace(cut, parts=parts) for parts in _PARTS]:
        yield one
        if fresh and cut.inside is None:
            yield dataclasses.replace(one, follow=False)


def _pinned(network: Network, cut: Cut, failure: Failure, *, fresh: bool) -> nn.Module | None:
    """Return a narrower module in which some kinds of layers keep all outputs or inputs: those that are no channels.

    Where a cut fails in a module, the layers in it are tried one after the other, each with its like in other modules
    of the same class; one that moves the failure elsewhere is left whole.
    """
    for _ in range(_MOST_PINNED):
        if failure.where is None:
            return None
        kinds = _kinds(network.module, failure.where)
        for dim, kind in [(dim, kind) for dim in (0, 1) for kind in kinds]:
            fixed: Fixed = cut.fixed | {(f"{path}.weight", dim) for path in kind}
            tried = dataclasses.replace(cut, fixed=fixed)
            found = narrowed(network, tried, aligned=not fresh)
            if not isinstance(found, Failure):
                return found
            if found.where != failure.where:
                cut, failure = tried, found
                break
        else:
            return None
    return None


def _kinds(module: nn.Module, where: str) -> list[list[str]]:
    """Return the layers directly in the module at ``where``, each with those that stand so in modules of its class."""
    owner = module.get_submodule(where)
    while where and (isinstance(owner, LAYERS) or not any(isinstance(child, LAYERS) for child in owner.children())):
        where = where.rpartition(".")[0]
        owner = module.get_submodule(where)
    names = [name for name, child in owner.named_children() if isinstance(child, LAYERS)]
    like = [path for path, part in module.named_modules() if type(part) is type(owner)]
    return [[f"{path}.{name}".removeprefix(".") for path in like] for name in names]
