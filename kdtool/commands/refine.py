"""Make a smaller structure of a checkpoint's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtool.commands.inputs import load
from kdtool.commands.outputs import entry_of, finish_untrained, named_after, target_of
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.registry import make
from kdtool.surgery.refiner import refined


def refine(
    checkpoint: str | Path | Checkpoint,
    method: str = "halve",
    *,
    seed: int = 0,
    output: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> Checkpoint:
    """Make a smaller structure of a checkpoint's network, with fresh or inherited weights, and write a checkpoint.

    ``seed`` sets the fresh weights; ``options`` are those of the method.

    Raises:
        UsageError: there is no such method or option, or the output exists already.
        Error: this network cannot be made smaller in this way; nothing is written.
    """
    parent = load(checkpoint)
    refiner = make("refiners", method, **options)
    target = target_of(output, named_after(parent, method), force=force)
    entry = entry_of("refine", method, parent, {**options, **({"seed": seed} if seed else {})}, target, refiner)
    with entry.timed():
        network = refined(refiner, parent.network, seed)
    return finish_untrained(Checkpoint(network, parent.data, [], parent.history), target, entry)
