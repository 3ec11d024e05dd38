"""The description of a data set that a checkpoint stores, as plain data."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdtool.data.fingerprint import Fingerprint, checked
from kdtool.data.options import AUGMENT
from kdtool.data.preparation import INTERPOLATION, Preparation, default_crop
from kdtool.errors import Error
from kdtool.utils.formatting import printable

SPLIT_BY = ("order", "path")

# What files of older releases do not hold, and what their images were prepared with.
OLDER: dict[str, Any] = {
    "split_by": "order",
    "interpolation": "bilinear",
    "white": 65535,
    "splits": {},
    "crop": math.nan,
    "erase": 0.0,
}


@dataclass(frozen=True)
class DataSpec:
    """A data set, how it is split, and how its images are prepared for the network.

    ``name`` is the value of ``--data``, ``directory`` the absolute ``--data-dir``; ``image_size`` is in pixels;
    ``mean`` and ``std`` have one number per channel, for images in 0..1. ``crop`` is the side of the centre square that
    is used of an image file, as a fraction of the image's shorter side, and ``interpolation`` how that square is
    resized. ``white`` is the value of white in images of more than 8 bits or of floating-point numbers, None if there
    are none.
    ``split_by`` says how images are held out: ``path``, by a hash of each file's path, or ``order``, drawn from the
    list of all images. ``augment`` and ``erase`` are the options of these names: how a view of the train split differs
    from its images. ``splits`` are the fingerprints of the splits, by name.
    """

    name: str
    directory: str | None
    subset: float
    validation: float
    split_seed: int
    augment: str
    image_size: int
    in_channels: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = math.nan  # stands for `default_crop`
    interpolation: str = "bilinear"
    white: int | None = None
    split_by: str = "order"
    splits: dict[str, Fingerprint] = dataclasses.field(default_factory=dict)
    erase: float = 0.0

    def __post_init__(self) -> None:
        if type(self.crop) is float and math.isnan(self.crop) and type(self.image_size) is int:
            object.__setattr__(self, "crop", default_crop(self.image_size))
        for name in ("subset", "validation", "crop", "erase"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(_number(name, value) for value in _tuple_of(self, name)))
        object.__setattr__(self, "classes", _tuple_of(self, "classes"))
        for name in ("name", "directory", "augment"):
            value = getattr(self, name)
            _check(_is_line(value) or (name == "directory" and value is None), name, value)
        for value in self.classes:
            _check(isinstance(value, str), "classes", value)
        for name, low, high in (("split_seed", 0, 2**63 - 1), ("image_size", 1, 2**14), ("in_channels", 1, 2**10)):
            value = getattr(self, name)
            _check(type(value) is int and low <= value <= high, name, value)
        _check(0 < self.subset <= 1, "subset", self.subset)
        _check(0 < self.validation < 1, "validation", self.validation)
        _check(0 < self.crop <= 1, "crop", self.crop)
        _check(0 <= self.erase <= 1, "erase", self.erase)
        _check(self.augment in AUGMENT, "augment", self.augment)
        _check(self.interpolation in INTERPOLATION, "interpolation", self.interpolation)
        _check(self.split_by in SPLIT_BY, "split_by", self.split_by)
        _check(self.white is None or (type(self.white) is int and 1 <= self.white < 2**32), "white", self.white)
        object.__setattr__(self, "splits", checked(self.splits))
        _check(len(self.classes) >= 2, "classes", self.classes)
        _check(len(self.mean) == len(self.std) == self.in_channels, "mean", self.mean)
        _check(all(value > 0 for value in self.std), "std", self.std)

    @property
    def preparation(self) -> Preparation:
        """How an image file becomes pixels."""
        return Preparation(self.image_size, self.in_channels, self.crop, self.interpolation, self.white)

    def as_data(self) -> dict[str, Any]:
        """Return the spec as a dictionary of plain values."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_data(cls, content: Any) -> DataSpec:
        """Return the spec that `as_data` described; every entry is checked, since a file may hold anything.

        Raises:
            Error: an entry is missing, unknown or of the wrong type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, Mapping):
            raise Error(f"data description: it cannot be a {type(content).__name__}; the file is damaged")
        content = {**OLDER, **content}
        if set(content) != known:
            odd = ", ".join(sorted(str(name)[:40] for name in set(content) ^ known))
            raise Error(f"data description: missing or unknown entries {printable(str(odd), 200)}")
        return cls(**content)


def _is_line(value: Any) -> bool:
    """Return whether a value is text of one line; a path may hold any space and letter, but no control character."""
    return isinstance(value, str) and value != "" and not any(unicodedata.category(char) == "Cc" for char in value)


def _check(holds: bool, name: str, value: Any) -> None:
    if not holds:
        raise Error(f"data description: {name} cannot be {str(value)[:60]!r}")


def _number(name: str, value: Any) -> float:
    _check(type(value) in (int, float) and math.isfinite(value), name, value)
    return float(value)


def _tuple_of(spec: DataSpec, name: str) -> tuple[Any, ...]:
    value = getattr(spec, name)
    _check(isinstance(value, list | tuple), name, value)
    return tuple(value)
