"""Read weights that other programs saved, and load them into a network."""

from __future__ import annotations

import argparse
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.utils.tensor_files import printable, safe_load

# Keys under which training scripts store the weights; averaged ones first, as in timm's own loader.
_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
)

# Prefixes that DataParallel and torch.compile add to every name.
_PREFIXES = ("module.", "_orig_mod.")

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# How many names an error message lists.
_SHOWN = 4


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state_dict in a .pth, .pt or .safetensors file: tensors by name.

    A dict that a training script put around it (``{"state_dict": ...}``, averaged weights first) is unwrapped, and the
    prefixes that DataParallel and torch.compile add to the names are removed.

    Raises:
        Error: the file holds no state_dict; the message says what it holds.
    """
    # The scripts of timm, DeiT and MAE save their command-line arguments with the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = safe_load(path)
    if isinstance(content, dict) and content.get("format") == "kdtool":
        raise Error(f"{path}: a kdtool checkpoint already; use it directly: kdtool distill {path}")
    weights = _strip(_unwrap(Path(path), content))
    infinite = [
        name for name, tensor in weights.items() if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all())
    ]
    if infinite:
        logging.getLogger("kdtool").warning(
            "%s: %d of %d tensors hold numbers that are not finite (%s)",
            *(path, len(infinite), len(weights), _first_few(infinite)),
        )
    return weights


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    for _ in range(4):
        if _is_state_dict(content):
            return dict(content)
        if not isinstance(content, dict):
            break
        named = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)]
        inner = named[:1] or [value for value in content.values() if _is_state_dict(value)]
        if len(inner) != 1:
            break
        content = inner[0]
    what = type(content).__name__
    if isinstance(content, dict):
        what = f"a dict of {_first_few([str(key) for key in content])}" if content else "an empty dict"
    raise Error(f"{path}: holds no state_dict but {what}; save one: torch.save(module.state_dict(), FILE)")


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _strip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # torch.optim.swa_utils adds this entry, the number of models it has averaged.
    weights = {name: tensor for name, tensor in weights.items() if name != "n_averaged"}
    while prefix := _common_prefix(weights):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _common_prefix(names: Iterable[str]) -> str:
    """Return the known prefix that all names have, or an empty string."""
    names = list(names)
    return next((prefix for prefix in _PREFIXES if names and all(name.startswith(prefix) for name in names)), "")


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a network, in place; every name and shape must be the same.

    Weights of parts that the network was built without (auxiliary heads), and of buffers that it computes itself, are
    ignored. Batch-norm's counters, which old files lack, stay as they are.

    Raises:
        Error: the weights do not fit; the message lists what is missing, unexpected or of another shape, and what to
            do.
    """
    own = module.state_dict()
    if not any(name in own for name in weights):
        # Lightning stores the network in an attribute called model.
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    state = OrderedDict(
        (name, tensor) for name, tensor in weights.items() if name in own or not _is_ignored(module, name)
    )
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    if not counters & set(state):
        state.update({name: own[name] for name in counters})
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    other = {name: state[name] for name in own if name in state and not _same_kind(state[name], own[name])}
    if missing or unexpected or other:
        parts = [
            f"{len(missing)} missing ({_first_few(missing)})" if missing else "",
            f"{len(unexpected)} unexpected ({_first_few(unexpected)})" if unexpected else "",
            f"{len(other)} of another shape ({_first_few([_shapes(n, t, own[n]) for n, t in other.items()])})"
            if other
            else "",
        ]
        differences = ", ".join(part for part in parts if part)
        hint = _suggestion(own, missing, unexpected, other)
        raise Error(f"the weights do not fit {type(module).__name__}: {differences}; {hint}")
    load_exactly(module, state)


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
    own: Mapping[str, Tensor], missing: list[str], unexpected: list[str], other: Mapping[str, Tensor]
) -> str:
    """Return the options that would make the weights fit, if the shapes tell them."""
    if missing or unexpected:
        return "they may be of another network; name the network that they were trained for"
    options = {_option_for(name, tensor, own[name]) for name, tensor in other.items()}
    if "" in options or len({option for option in options if option.startswith("--classes")}) > 1:
        return "build the network as it was when they were trained (--classes, --in-channels, --image-size, --stem)"
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


def _first_few(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(printable(name, 100) for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
