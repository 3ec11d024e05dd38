"""Options, declared once as the fields of a frozen dataclass.

One declaration defines the command-line option, the Python argument and the entry in the history.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, dataclass_transform

from kdtool.errors import UsageError, nearest
from kdtool.plugins.schedule import Schedule, number_or_schedule
from kdtool.utils.forms import exact

REQUIRED: Any = object()
"""The default of an option that must be given. With it, a missing option raises `UsageError` and not TypeError."""


def option(
    default: Any = REQUIRED,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare an option of a method; an option without a default is required.

    ``minimum`` and ``maximum`` are inclusive bounds, ``above`` and ``below`` exclusive ones. The type is that of the
    field: int, float, bool, str, Path, a tuple of any length of one of them, or a class such as `Budget`. Such a class
    has a class method ``parse``, which makes a value from a text or raises `UsageError`, and its ``str`` is a text that
    ``parse`` accepts. ``float | Schedule`` is a number that may change during a phase; both of its ends must be within
    the bounds.
    """
    about = {"help": help, "minimum": minimum, "maximum": maximum, "above": above, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata={"kdtool": about})


_KIND_NAMES = {int: "a whole number", float: "a number", str: "a text", Path: "a path", bool: "True or False"}

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?(%?)")


@dataclass(frozen=True)
class OptionInfo:
    """The description of an option, for the command line and for checks."""

    name: str
    type: type
    default: Any
    help: str
    required: bool = False
    """Whether it has no default."""
    optional: bool = False
    """Whether its value may be None."""
    many: bool = False
    """Whether its value is a tuple."""
    scheduled: bool = False
    """Whether its value may be a `Schedule`."""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    kind: str | None = None
    """If its value is another method: the kind of that method."""
    method: str | None = None
    """The name of the default method."""
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the default method that differ from its own defaults."""
    hidden: bool = False
    """Whether the help leaves it out."""
    resolve: Callable[[OptionInfo, Any], Any] | None = None
    """The function that makes the method which the option names; `kdtool.plugins.registry.nested` sets it."""

    @property
    def flag(self) -> str:
        """The option on the command line, such as ``--round-to``."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> Any:
        """Return the value in the type of the option: an int becomes a float, a str a Path, or what ``parse`` makes.

        Raises:
            UsageError: the value is out of bounds, is not one of the choices or has another type.
        """
        if value is None and self.optional:
            return None
        if not self.many:
            return self._check_item(value)
        if not isinstance(value, tuple | list):
            raise UsageError(f"{self.flag}: expected a list of {self.type.__name__}, got {value!r}")
        return tuple(self._check_item(item) for item in value)

    def _check_item(self, value: Any) -> Any:
        value = exactly(value)
        if self.scheduled and isinstance(value, str | Schedule):
            return self._check_scheduled(value)
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:  # as the same number as a text
                value = math.inf if value > 0 else -math.inf
        if self.type is Path and isinstance(value, str):
            value = Path(value)
        if _is_parsed(self.type) and isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                value = self.type.parse(str(value))  # type: ignore[attr-defined]
            except UsageError as error:
                raise UsageError(f"{self.flag}: {error}") from error
        if not isinstance(value, self.type) or (isinstance(value, bool) and self.type is not bool):
            kind = "a text" if _is_parsed(self.type) else _KIND_NAMES[self.type]
            raise UsageError(f"{self.flag}: expected {kind}, got {value!r}{self._meant(value)}")
        if self.choices and value not in self.choices:
            hint = nearest(str(value), self.choices) or f"; one of {', '.join(self.choices)}"
            raise UsageError(f"{self.flag}: {value!r} is not a choice{hint}")
        if isinstance(value, int | float) and not self._in_range(value):
            bounds = self.bounds or "a finite number"
            raise UsageError(f"{self.flag}: {value} is out of range ({bounds}){self._meant(value)}")
        return value

    def _meant(self, value: Any) -> str:
        """Return what to write for a value in percent, for an integer such as 1e3 or 3.0, or for a missing value."""
        text = str(value).strip()
        if text.startswith("--"):
            return "; the option stands without its value"
        percent = _PERCENT.fullmatch(text)
        if percent and self.type is float and self.minimum in (None, 0) and 1 in (self.maximum, self.below):
            number = float(percent[1]) / 100
            if (percent[2] or number >= 0.1) and self._in_range(number):
                return f"; for {percent[1].removesuffix('.0')} % write {number:g}"
        if self.type is float and not self.many and re.fullmatch(r"\d{1,9},\d{1,9}", text):
            return f"; write {text.replace(',', '.')}"
        if text[:1] in "[({" and self.many:
            return "; a list is written as 1,2,3"
        if self.type is int and not isinstance(value, int):
            text = re.sub(r"^(\d{1,9})x\1$", r"\1", text)  # 224x224
            with contextlib.suppress(ValueError, OverflowError):
                if float(text) == int(float(text)):
                    return f"; write {int(float(text))}"
        return ""

    def _check_scheduled(self, value: str | Schedule) -> Any:
        try:
            number = number_or_schedule(value) if isinstance(value, str) else value
        except UsageError as error:
            raise UsageError(f"{self.flag}: {error}") from error
        if isinstance(number, Schedule):
            for end in (number.start, number.end):
                self._check_item(end)
            return number
        return self._check_item(number)

    def _in_range(self, value: float) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    @property
    def bounds(self) -> str:
        """The range as text, such as ``0 < x <= 1``; empty if there are no bounds."""
        low = [f"{self.minimum:g} <= "] if self.minimum is not None else []
        low += [f"{self.above:g} < "] if self.above is not None else []
        high = [f" <= {self.maximum:g}"] if self.maximum is not None else []
        high += [f" < {self.below:g}"] if self.below is not None else []
        return f"{''.join(low)}x{''.join(high)}" if low or high else ""


