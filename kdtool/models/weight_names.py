"""Find the weights of a network among the names of a file: below which prefix they are, and what lies outside.

Wrappers and training code add prefixes in any order: ``model._orig_mod.``, ``module.encoder.``, ``net.``. None of them
is known here by its name: the prefix is what stands before the network's own names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

# Names that wrappers (torch.compile, DataParallel, FSDP, Lightning's Fabric, activation checkpoints) insert anywhere.
_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})

# Copies that are not the network that learnt: averages over steps, and the teachers of self-supervised training.
_COPY = re.compile(
    r"ema|.*_ema|ema_.*|avg|averaged.*|swa|swa_.*|shadow|teacher|teacher_.*|.*_teacher|momentum.*|.*_momentum|.*_k|target.*"
)

# What training code keeps beside a network that it does not put under a prefix.
_BESIDE = re.compile(
    r"criterion|criteria|.*loss.*|.*metric.*|.*accuracy|.*_acc|acc_.*|optim.*|.*scheduler|n_averaged|normali[sz]e.*"
    r"|mean|std|(pixel|image|img)_(mean|std)|preprocess.*|mixup.*|augment.*|.*temperature|logit_scale"
)

# Entries that hold how images were normalised, by the last part of their names.
NORMALISATION = re.compile(r"(pixel_|image_|img_|new_)?(mean|std)")

# The files of torchvision's DenseNets are from before torch refused dots in the names of modules.
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

# Without these the prefixes of files that do not fit would stay in the message.
_COMMON = ("model.", "net.", "network.", "backbone.", "encoder.", "student.")


@dataclass(frozen=True)
class Match:
    """Where the weights of a network are in a file."""

    inside: dict[str, str]
    """By the network's name, or what is left of the file's name without its prefix, the file's name."""
    outside: list[str] = field(default_factory=list)
    """The file's names of what does not belong to the network."""
    moved: dict[str, str] = field(default_factory=dict)
    """By the network's name, the file's name of weights that are found below another prefix."""
    copies: tuple[str, ...] = ()
    """The prefixes, if there are several, below which the whole network is and none of which can be preferred."""


def match(
    names: Iterable[str],
    own: Collection[str],
    also: Iterable[str] = (),
    same: Callable[[str, str], bool] = lambda name, other: False,
) -> Match:
    """Return where the weights with the network's names ``own`` are among the ``names`` of a file.

    The file may also have names of ``also``. ``same`` says whether two of the file's names hold equal weights.
    """
    clean = _without_wrappers(list(names), own)
    wanted = {*own, *also}
    found: Counter[str] = Counter()
    for name in clean:
        for prefix, rest in _splits(name):
            found[prefix] += rest in wanted
    most = max(found.values(), default=0)
    if 2 * most < len(own):
        return Match(_strip_common(clean))
    best = [prefix for prefix, count in found.items() if count == most]
    best = [prefix for prefix in best if not _is_copy(prefix)] or best
    prefix = min(best, key=lambda prefix: (len(prefix), prefix))
    others = [other for other in best if other != prefix and not _equal(clean, prefix, other, wanted, same)]
    if others:
        return Match({}, copies=(prefix, *others))
    inside = {name.removeprefix(prefix): file_name for name, file_name in clean.items() if name.startswith(prefix)}
    outside = {name: file_name for name, file_name in clean.items() if not name.startswith(prefix)}
    firsts = {name.partition(".")[0] for name in wanted}
    for name in list(inside):
        first = name.partition(".")[0]
        if first not in firsts and (_BESIDE.fullmatch(first) or _is_copy(f"{first}.")):
            outside[prefix + name] = inside.pop(name)
    missing = [name for name in own if name not in inside and not name.endswith(".num_batches_tracked")]
    moved = _moved(outside, missing)
    left = [file_name for file_name in outside.values() if file_name not in set(moved.values())]
    return Match({**inside, **moved}, left, moved)


def _splits(name: str) -> list[tuple[str, str]]:
    """Return every way to cut a name into a prefix, which is empty or ends in a point, and the rest."""
    parts = name.split(".")
    return [
        ("".join(f"{part}." for part in parts[:count]), ".".join(parts[count:])) for count in range(min(len(parts), 12))
    ]


def _without_wrappers(names: list[str], own: Collection[str]) -> dict[str, str]:
    """Return the file's names by what is left of them without the names of wrappers that the network does not use.

    Old names of layers are read as those of today.
    """
    used = {part for name in own for part in name.split(".")}
    new = names if any(map(_DENSE_LAYER.search, own)) else [_DENSE_LAYER.sub(r"\1\2", name) for name in names]
    for dropped in (_WRAPPERS - used, _WRAPPERS - used - {"module"}):
        clean = {
            ".".join(part for part in name.split(".") if part not in dropped): file_name
            for name, file_name in zip(new, names, strict=True)
        }
        if len(clean) == len(names):
            return clean
    return {name: name for name in names}


def _is_copy(prefix: str) -> bool:
    return any(_COPY.fullmatch(part) for part in prefix.split(".")[:-1])


def _equal(
    clean: Mapping[str, str], prefix: str, other: str, own: Iterable[str], same: Callable[[str, str], bool]
) -> bool:
    """Return whether the weights below two prefixes are equal."""
    pairs = [(clean.get(prefix + name), clean.get(other + name)) for name in own]
    return all(one == two or (one is not None and two is not None and same(one, two)) for one, two in pairs)


def _moved(outside: Mapping[str, str], missing: Collection[str]) -> dict[str, str]:
    """Return the weights that are missing if all of them are below one other prefix, such as that of a classifier."""
    prefixes: Counter[str] = Counter()
    for name in outside:
        for prefix, rest in _splits(name):
            prefixes[prefix] += rest in missing and not _is_copy(prefix)
    whole = [prefix for prefix, count in prefixes.items() if count == len(missing)]
    return {name: outside[whole[0] + name] for name in missing} if missing and len(whole) == 1 else {}


def _strip_common(clean: Mapping[str, str]) -> dict[str, str]:
    """Return names without usual prefixes that all of them have, for a message."""
    stripped = dict(clean)
    while prefix := next((p for p in _COMMON if stripped and all(name.startswith(p) for name in stripped)), ""):
        stripped = {name.removeprefix(prefix): file_name for name, file_name in stripped.items()}
    return stripped
