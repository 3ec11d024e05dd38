"""Weights that other programs saved, and how they fit a network."""

from __future__ import annotations

import argparse
import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.utils.tensor_files import printable, safe_load

# Where training scripts keep the weights; averaged ones first, as timm's own loader has it.
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

# What DataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_SHOWN = 4


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state_dict that a .pth, .pt or .safetensors file holds, by parameter name.

    What training scripts put around it (``{"state_dict": ...}``, averaged weights first) and the prefixes that
    DataParallel and torch.compile put before the names are taken off.

    Raises:
        Error: the file holds no state_dict; the message says what it is.
    """
    # The scripts of timm, DeiT and MAE put their command-line arguments beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = safe_load(path)
    if isinstance(content, dict) and content.get("format") == "kdtool":
        raise Error(f"{path}: a kdtool checkpoint already; give it as it is, such as: kdtool distill {path}")
    weights = _strip(_unwrap(Path(path), content))
    infinite = [
        name for name, tensor in weights.items() if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all())
    ]
    if infinite:
        logging.getLogger("kdtool").warning(
            "%s: %d of %d tensors hold numbers that are not finite (%s)",
            *(path, len(infinite), len(weights), _some(infinite)),
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
        what = f"a dict of {_some([str(key) for key in content])}" if content else "an empty dict"
    raise Error(f"{path}: holds no state_dict but {what}; save one: torch.save(module.state_dict(), FILE)")


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _strip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # torch.optim.swa_utils counts there how many weights it has averaged.
    weights = {name: tensor for name, tensor in weights.items() if name != "n_averaged"}
    while prefix := next((one for one in _PREFIXES if weights and all(key.startswith(one) for key in weights)), ""):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a network, in place; every name and shape has to be the same.

    Left out are weights of parts that the network was built without (auxiliary heads) and of buffers that it computes
    itself; batch-norm's counters, which old files lack, start at zero.

    Raises:
        Error: they do not fit; the message lists what is missing, unexpected or of another shape, and the way out.
    """
    own = module.state_dict()
    if not any(name in own for name in weights):
        # Lightning keeps the network as an attribute of that name.
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    state = OrderedDict(
        (name, tensor) for name, tensor in weights.items() if name in own or not _left_out(module, name)
    )
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    if not counters & set(state):
        state.update({name: own[name] for name in counters})
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    other = {name: state[name] for name in own if name in state and not _same_kind(state[name], own[name])}
    if missing or unexpected or other:
        parts = [
            f"{len(missing)} missing ({_some(missing)})" if missing else "",
            f"{len(unexpected)} unexpected ({_some(unexpected)})" if unexpected else "",
            f"{len(other)} of another shape ({_some([_shapes(n, t, own[n]) for n, t in other.items()])})"
            if other
            else "",
        ]
        found = ", ".join(part for part in parts if part)
        raise Error(
            f"the weights do not fit {type(module).__name__}: {found}; {_way_out(own, missing, unexpected, other)}"
        )
    load_exactly(module, state)


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights that this version of the network saved, in place.

    A plain dict, unlike what `state_dict()` returns, does not hold the versions of the modules that saved it, without
    which some networks (MNASNet) refuse weights: they get the versions that the modules have.

    Raises:
        RuntimeError: a name or a shape differs.
    """
    state = OrderedDict(weights)
    state._metadata = getattr(module.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=True)


def _left_out(module: nn.Module, name: str) -> bool:
    """Whether the weight is of a part that this network has switched off, or of a buffer that it does not save."""
    if getattr(module, name.partition(".")[0], module) is None:
        return True
    path, _, leaf = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return False
    return leaf in owner._non_persistent_buffers_set


def _same_kind(given: Tensor, own: Tensor) -> bool:
    """Whether the shapes are equal and the numbers of a kind: a quantised weight's integers are not its values."""
    same = given.dtype in _FLOATS if own.dtype in _FLOATS else given.dtype == own.dtype
    return same and given.shape == own.shape


def _way_out(own: Mapping[str, Tensor], missing: list[str], unexpected: list[str], other: Mapping[str, Tensor]) -> str:
    """Return the option that would make the weights fit, where the shapes tell it."""
    if missing or unexpected:
        return "are they of this network? Name the one that they were trained for"
    options = {_option_for(name, tensor, own[name]) for name, tensor in other.items()}
    if "" in options or len({option for option in options if option.startswith("--classes")}) > 1:
        return "build the network as it was when they were trained (--classes, --in-channels, --image-size, --stem)"
    return f"try {' '.join(sorted(options))}"


def _option_for(name: str, given: Tensor, own: Tensor) -> str:
    if given.ndim != own.ndim or not given.ndim:
        return ""
    differing = [axis for axis in range(own.ndim) if given.shape[axis] != own.shape[axis]]
    if "pos" in name and differing == [1] and own.ndim == 3:
        return "--image-size of their training"
    if differing == [0]:
        return f"--classes {given.shape[0]}"
    if differing == [1] and own.ndim == 4:
        return f"--in-channels {given.shape[1]}"
    if differing == [2, 3]:
        return f"--stem {'small' if given.shape[2] == 3 else 'default'}"
    return ""


def _shapes(name: str, given: Tensor, own: Tensor) -> str:
    if given.shape == own.shape:
        return f"{name} {given.dtype}, here {own.dtype}"
    return f"{name} {list(given.shape)}, here {list(own.shape)}"


def _some(names: list[str]) -> str:
    """Return the first few of many names."""
    more = len(names) - _SHOWN
    return ", ".join(printable(name, 100) for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