# No field specifiers: type checkers would not see a default that is passed to option() by position.
@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options:
    """Base class of everything that has options; a subclass becomes a frozen dataclass automatically."""

    used_with: ClassVar[Mapping[str, str]] = {}
    """Options that only another one makes use of, and the name of that one (see `kdtool.plugins.places.split`)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for info in self.describe():
            value = getattr(self, info.name)
            if info.resolve is not None:
                object.__setattr__(self, info.name, info.resolve(info, value))
                continue
            if value is REQUIRED:
                owner = getattr(self, "name", type(self).__name__)
                raise UsageError(f"{owner} needs {info.flag}: {info.help}")
            object.__setattr__(self, info.name, info.check(value))

    @classmethod
    @functools.cache
    def describe(cls) -> tuple[OptionInfo, ...]:
        """Return the descriptions of the options in the order of their declaration."""
        hints = typing.get_type_hints(cls)
        return tuple(
            _info(field, hints[field.name])
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        )

    @classmethod
    def info(cls, name: str) -> OptionInfo:
        """Return the description of one option.

        Raises:
            UsageError: there is no such option.
        """
        for info in cls.describe():
            if info.name == name:
                return info
        raise UsageError(f"there is no option {name!r}{nearest(name, [info.name for info in cls.describe()])}")

    @classmethod
    def check_beside(cls, groups: Collection[type[Options]]) -> None:
        """Check that these options can be given together with those of ``groups``; a method must not hide any.

        Raises:
            UsageError: the name of an option is taken.
        """

    def as_data(self) -> dict[str, Any]:
        """Return the options as plain data, as the history and the run directory store them."""
        return {info.name: _plain(getattr(self, info.name)) for info in self.describe()}


def _info(field: dataclasses.Field[Any], hint: Any) -> OptionInfo:
    if "kdtool" not in field.metadata:
        raise TypeError(f"field {field.name}: declare it with option(...) or nested(...), or as a ClassVar")
    about = dict(field.metadata["kdtool"])
    optional = many = scheduled = False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        optional = len(inner) < len(typing.get_args(hint))
        scheduled = set(inner) == {float, Schedule}
        inner = [float] if scheduled else inner
        # A union of several types remains a union, which is refused below.
        hint = inner[0] if len(inner) == 1 else hint
    if "kind" in about:
        return OptionInfo(
            name=field.name,
            type=str,
            default=about["method"],
            help=about["help"],
            optional=optional or about["method"] is None,
            kind=about["kind"],
            method=about["method"],
            defaults=about["defaults"],
            hidden=about["hidden"],
            resolve=about["resolve"],
        )
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[1:] == (Ellipsis,):
        many, hint = True, typing.get_args(hint)[0]
    if hint not in (int, float, bool, str, Path) and not _is_parsed(hint):
        raise TypeError(
            f"option {field.name}: {hint!r} is none of int, float, bool, str, Path, tuple[int, ...], and has no parse()"
        )
    required = field.default is REQUIRED
    default = None if required else field.default
    info = OptionInfo(
        field.name, hint, default, required=required, optional=optional, many=many, scheduled=scheduled, **about
    )
    try:
        if not required:
            info.check(default)
    except UsageError as error:
        raise TypeError(f"option {field.name}: its default is refused: {error}") from error
    return info


def exactly(value: Any) -> Any:
    """Return what `exact` does, but a parsed value as it is: a BatchSize is an int that knows more."""
    return value if _is_parsed(type(value)) else exact(value)


def _is_parsed(kind: Any) -> bool:
    return isinstance(kind, type) and callable(getattr(kind, "parse", None))


def _plain(value: Any) -> Any:
    if isinstance(value, Options):
        return {"name": getattr(type(value), "name", ""), **value.as_data()}
    if isinstance(value, Path) or _is_parsed(type(value)):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
