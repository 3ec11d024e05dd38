"""The structure of a network as plain data, and the module that is rebuilt from it.

A file may hold any data, so that everything that is read from one is checked here before a module is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
from kdtool.models.no_init import base_for, without_init
from kdtool.models.source import Source, built
from kdtool.models.trial import check_runs
from kdtool.models.used_weights import detach_computed
from kdtool.models.weights import load_exactly
from kdtool.plugins.method_code import MethodError
from kdtool.plugins.registry import make

# Upper bounds for files: without them a few bytes could ask for a network that fills the memory.
_LARGEST = {"classes": 1_000_000, "in_channels": 4096, "image_size": 4096}

_LARGEST_INPUT = 2**24

_STEMS = ("default", "small")


@dataclass(frozen=True)
class Architecture:
    """The name of a base network and the structural edits since, as plain data.

    - ``options``: ``classes``, ``in_channels``, ``image_size`` (pixels), ``stem`` (``default`` or ``small``) and the
      options of the source itself.
    - ``dropped``: paths of deleted modules, as the base network names them.
    - ``projectors``: by the path of a module (after the deletions), the form of the projector behind it: the channels
      of its input, middle and output, and the height and width that maps are averaged to in front of it, if they are.
    - ``selects``: by the path of a module (after the deletions and projectors), the channels selected before it.
    - ``attributes``: by the path of a module (after the deletions, projectors and selections), the plain attributes
      that differ from a freshly built base.
    - ``buffers``: by its path, the tensor of each non-persistent buffer that differs from a freshly built base.
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
        """The name as a user types it, such as ``timm:resnet18``."""
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
        """Whether any structural edit is recorded."""
        return bool(self.dropped or self.attributes or self.buffers or self.selects or self.projectors)

    def as_data(self) -> dict[str, Any]:
        """Return the architecture as a dictionary of plain containers and tensors."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_data(cls, data: Any) -> Architecture:
        """Return the architecture that `as_data` described; every entry is checked, since a file may hold anything.

        Raises:
            Error: a key is unknown or missing, a value is of the wrong type or out of bounds, or there is no such
                source or option.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, Mapping) or not set(data) <= names:
            odd = sorted(str(key) for key in set(data) - names) if isinstance(data, Mapping) else [str(type(data))]
            raise Error(f"architecture: unknown entries {', '.join(odd)}; the file is damaged or of a newer kdtool")
        data = {"projectors": {}, **data}  # files of older releases have no such entry
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
    return isinstance(value, list | tuple) and all(type(item) is kind for item in value)


def _is_index(value: Any) -> bool:
    return _is_list(value, int) and len(value) > 0 and min(value) >= 0


def _has_text_keys(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_VALID: dict[str, Callable[[Any], bool]] = {
    "source": _is_text,
    "name": _is_text,
    "options": _has_text_keys,
    "dropped": lambda value: _is_list(value, str),
    "attributes": lambda value: _has_text_keys(value) and all(_has_text_keys(entry) for entry in value.values()),
    "buffers": lambda value: _has_text_keys(value) and all(isinstance(entry, Tensor) for entry in value.values()),
    "selects": lambda value: _has_text_keys(value) and all(_is_index(entry) for entry in value.values()),
    "projectors": are_projectors,
}


@dataclass
class Network:
    """A module in eval mode, with the architecture from which it can be rebuilt."""

    architecture: Architecture
    module: nn.Module

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            kinds = f"{type(self.architecture).__name__} and {type(self.module).__name__}"
            raise MethodError(f"Network(architecture, module) got {kinds}; give an Architecture and a torch.nn.Module")
        # Some layers (LeViT's attention) cache a function of their weights in eval mode and drop it in train mode:
        # a cache from before an edit must not be used after it.
        self.module.train().eval()
        detach_computed(self.module)


def skeleton(architecture: Architecture) -> nn.Module:
    """Return the base network with the modules of the architecture, in the shapes and with the weights of the base.

    Deletions, projectors and selections are applied; attributes, buffers and shapes stay those of a freshly built base,
    initialised under the current random state.

    Raises:
        Error: the base network cannot be built, or the deletions, projectors and selections do not fit it.
    """
    from kdtool.models.stem import small_stem

    source = architecture.origin()
    shape = {name: architecture.options[name] for name in _LARGEST}
    module = built(source, architecture.name, **shape)
    if architecture.options.get("stem", "default") == "small":
        module = small_stem(module)
    try:
        drop_modules(module, architecture.dropped)
        for path, form in architecture.projectors.items():
            insert_projector(module, path, form)
        for path, index in architecture.selects.items():
            insert_select(module, path, index)
    except (AttributeError, KeyError) as error:
        raise Error(f"{architecture.spec}: the recorded edits do not fit the network: {error}") from error
    return module


def build(architecture: Architecture, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Rebuild a network, in eval mode, on the CPU, in float32.

    With ``weights`` the random state does not change. Without them the network is initialised under the current random
    state; this is only possible if no layer was resized.

    Raises:
        Error: the base network cannot be built, or the edits or the weights do not fit it.
    """
    if weights is None:
        if architecture.attributes or architecture.buffers:
            raise Error(f"{architecture.spec}: its layers were resized, so it cannot be built without weights")
        return skeleton(architecture).eval()
    architecture.origin().prepare(architecture.name)
    module = base_for(lambda: skeleton(architecture), weights, architecture.spec)
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
        check_runs(module, architecture.input, architecture.classes, architecture.spec)
    return module


def capture(
    architecture: Architecture, module: nn.Module, *, dropped: Iterable[str] = (), base: nn.Module | None = None
) -> Architecture:
    """Return the architecture of ``module``, an edited copy of a network of ``architecture``.

    ``dropped`` are the paths of the deleted modules, as the network before the edit named them (see `drop_modules`).
    All other changes are found by comparing with ``base``, the `skeleton` of the new architecture, which by default is
    built here.
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
        base = without_init(lambda: skeleton(edited))
    return dataclasses.replace(
        edited, attributes=changed_attributes(base, module), buffers=changed_buffers(base, module)
    )
