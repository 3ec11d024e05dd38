"""Check that leaving out blocks gives the same outputs as replacing them by the identity."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kdtool.errors import FAILURES
from kdtool.models.hooks import replaced
from kdtool.models.modules import left_out
from kdtool.surgery.tracing.flow import positive

Row = Sequence[str]
"""Paths of a block that stays, and of the blocks directly behind it that go."""


def equals_identity_blocks(module: nn.Module, shape: tuple[int, int, int], rows: Sequence[Row]) -> bool:
    """Return whether a network without these blocks has the same outputs as with identities in their places.

    If not, the network does more than apply its blocks in sequence: it counts them, accesses some by their index, or
    has a parameter or an operation of its own for each block. ``shape`` is that of the image, [channels, height,
    width]. The module is not changed.
    """
    # In a copy: some networks cache in eval mode what they compute from their weights. train() clears such caches.
    module = copy.deepcopy(module).train().eval()
    reference = next(module.parameters(), torch.zeros(0))
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(reference)
    with torch.no_grad(), positive(module):
        with passed_through(module, rows):
            expected = module(image)
        try:
            with left_out(module, [path for row in rows for path in row[1:]]):
                output = module(image)
        except FAILURES:
            return False
    close = output.shape == expected.shape and torch.allclose(
        output, expected, rtol=0, atol=1e-4 * float(expected.abs().max()), equal_nan=True
    )
    return bool(close)


def inseparable_stages(module: nn.Module, shape: tuple[int, int, int], stages: Mapping[str, Sequence[Row]]) -> set[str]:
    """Return the names of the stages whose rows fail `equals_identity_blocks`.

    All rows are tested together first, because they usually pass. If they fail only together, all stages are returned.
    """
    together = [row for rows in stages.values() for row in rows]
    if not together or equals_identity_blocks(module, shape, together):
        return set()
    return {name for name, rows in stages.items() if not equals_identity_blocks(module, shape, rows)} or set(stages)


@contextlib.contextmanager
def passed_through(module: nn.Module, rows: Iterable[Row]) -> Iterator[None]:
    """Make all blocks of a row but the first return their inputs while the context lasts.

    If a block returns more values than it receives, the further values are those that the first block of the row
    returned.
    """
    with contextlib.ExitStack() as stack:
        for row in rows:
            outputs: list[Any] = []
            for number, path in enumerate(row):
                block = module.get_submodule(path)
                forward = _identity(outputs) if number else _recorded(block.forward, outputs)
                stack.enter_context(replaced(block, forward))
        yield


def _recorded(forward: Callable[..., Any], outputs: list[Any]) -> Callable[..., Any]:
    """Return a forward that also writes the values of a tuple that it returns to ``outputs``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        y = forward(*args, **kwargs)
        outputs[:] = y if isinstance(y, tuple) else ()
        return y

    return run


def _identity(outputs: list[Any]) -> Callable[..., Any]:
    """Return a forward that returns its inputs, as many values as ``outputs`` has; missing ones come from there."""

    def run(*args: Any, **kwargs: Any) -> Any:
        inputs = args or tuple(kwargs.values())
        return (*inputs[: len(outputs)], *outputs[len(inputs) :]) if outputs else inputs[0]

    return run
