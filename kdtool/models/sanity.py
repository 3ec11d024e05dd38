"""Check that an edited network still runs: a forward pass, then a backward pass in train mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.architecture import Architecture
from kdtool.models.hooks import evaluating
from kdtool.utils.seeds import forked, set_seed


def check(architecture: Architecture, module: nn.Module, edit: str, shape: tuple[int, int, int] | None = None) -> None:
    """Check that two images go forward and one backward; the module's weights, statistics and modes do not change.

    ``shape`` (channels, height, width) is that of the images, by default the architecture's. ``edit`` describes the
    edit for the message.

    Raises:
        Error: the network does not run or does not return finite logits; the message names the network and ``edit``.
    """
    reason_and_path = failure(architecture, module, shape)
    if reason_and_path is not None:
        reason, _ = reason_and_path
        raise Error(f"{architecture.spec}: {edit}: it does not run afterwards ({reason}); nothing was changed")


def failure(
    architecture: Architecture, module: nn.Module, shape: tuple[int, int, int] | None = None
) -> tuple[str, str] | None:
    """Return why a network does not run and the path of the module that failed, or None if it runs."""
    try:
        reason = _run(architecture, module, shape or architecture.input)
    except FAILURES as error:
        return first_line(error), _failing_module(module, error)
    return (reason, "") if reason else None


def _failing_module(module: nn.Module, error: Exception) -> str:
    """Return the path of the innermost module that was running when an error arose, PyTorch's own not counted."""
    paths = {id(part): path for path, part in module.named_modules() if not type(part).__module__.startswith("torch.")}
    innermost, trace = "", error.__traceback__
    while trace is not None:
        innermost = paths.get(id(trace.tb_frame.f_locals.get("self")), innermost)
        trace = trace.tb_next
    return innermost


def _run(architecture: Architecture, module: nn.Module, shape: tuple[int, int, int]) -> str | None:
    """Run the network forward, then backward in train mode; return what is wrong with its output, if anything is."""
    with forked(), evaluating(module):
        set_seed(0)
        images = torch.rand(2, *shape)
        with torch.no_grad():
            logits = module(images)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, architecture.classes):
            return f"its output is not [2, {architecture.classes}]"
        if not logits.isfinite().all():
            return "its output is not finite"
        statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
        module.train()
        # Only the backward pass is checked: each gradient is freed as soon as it is complete, to save memory.
        learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
        hooks = [parameter.register_post_accumulate_grad_hook(_drop_gradient) for parameter in learning]
        try:
            # One image needs half the memory of two, but batch-norm behind a global pool cannot train on one.
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


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _loss(output: object) -> Tensor:
    """Return the sum of all logits; in train mode some networks return those of auxiliary heads as well."""
    if isinstance(output, Tensor):
        return output.sum()
    outputs = output.values() if isinstance(output, dict) else output
    losses = [_loss(part) for part in outputs if part is not None]  # type: ignore[attr-defined]
    return torch.stack(losses).sum()
