"""Options whose values are chosen by validation: what is to be tried (``temperature=1,2,4,8``)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.plugins.method import Method
from kdtool.plugins.options import OptionInfo
from kdtool.plugins.registry import method_class

Place = tuple[str, ...]
"""The names of the options that lead to one: its own, and before it those of the methods it belongs to."""

MOST = 256
"""So many settings are tried at most."""


@dataclass(frozen=True)
class Search:
    """Values to be tried, as text, by the option's name; several options are tried in all combinations."""

    values: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Search:
        """Return the search that is written as ``temperature=1,2,4,8`` or ``temperature=1,4,alpha=0.5,0.9``.

        Raises:
            UsageError: it is written otherwise.
        """
        found: dict[str, list[str]] = {}
        values: list[str] | None = None
        for word in text.split(","):
            name, equals, value = word.partition("=")
            if equals:
                name = name.strip().removeprefix("--").replace("-", "_")
                if not name or name in found:
                    raise UsageError(f"{text!r}: {name or 'nothing'} is searched twice or has no name")
                values = found[name] = []
            if values is None or not (value if equals else word).strip():
                raise UsageError(f"{text!r} is no search; write an option and its values, such as temperature=1,2,4,8")
            values.append((value if equals else word).strip())
        for name, tried in found.items():
            if len(set(tried)) < max(2, len(tried)):
                raise UsageError(f"{name}={','.join(tried)}: a search needs two or more values, each once")
        return cls(tuple((name, tuple(tried)) for name, tried in found.items()))

    def __str__(self) -> str:
        """Return the text that `parse` makes this search of."""
        return ",".join(f"{name}={','.join(values)}" for name, values in self.values)

    def settings(self, method: type[Method], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the options of ``method`` for everything that is tried, by how it is called; ``given`` are those that
        hold for all.

        Raises:
            UsageError: there is no such option, or a value is none of its values.
        """
        places = [(place_of(method, given, name), values) for name, values in self.values]
        found = {}
        for values in itertools.product(*(values for _, values in places)):
            options = dict(given)
            for ((place, info), _), text in zip(places, values, strict=True):
                options = _with(method, options, place, _value(info, text))
            try:
                method(**options)
            except UsageError as error:
                raise UsageError(f"--search: {error}") from error
            called = (f"{name}={value}" for (name, _), value in zip(self.values, values, strict=True))
            found[", ".join(called).replace("_", "-")] = options
        if len(found) > MOST:
            raise UsageError(f"--search: {len(found)} settings are too many; try {MOST} at most")
        return found


def place_of(method: type[Method], given: Mapping[str, Any], name: str) -> tuple[Place, OptionInfo]:
    """Return where an option stands: among the method's own, else among those of the methods in its roles, where it
    may be called by its full name (``objective_temperature``).

    Raises:
        UsageError: there is none of that name, or there are several.
    """
    everything = list(_walk(method, given, ()))
    own = [(place, info) for place, info in everything if place == (name,)]
    full = [(place, info) for place, info in everything if "_".join(place) == name]
    last = [(place, info) for place, info in everything if place[-1] == name]
    found = own or full or last
    if len(found) > 1:
        names = " or ".join("-".join(place).replace("_", "-") for place, _ in found)
        raise UsageError(f"--search {name.replace('_', '-')}: say which, {names}")
    if not found:
        known = sorted({place[-1].replace("_", "-") for place, _ in everything})
        hint = nearest(name, known) or f"; it has {', '.join(known)}"
        raise UsageError(f"--search: {method.name} has no option {name.replace('_', '-')!r}{hint}")
    place, info = found[0]
    if info.many:
        raise UsageError(f"--search: {info.flag} is a list, of which no values can be tried")
    return place, info


def _walk(method: type[Method], given: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, OptionInfo]]:
    for info in method.describe():
        yield (*place, info.name), info
        inner = _mapping(given.get(info.name), info) if info.kind else {}
        if inner.get("name"):
            yield from _walk(method_class(info.kind or "", inner["name"]), inner, (*place, info.name))


def _mapping(value: Any, info: OptionInfo) -> dict[str, Any]:
    """Return a role's value as a name and options."""
    if isinstance(value, Method):
        return {"name": value.name, **value.as_data()}
    found = {"name": value} if isinstance(value, str) else dict(value or {})
    return {"name": info.method, **found}


def _with(method: type[Method], given: Mapping[str, Any], place: Place, value: Any) -> dict[str, Any]:
    name, *rest = place
    if not rest:
        return {**given, name: value}
    info = next(one for one in method.describe() if one.name == name)
    inner = _mapping(given.get(name), info)
    return {**given, name: _with(method_class(info.kind or "", inner["name"]), inner, tuple(rest), value)}


def _value(info: OptionInfo, text: str) -> Any:
    """Return a value as it is given in Python."""
    if info.type is bool:
        switches = {"on": True, "off": False}
        if text not in switches:
            raise UsageError(f"--search: {info.flag} is on or off, not {text!r}")
        return switches[text]
    if info.type in (int, float):
        try:
            return info.type(text)
        except ValueError:
            return text  # a schedule, or what the declaration's own check refuses
    return text
