"""Prove that an edited network still is one: a forward, then a training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.architecture import Architecture
from kdtool.models.hooks import evaluating


def check(architecture: Architecture, module: nn.Module, edit: str, shape: tuple[int, int, int] | None = None) -> None:
    """Run two images forward and one step backward; the module's weights, statistics and mode stay as they are.

    The images are of ``shape`` (channels, height, width), where it is not that of the architecture.

    Raises:
        Error: the network does not run or does not return finite logits; the message names the network and ``edit``.
    """
    failed = failure(architecture, module, shape)
    if failed is not None:
        raise Error(f"{architecture.spec}: {edit}: it does not run afterwards ({failed[0]}); nothing was changed")


def failure(
    architecture: Architecture, module: nn.Module, shape: tuple[int, int, int] | None = None
) -> tuple[str, str] | None:
    """Return why a network does not run, and the path of the module in which that showed; None where it does."""
    try:
        reason = _try(architecture, module, shape or architecture.input)
    except FAILURES as error:
        return first_line(error), _where(module, error)
    return (reason, "") if reason else None


def _where(module: nn.Module, error: Exception) -> str:
    """Return the path of the innermost of the network's own modules in whose code an error arose."""
    paths = {id(part): path for path, part in module.named_modules() if not type(part).__module__.startswith("torch.")}
    found, trace = "", error.__traceback__
    while trace is not None:
        found = paths.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


def _try(architecture: Architecture, module: nn.Module, shape: tuple[int, int, int]) -> str | None:
    with torch.random.fork_rng(devices=[]), evaluating(module):
        torch.manual_seed(0)
        images = torch.rand(2, *shape)
        with torch.no_grad():
            logits = module(images)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, architecture.classes):
            return f"its output is not [2, {architecture.classes}]"
        if not logits.isfinite().all():
            return "its output is not finite"
        statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
        module.train()
        # A gradient that arrived is all that is asked for: none is kept.
        hooks = [one.register_post_accumulate_grad_hook(_forget) for one in module.parameters() if one.requires_grad]
        try:
            # One image holds half of the memory, but batch-norm behind a global pool has no statistics of one.
            try:
                _loss(module(images[:1])).backward()  # type: ignore[no-untyped-call]
            except FAILURES:
                _loss(module(images)).backward()  # type: ignore[no-untyped-call]
        finally:
            for name, buffer in module.named_buffers():
                buffer.copy_(statistics[name])
            for hook in hooks:
                hook.remove()
        return None


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


def _loss(output: object) -> Tensor:
    """Return the sum of all logits; some networks give those of auxiliary heads as well when they train."""
    if isinstance(output, Tensor):
        return output.sum()
    outputs = output.values() if isinstance(output, dict) else output
    losses = [_loss(one) for one in outputs if one is not None]  # type: ignore[attr-defined]
    return torch.stack(losses).sum()
