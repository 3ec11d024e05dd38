"""Leave out modules, and what stands in the place of one that its parent calls by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

ITERATED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Containers whose children are run one after another, whichever there are."""


class Skip(nn.Module):
    """Pass on what it is given first, whatever that is: a residual block without its branch."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return ``x``."""
        return x


def leave_out(parent: nn.Module, names: Iterable[str]) -> None:
    """Delete children, in place; a parent that calls its children by name gets a `Skip` in their places.

    What is left in a Sequential or ModuleList is numbered anew from 0.
    """
    gone = set(names)
    if not isinstance(parent, ITERATED):
        for name in gone:
            parent._modules[name] = Skip()
        return
    kept = [(name, child) for name, child in parent._modules.items() if name not in gone]
    if isinstance(parent, nn.Sequential | nn.ModuleList):
        # Sequentials with names of their own keep them.
        numbered = all(name.isdecimal() for name in parent._modules)
        kept = [(str(i) if numbered else name, child) for i, (name, child) in enumerate(kept)]
    parent._modules.clear()
    parent._modules.update(kept)


@contextlib.contextmanager
def left_out(module: nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Do without modules for a while."""
    names: dict[str, list[str]] = {}
    for path in paths:
        above, _, name = path.rpartition(".")
        names.setdefault(above, []).append(name)
    parents = [(module.get_submodule(path), gone) for path, gone in names.items()]
    before = [dict(parent._modules) for parent, _ in parents]
    try:
        for parent, gone in parents:
            leave_out(parent, gone)
        yield
    finally:
        for (parent, _), children in zip(parents, before, strict=True):
            parent._modules.clear()
            parent._modules.update(children)
