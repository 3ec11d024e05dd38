"""Structural edits as plain data: applied to a freshly built base, or read from an edited network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.models.modules import Projected, leave_out
from kdtool.models.weight_files import first_few

_PLAIN = (bool, int, float)


def drop_modules(module: nn.Module, paths: Iterable[str]) -> None:
    """Delete the modules at ``paths``, in place; see `leave_out`.

    Raises:
        AttributeError: there is no module at one of the paths.
    """
    parents: dict[str, set[str]] = {}
    for path in paths:
        module.get_submodule(path)
        parent, _, name = path.rpartition(".")
        parents.setdefault(parent, set()).add(name)
    # All containers are looked up before the first deletion renumbers children: the paths are those before it.
    containers = [(module.get_submodule(parent), names) for parent, names in parents.items()]
    for container, names in containers:
        leave_out(container, names)


def base_path(module: nn.Module, path: str, dropped: Iterable[str]) -> str:
    """Return the path in the base network of the module at ``path`` of ``module``, from which ``dropped`` were deleted.

    ``dropped`` are paths of the base network.
    """
    deleted = set(dropped)
    parent, base = module, ""
    for name in path.split(".") if path else []:
        if isinstance(parent, Projected):
            parent = parent.get_submodule(name)  # the base has the layer itself in the place of the Projected
            continue
        if isinstance(parent, nn.Sequential | nn.ModuleList) and name.isdecimal():
            # Children are numbered anew after a deletion: skip the deleted numbers.
            kept_before = int(name)
            number = 0
            while f"{base}{number}" in deleted or kept_before:
                kept_before -= f"{base}{number}" not in deleted
                number += 1
            base += f"{number}."
        else:
            base += f"{name}."
        parent = parent.get_submodule(name)
    return base.removesuffix(".")


def fit_shapes(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Give every parameter and buffer the shape of its tensor in ``weights``, in place; return whether any changed.

    A resized tensor is not initialised, and neither is one without memory, which gets memory here.

    Raises:
        Error: a tensor has another number of dimensions, or holds integers instead of floats or the reverse.
    """
    replacements: dict[int, nn.Parameter] = {}
    resized = False
    for path, tensor in weights.items():
        owner_path, _, name = path.rpartition(".")
        try:
            owner = module.get_submodule(owner_path)
        except AttributeError:
            continue  # load_state_dict reports such keys
        for tensors in (owner._parameters, owner._buffers):
            old = tensors.get(name)
            if old is None or (old.shape == tensor.shape and not old.is_meta):
                continue
            if old.dim() != tensor.dim() or old.is_floating_point() != tensor.is_floating_point():
                raise Error(f"{path}: a tensor of {tuple(tensor.shape)} does not fit one of {tuple(old.shape)}")
            resized |= old.shape != tensor.shape
            new = torch.empty(tensor.shape, dtype=old.dtype)
            if isinstance(old, nn.Parameter):
                # A parameter that two modules share stays shared. It is set by its name, because recurrent layers
                # keep their weights in a list as well.
                setattr(owner, name, replacements.setdefault(id(old), nn.Parameter(new, old.requires_grad)))
            else:
                owner._buffers[name] = new
    return resized


def check_names(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check that weights have the names of a network's.

    Raises:
        Error: one is missing or unexpected.
    """
    own = module.state_dict()
    parts = [
        f"{len(names)} {what} ({first_few(names)})"
        for what, names in (
            ("missing", [name for name in own if name not in weights]),
            ("unexpected", [name for name in weights if name not in own]),
        )
        if names
    ]
    if parts:
        raise Error(f"the weights do not fit the network: {', '.join(parts)}")


def set_attributes(module: nn.Module, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set plain attributes, in place.

    Raises:
        Error: there is no such module or attribute, it is not public, or the value is of another type.
    """
    for path, values in attributes.items():
        owner = _owner(module, path)
        for name, value in values.items():
            if name not in plain_attributes(owner):
                raise Error(f"{path}: has no plain public attribute {name!r}")
            if not _same_type(getattr(owner, name), value):
                raise Error(f"{path}.{name}: {value!r} is not of the type of {getattr(owner, name)!r}")
            setattr(owner, name, value)


def set_buffers(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Replace non-persistent buffers, in place.

    Raises:
        Error: there is no such buffer, or the tensor has another type or another number of dimensions.
    """
    for path, tensor in buffers.items():
        owner_path, _, name = path.rpartition(".")
        owner = _owner(module, owner_path)
        old = owner._buffers.get(name)
        if old is None or name not in owner._non_persistent_buffers_set:
            raise Error(f"{path}: there is no such non-persistent buffer")
        if old.dtype != tensor.dtype or old.dim() != tensor.dim():
            raise Error(f"{path}: {tuple(tensor.shape)} {tensor.dtype} does not fit {tuple(old.shape)} {old.dtype}")
        owner._buffers[name] = tensor.clone()


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Return a module's own public attributes that are an int, a float, a bool, or a tuple or list of those."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def changed_attributes(base: nn.Module, module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return, by module path, the plain attributes in which ``module`` differs from ``base``."""
    before = {path: plain_attributes(part) for path, part in base.named_modules()}
    changed = {}
    for path, part in module.named_modules():
        old = before.get(path, {})
        new = {
            name: value
            for name, value in plain_attributes(part).items()
            if name in old and not (_same_type(old[name], value) and old[name] == value)
        }
        if new:
            changed[path] = new
    return changed


def changed_buffers(base: nn.Module, module: nn.Module) -> dict[str, Tensor]:
    """Return, by path, the non-persistent buffers in which ``module`` differs from ``base``."""
    changed = {}
    for path, part in module.named_modules():
        for name in part._non_persistent_buffers_set:
            new = part._buffers.get(name)
            full = f"{path}.{name}".removeprefix(".")
            old = _buffer(base, path, name)
            if new is not None and old is not None and not torch.equal(old, new):
                changed[full] = new.detach().cpu().clone()
    return changed


def _buffer(module: nn.Module, path: str, name: str) -> Tensor | None:
    try:
        return module.get_submodule(path)._buffers.get(name)
    except AttributeError:
        return None


def _owner(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise Error(f"there is no module {path!r}") from error


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return type(value) in (tuple, list) and all(type(item) in _PLAIN for item in value)
    return type(value) in _PLAIN


def _same_type(old: Any, new: Any) -> bool:
    if isinstance(old, tuple | list):
        return type(old) is type(new) and _is_plain(new)
    return type(old) is type(new)
