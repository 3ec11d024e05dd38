"""What a network is, as plain data, and the module rebuilt from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.models.edits import (
    changed_attributes,
    changed_buffers,
    drop_modules,
    fit_shapes,
    set_attributes,
    set_buffers,
)
from kdtool.models.modules import are_projectors, insert_projector, insert_select, projectors_of, selects_of
from kdtool.models.no_init import NoInit
from kdtool.models.source import Source
from kdtool.models.weights import load_exactly
from kdtool.plugins.registry import make

# What a file may ask for: without bounds a few bytes could ask for a network that fills the memory.
_LARGEST = {"classes": 1_000_000, "in_channels": 4096, "image_size": 4096}

_LARGEST_INPUT = 2**24

_STEMS = ("default", "small")


@dataclass(frozen=True)
class Architecture:
    """A base network by its name, and the structural edits since, as plain data.

    ``options`` holds ``classes``, ``in_channels``, ``image_size``, ``stem`` (``default`` or ``small``) and the
    options of the source itself. ``dropped`` are paths of deleted modules, as the base network names them;
    ``attributes`` maps a module's path (after the deletions and selections) to the plain attributes that differ from
    a freshly built base, ``buffers`` maps the path of a non-persistent buffer that differs to its tensor, ``selects``
    maps a module's path (after the deletions and projectors) to the channels selected before it, ``projectors`` maps a
    module's path (after the deletions) to the channels of the projector behind it: of its input, middle and output.
    """

    source: str
    name: str
    options: dict[str, Any]
    dropped: tuple[str, ...] = ()
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    selects: dict[str, list[int]] = field(default_factory=dict)
    projectors: dict[str, list[int]] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The name as it is typed: ``timm:resnet18``."""
        return f"{self.source}:{self.name}"

    @property
    def input(self) -> tuple[int, int, int]:
        """Channels, height and width of an input image."""
        size = self.options["image_size"]
        return self.options["in_channels"], size, size

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.options["classes"])

    @property
    def is_edited(self) -> bool:
        """Whether edits are recorded."""
        return bool(self.dropped or self.attributes or self.buffers or self.selects or self.projectors)

    def as_data(self) -> dict[str, Any]:
        """Return plain containers and tensors."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_data(cls, data: Any) -> Architecture:
        """Return the architecture that `as_data` gave; what a file holds is not to be trusted.

        Raises:
            Error: a key is unknown or missing, a value is of another type or out of bounds, or there is no such
                source or option.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, Mapping) or not set(data) <= names:
            odd = sorted(str(key) for key in set(data) - names) if isinstance(data, Mapping) else [str(type(data))]
            raise Error(f"architecture: unknown entries {', '.join(odd)}; the file is damaged or of a newer kdtool")
        data = {"projectors": {}, **data}  # files of before there were any
        for name, valid in _VALID.items():
            if name not in data or not valid(data[name]):
                raise Error(f"architecture: {name} is missing or malformed; the file is damaged")
        architecture = cls(**{**data, "dropped": tuple(data["dropped"])})
        architecture.origin()
        return architecture

    def origin(self) -> Source:
        """Return the source of the base network, with its own options.

        Raises:
            Error: there is no such source or option, or an option is out of bounds.
        """
        own = dict(self.options)
        for name, largest in _LARGEST.items():
            value = own.pop(name, None)
            if type(value) is not int or not 1 <= value <= largest:
                raise Error(f"{self.spec}: {name} is {value!r}; it must be a whole number from 1 to {largest}")
        channels, height, width = self.input
        if channels * height * width > _LARGEST_INPUT:
            raise Error(f"{self.spec}: {channels} x {height} x {width} is too large an input")
        if own.pop("stem", "default") not in _STEMS:
            raise Error(f"{self.spec}: stem is {self.options['stem']!r}; it must be one of {', '.join(_STEMS)}")
        source: Source = make("teachers", self.source, **own)
        return source


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(type(one) is kind for one in value)


def _is_index(value: Any) -> bool:
    return _is_list(value, int) and len(value) > 0 and min(value) >= 0


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_VALID: dict[str, Callable[[Any], bool]] = {
    "source": _is_text,
    "name": _is_text,
    "options": _is_named,
    "dropped": lambda value: _is_list(value, str),
    "attributes": lambda value: _is_named(value) and all(_is_named(one) for one in value.values()),
    "buffers": lambda value: _is_named(value) and all(isinstance(one, Tensor) for one in value.values()),
    "selects": lambda value: _is_named(value) and all(_is_index(one) for one in value.values()),
    "projectors": are_projectors,
}


