"""Activations that are computed again in the backward pass instead of being kept in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

from kdtool.errors import UsageError


@contextlib.contextmanager
def recomputing_activations(modules: Iterable[nn.Module], name: str) -> Iterator[None]:
    """Let networks keep only what enters their blocks while the code in this context runs.

    The backward pass computes the rest again (Chen et al., 2016, arXiv:1604.06174). The gradients are the same; the
    running statistics of batch-norms move twice in a step. timm's networks offer it (``set_grad_checkpointing``).
    ``name`` is what a message calls the first of the ``modules``.

    Raises:
        UsageError: the first module does not offer it.
    """
    switched = []
    try:
        for number, module in enumerate(modules):
            networks = [part for part in module.modules() if callable(getattr(part, "set_grad_checkpointing", None))]
            for network in networks:
                try:
                    network.set_grad_checkpointing(True)  # type: ignore[operator]
                except (AssertionError, NotImplementedError, AttributeError):
                    continue
                switched.append(network)
            if number == 0 and not switched:
                raise UsageError(
                    f"--checkpoint-activations: {name} does not offer it; most networks of timm do, others can take "
                    "--accumulate N"
                )
        yield
    finally:
        for network in switched:
            network.set_grad_checkpointing(False)  # type: ignore[operator]
