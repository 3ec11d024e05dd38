"""Which dimensions of a network follow from its classes and its images."""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import nn

from kdtool.errors import FAILURES, Error
from kdtool.models.architecture import Architecture, skeleton
from kdtool.models.no_init import NoInit, Outline

Fixed = set[tuple[str, int]]
"""(path of a tensor, dimension)."""

Shapes = dict[str, tuple[int, ...]]
"""The shapes of tensors by their paths."""


def fixed_dimensions(architecture: Architecture, base: nn.Module) -> Fixed:
    """Return the dimensions of ``base``, the architecture's skeleton, that other classes and images would change.

    Raises:
        Error: the base network cannot be built for other classes.
    """
    options = architecture.options
    more = {
        "classes": options["classes"] + 1,
        "in_channels": options["in_channels"] + 1,
        "image_size": 2 * options["image_size"],
    }
    shapes = shapes_of(base)
    try:
        return _changed(shapes, architecture, more) | _statistics(base, options["in_channels"])
    except (Error, *FAILURES):
        # A network for images of one size or of three channels alone, say.
        fixed = _changed(shapes, architecture, {"classes": more["classes"]}) | _statistics(base, options["in_channels"])
    for name in ("in_channels", "image_size"):
        with contextlib.suppress(Error, *FAILURES):
            fixed |= _changed(shapes, architecture, {name: more[name]})
    return fixed


def _statistics(base: nn.Module, channels: int) -> Fixed:
    """Return the dimensions of constants that a network holds for each channel of its images, such as their means."""
    return {(path, 0) for path, buffer in base.named_buffers() if buffer.dim() > 1 and buffer.shape[0] == channels}


def _changed(shapes: Shapes, architecture: Architecture, options: dict[str, int]) -> Fixed:
    changed = dataclasses.replace(architecture, options={**architecture.options, **options})
    other = shapes_of(outline(changed))
    return {
        (path, dim)
        for path, shape in shapes.items()
        if len(shape) == len(other.get(path, ()))
        for dim, (a, b) in enumerate(zip(shape, other[path], strict=True))
        if a != b
    }


def outline(architecture: Architecture) -> nn.Module:
    """Return the `skeleton` of an architecture without numbers in its weights, and without memory where that works.

    Raises:
        Error: the base network cannot be had, or the deletions and selections do not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with Outline():
                module = skeleton(architecture)
            if any(buffer.is_meta for buffer in module.buffers()):
                raise NotImplementedError  # buffers are compared by what they hold
            return module
        except (NotImplementedError, Error, *FAILURES):
            with NoInit():
                return skeleton(architecture)


def shapes_of(module: nn.Module) -> Shapes:
    """Return the shapes of all parameters and buffers."""
    return {path: tuple(tensor.shape) for path, tensor in [*module.named_parameters(), *module.named_buffers()]}