@dataclass
class Network:
    """A module, in eval mode, with the plain data from which it can be rebuilt."""

    architecture: Architecture
    module: nn.Module

    def __post_init__(self) -> None:
        # Some layers (LeViT's attention) remember in eval mode what they made of their weights, until they train:
        # what was remembered before an edit must not outlive it.
        self.module.train().eval()


def skeleton(architecture: Architecture) -> nn.Module:
    """Return the base network with the modules of the architecture, in the shapes and with the weights of the base.

    Deletions, projectors and selections are made; attributes, buffers and shapes are those of a freshly built base,
    initialised under the current random state.

    Raises:
        Error: the base network cannot be had, or the deletions, projectors and selections do not fit it.
    """
    from kdtool.models.stem import small_stem

    source = architecture.origin()
    shape = {name: architecture.options[name] for name in _LARGEST}
    module = source.build(architecture.name, **shape)
    if architecture.options.get("stem", "default") == "small":
        module = small_stem(module)
    try:
        drop_modules(module, architecture.dropped)
        for path, channels in architecture.projectors.items():
            insert_projector(module, path, channels)
        for path, index in architecture.selects.items():
            insert_select(module, path, index)
    except (AttributeError, KeyError) as error:
        raise Error(f"{architecture.spec}: the recorded edits do not fit the network: {error}") from error
    return module


def build(architecture: Architecture, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Rebuild a network, in eval mode, on the CPU, in float32.

    With ``weights`` the random state is left as it was. Without them the network is initialised under the current
    random state, which needs an architecture of the base's own shapes.

    Raises:
        Error: the base network cannot be had, or the edits or the weights do not fit it.
    """
    if weights is None:
        if architecture.attributes or architecture.buffers:
            raise Error(f"{architecture.spec}: its layers were resized, so it cannot be built without weights")
        return skeleton(architecture).eval()
    with torch.random.fork_rng(devices=[]), NoInit():
        module = skeleton(architecture)
    try:
        resized = fit_shapes(module, weights)
        set_attributes(module, architecture.attributes)
        set_buffers(module, architecture.buffers)
    except Error as error:
        raise type(error)(f"{architecture.spec}: {error}") from error
    try:
        load_exactly(module, weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise Error(f"{architecture.spec}: the weights do not fit the network: {reason[:300]}") from error
    module.eval()
    if resized or architecture.is_edited:
        _hold(architecture, module)
    return module


def _hold(architecture: Architecture, module: nn.Module) -> None:
    """Run one image of zeros through an edited network.

    Raises:
        Error: it does not run, so the edits, or the shapes of the weights, do not fit each other.
    """
    from kdtool.errors import FAILURES, first_line

    try:
        with torch.no_grad():
            output = module(torch.zeros(1, *architecture.input))
        if tuple(output.shape) == (1, architecture.classes):
            return
        reason = f"its output is {list(output.shape)}"
    except FAILURES as error:
        reason = first_line(error)
    raise Error(
        f"{architecture.spec}: the recorded edits and the weights do not fit each other: it does not run ({reason})"
    )


def capture(
    architecture: Architecture, module: nn.Module, *, dropped: Iterable[str] = (), base: nn.Module | None = None
) -> Architecture:
    """Return the architecture of ``module``, which was a network of ``architecture`` before it was edited.

    ``dropped`` are the paths of the modules that were deleted, as that network named them (see `drop_modules`). What
    else was changed is found by a comparison with ``base``, the `skeleton` of the new architecture, which is built
    where it is not given.
    """
    edited = dataclasses.replace(
        architecture,
        dropped=(*architecture.dropped, *dropped),
        attributes={},
        buffers={},
        selects=selects_of(module),
        projectors=projectors_of(module),
    )
    if base is None:
        with torch.random.fork_rng(devices=[]), NoInit():
            base = skeleton(edited)
    return dataclasses.replace(
        edited, attributes=changed_attributes(base, module), buffers=changed_buffers(base, module)
    )
