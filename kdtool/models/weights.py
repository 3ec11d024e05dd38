"""Load the weights that other programs saved into a network."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.models.weight_files import first_few
from kdtool.models.weight_names import NORMALISATION, Match, match

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def fit_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    file: object = "the weights",
    *,
    classes: int | None = None,
    trains: bool = False,
) -> list[str]:
    """Load weights into a network, in place, and return the names of those that it keeps; all others must fit.

    Prefixes in front of the network's names are removed, whatever they are. What lies outside the network (a loss, an
    average of the weights) is ignored, and said to be. A module that only wraps the network of the file, so that all
    its names begin with those of the wrapper, is filled inside, which is said. Weights of parts that the network was
    built without (auxiliary heads), and of buffers that it computes itself, are ignored. Batch-norm's counters, which
    old files lack, stay as they are. ``file`` stands in the messages.

    ``classes`` are those of the data set, if there is one, and ``trains`` says that the network is trained on it: a
    classifier for another number of classes is then left out, which is said, and the network keeps its own. So it does
    where the file has no classifier, as those of foundation models have none.

    Raises:
        Error: the weights do not fit; the message lists what is missing, unexpected or of another shape, and what to
            do. Or the network is in them twice.
    """
    own = module.state_dict()
    if (wrapped := _wrapped(module, own, weights)) is not None:
        logging.getLogger("kdtool").warning(
            "%s: has no %s. in front of its names; read into that part of %s", *(file, wrapped, type(module).__name__)
        )
        kept = fit_weights(module.get_submodule(wrapped), weights, file, classes=classes, trains=trains)
        return [f"{wrapped}.{name}" for name in kept]
    found = match(weights, list(own), _not_saved(module), lambda name, other: _equal(weights[name], weights[other]))
    if found.copies:
        raise Error(
            f"{file}: holds the network several times, below {first_few(list(found.copies))}; save one of them alone"
        )
    weights = {name: weights[file_name] for name, file_name in found.inside.items()}
    state = OrderedDict(
        (name, tensor) for name, tensor in weights.items() if name in own or not _is_ignored(module, name)
    )
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    if not counters & set(state):
        state.update({name: own[name] for name in counters})
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    other = {name: state[name] for name in own if name in state and not _same_kind(state[name], own[name])}
    classifier = _classifier(own, other, classes)
    absent = [] if unexpected else _absent_classifier(own, missing, classes)
    missing = [name for name in missing if name not in absent]
    if trains:
        other = {name: tensor for name, tensor in other.items() if name not in classifier}
    elif classifier and len(classifier) == len(other) and not missing and not unexpected:
        raise Error(
            f"{file}: its classifier ({first_few(classifier)}) is for {len(other[classifier[0]])} classes, and the "
            f"data set has {classes}; with --epochs above 0 a fresh one is trained; to import the network as it is, "
            f"give --classes {len(other[classifier[0]])} in place of --data"
        )
    if missing or unexpected or other:
        parts = [
            f"{len(missing)} missing ({first_few(missing)})" if missing else "",
            f"{len(unexpected)} unexpected ({first_few(unexpected)})" if unexpected else "",
            f"{len(other)} of another shape ({first_few([_shapes(n, t, own[n]) for n, t in other.items()])})"
            if other
            else "",
        ]
        differences = ", ".join(part for part in parts if part)
        hint = _suggestion(own, missing, unexpected, other, of_data=classes is not None)
        raise Error(f"the weights do not fit {type(module).__name__}: {differences}; {hint}")
    if classifier:
        logging.getLogger("kdtool").warning(
            "%s: its classifier is for %d classes, and the data set has %d: %s of the network begin with fresh weights",
            *(file, len(state[classifier[0]]), classes, first_few(classifier)),
        )
    if absent:
        until = "begin with fresh weights"
        if not trains:
            until = (
                "are random: train them with --epochs above 0, or let it teach by its maps (--method fitnets, rkd, "
                "wkd --logit-weight 0 --feature-weight 0.006), not by its logits"
            )
        logging.getLogger("kdtool").warning("%s: has no classifier: %s %s", file, first_few(absent), until)
    fresh = [*classifier, *absent]
    load_exactly(module, {**state, **{name: own[name] for name in fresh}})
    _say(found, file)
    return fresh


def _classifier(own: Mapping[str, Tensor], other: Mapping[str, Tensor], classes: int | None) -> list[str]:
    """Return the names of weights that differ in their number of classes alone; none where the numbers are several.

    What else has as many outputs as there are classes is read by a layer, which would differ in its inputs.
    """
    names = [
        name
        for name, tensor in other.items()
        if own[name].shape[:1] == (classes,) != tensor.shape[:1] != () and _same_kind(tensor[:0], own[name][:0])
    ]
    return names if len({len(other[name]) for name in names}) == 1 else []


def _absent_classifier(own: Mapping[str, Tensor], missing: list[str], classes: int | None) -> list[str]:
    """Return all missing weights if they are those of a classifier: the last of the network, with a row per class."""
    last = list(own)[-len(missing) :]
    is_one = missing == last != list(own) and all(own[name].shape[:1] == (classes,) for name in missing)
    return missing if is_one else []


def _wrapped(module: nn.Module, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Return the path of the part that holds all weights of a network, if a file has them without it; else None."""
    if match(weights, list(own)).inside.keys() & own.keys():
        return None
    path = ""
    while len(firsts := {name.removeprefix(path).partition(".")[0] for name in own}) == 1:
        path += f"{firsts.pop()}."
        names = [name.removeprefix(path) for name in own]
        if not all(name.startswith(path) for name in own):
            return None
        if match(weights, names).inside.keys() & {*names}:
            part = dict(module.named_modules()).get(path[:-1])
            return path[:-1] if part is not None and [*part.state_dict()] == names else None
    return None


