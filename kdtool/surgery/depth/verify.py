"""Prove that leaving out blocks is the same as letting them return what they are given."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kdtool.errors import FAILURES
from kdtool.models.modules import left_out
from kdtool.surgery.tracing.flow import positive

Row = Sequence[str]
"""Paths of a block that stays and of those right behind it that go."""


def equals_identity_blocks(module: nn.Module, shape: tuple[int, int, int], rows: Sequence[Row]) -> bool:
    """Return whether a network without blocks computes what it does when these blocks return what they are given.

    Where it does not, the network does more between its blocks than to run them: it counts them, reads some by their
    number, or has something of its own for each. The module stays as it is.
    """
    # A copy, for some networks remember in eval mode what they made of the weights; training makes them forget it.
    module = copy.deepcopy(module).train().eval()
    first = next(module.parameters(), torch.zeros(0))
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(first)
    with torch.no_grad(), positive(module):
        with passed_through(module, rows):
            meant = module(image)
        try:
            with left_out(module, [path for row in rows for path in row[1:]]):
                found = module(image)
        except FAILURES:
            return False
    close = found.shape == meant.shape and torch.allclose(
        found, meant, rtol=0, atol=1e-4 * float(meant.abs().max()), equal_nan=True
    )
    return bool(close)


def inseparable_stages(module: nn.Module, shape: tuple[int, int, int], stages: Mapping[str, Sequence[Row]]) -> set[str]:
    """Return the stages whose rows fail `equals_identity_blocks`, tried together first."""
    together = [row for rows in stages.values() for row in rows]
    if not together or equals_identity_blocks(module, shape, together):
        return set()
    return {name for name, rows in stages.items() if not equals_identity_blocks(module, shape, rows)} or set(stages)


@contextlib.contextmanager
def passed_through(module: nn.Module, rows: Iterable[Row]) -> Iterator[None]:
    """Let all blocks of a row but the first return what they are given, for a while.

    What a block returns beyond what it is given is what the one before it in the row returned there.
    """
    patched = []
    try:
        for row in rows:
            beyond: list[Any] = []
            for number, path in enumerate(row):
                block = module.get_submodule(path)
                patched.append((block, block.__dict__.get("forward")))
                block.forward = _through(beyond) if number else _noted(block.forward, beyond)
        yield
    finally:
        for block, forward in patched:
            del block.__dict__["forward"]
            if forward is not None:
                block.forward = forward


def _noted(forward: Callable[..., Any], last: list[Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        y = forward(*args, **kwargs)
        last[:] = y if isinstance(y, tuple) else ()
        return y

    return run


def _through(last: list[Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        given = args or tuple(kwargs.values())
        return (*given[: len(last)], *last[len(given) :]) if last else given[0]

    return run
