"""Which dimensions of a network are set by its classes and its images, so that slicing must leave them."""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import nn

from kdtool.errors import FAILURES, Error
from kdtool.models.architecture import Architecture, skeleton
from kdtool.models.no_init import Outline, without_init

Fixed = set[tuple[str, int]]
"""Dimensions of tensors: (path of the tensor, dimension)."""

Shapes = dict[str, tuple[int, ...]]
"""The shapes of tensors, by their paths."""


def fixed_dimensions(architecture: Architecture, base: nn.Module) -> Fixed:
    """Return the dimensions of ``base`` that depend on the number of classes, or on the channels and size of images.

    ``base`` is the architecture's `skeleton`. It is compared with networks built for more classes, image channels and
    pixels.

    Raises:
        Error: the base network cannot be built for another number of classes.
    """
    options = architecture.options
    more = {
        "classes": options["classes"] + 1,
        "in_channels": options["in_channels"] + 1,
        "image_size": 2 * options["image_size"],
    }
    shapes = shapes_of(base)
    constants = _image_constants(base, options["in_channels"])
    try:
        return _changed(shapes, architecture, more) | constants
    except (Error, *FAILURES):
        # For example a network that accepts only one image size, or only three channels.
        fixed = _changed(shapes, architecture, {"classes": more["classes"]}) | constants
    for name in ("in_channels", "image_size"):
        with contextlib.suppress(Error, *FAILURES):
            fixed |= _changed(shapes, architecture, {name: more[name]})
    return fixed


def _image_constants(base: nn.Module, channels: int) -> Fixed:
    """Return the dimensions of buffers that hold a constant for each channel of the images, such as their means."""
    return {(path, 0) for path, buffer in base.named_buffers() if buffer.dim() > 1 and buffer.shape[0] == channels}


def _changed(shapes: Shapes, architecture: Architecture, options: dict[str, int]) -> Fixed:
    """Return the dimensions in which ``shapes`` differ from those of the architecture built with other options."""
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
    """Return the `skeleton` of an architecture without random numbers in its weights, and without memory if possible.

    Raises:
        Error: the base network cannot be built, or the deletions and selections do not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with Outline():
                module = skeleton(architecture)
            if any(buffer.is_meta for buffer in module.buffers()):
                raise NotImplementedError  # buffers are compared by their values, which they would lack
            return module
        except (NotImplementedError, Error, *FAILURES):
            return without_init(lambda: skeleton(architecture))


def shapes_of(module: nn.Module) -> Shapes:
    """Return the shapes of all parameters and buffers, by their paths."""
    return {path: tuple(tensor.shape) for path, tensor in [*module.named_parameters(), *module.named_buffers()]}