def _say(found: Match, file: object) -> None:
    """Say which weights were found below another prefix, and what lies outside the network."""
    logger = logging.getLogger("kdtool")
    if found.moved:
        own, names = first_few(list(found.moved)), first_few(list(found.moved.values()))
        logger.warning("%s: %s of the network: read from %s", file, own, names)
    if found.outside:
        entries = "entry" if len(found.outside) == 1 else "entries"
        normalises = any(NORMALISATION.fullmatch(name.rpartition(".")[2]) for name in found.outside)
        logger.warning(
            "%s: %d %s outside the network ignored: %s%s",
            *(file, len(found.outside), entries, first_few(found.outside)),
            "; it normalised its images itself: give the same --mean and --std" if normalises else "",
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _not_saved(module: nn.Module) -> list[str]:
    """Return the names of the buffers that a network does not save."""
    return [
        f"{path}.{name}".removeprefix(".")
        for path, part in module.named_modules()
        for name in part._non_persistent_buffers_set
    ]


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights of exactly this network, in place.

    Unlike the result of `state_dict()`, a plain dict does not hold the versions of the modules that saved it, without
    which some networks (MNASNet) refuse weights. The current versions of the modules are used.

    Raises:
        RuntimeError: a name or a shape differs.
    """
    state = OrderedDict(weights)
    state._metadata = getattr(module.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=True)


def _is_ignored(module: nn.Module, name: str) -> bool:
    """Return whether a weight is of a part that the network was built without, or of a buffer that it does not save."""
    if getattr(module, name.partition(".")[0], module) is None:
        return True
    path, _, leaf = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return False
    return leaf in owner._non_persistent_buffers_set


def _same_kind(loaded: Tensor, own: Tensor) -> bool:
    """Return whether shapes and kinds of numbers are equal; the integers of a quantised weight are not its values."""
    same = loaded.dtype in _FLOATS if own.dtype in _FLOATS else loaded.dtype == own.dtype
    return same and loaded.shape == own.shape


def _suggestion(
    own: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    other: Mapping[str, Tensor],
    *,
    of_data: bool,
) -> str:
    """Return the options that would make the weights fit, if the shapes tell them.

    ``of_data`` says that the data set decides how many classes there are.
    """
    if missing or unexpected:
        return "they may be of another network; name the network that they were trained for"
    options = {_option_for(name, tensor, own[name]) for name, tensor in other.items()}
    of_classes = {option for option in options if option.startswith("--classes")}
    if of_data:
        options -= of_classes
    if not options or "" in options or len(of_classes) > 1:
        more = "" if of_data else "--classes, "
        return f"build the network as it was when they were trained ({more}--in-channels, --image-size, --stem)"
    return f"try {' '.join(sorted(options))}"


def _option_for(name: str, loaded: Tensor, own: Tensor) -> str:
    if loaded.ndim != own.ndim or not loaded.ndim:
        return ""
    differing = [axis for axis in range(own.ndim) if loaded.shape[axis] != own.shape[axis]]
    if "pos" in name and differing == [1] and own.ndim == 3:
        return "--image-size of their training"
    if differing == [0]:
        return f"--classes {loaded.shape[0]}"
    if differing == [1] and own.ndim == 4:
        return f"--in-channels {loaded.shape[1]}"
    if differing == [2, 3]:
        return f"--stem {'small' if loaded.shape[2] == 3 else 'default'}"
    return ""


def _shapes(name: str, loaded: Tensor, own: Tensor) -> str:
    if loaded.shape == own.shape:
        return f"{name} {loaded.dtype}, here {own.dtype}"
    return f"{name} {list(loaded.shape)}, here {list(own.shape)}"
