"""Tensors that several modules share: they stay shared when they are cut."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtool.errors import Error


class Ties:
    """Remembers what became of each tensor, so that a module that shares it gets the same new one."""

    def __init__(self) -> None:
        # The old tensors are kept alive, so that no other tensor gets their ids.
        self._known: dict[int, tuple[Tensor, Tensor, str]] = {}

    def replacement(self, path: str, old: Tensor, cut: Tensor) -> Tensor:
        """Return what takes the place of ``old``, the tensor at ``path``, whose values are to become ``cut``.

        Raises:
            Error: another module shares the tensor, and it became another one there.
        """
        if id(old) not in self._known:
            new = nn.Parameter(cut, old.requires_grad) if isinstance(old, nn.Parameter) and cut is not old else cut
            self._known[id(old)] = old, new, path
            return new
        _, new, first = self._known[id(old)]
        if new.shape != cut.shape or not torch.equal(new, cut):
            raise Error(f"{path}: is the same tensor as {first}, from which other channels go")
        return new

    def of(self, old: Tensor) -> Tensor | None:
        """Return what took the place of a tensor in another module, or None if it was not seen yet."""
        return self._known[id(old)][1] if id(old) in self._known else None
