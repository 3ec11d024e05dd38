"""The values of options to be tried, from which validation chooses (``temperature=1,2,4,8``)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.plugins.method import Method
from kdtool.plugins.options import OptionInfo
from kdtool.plugins.registry import method_class
from kdtool.utils.strict_json import dumps

OptionPath = tuple[str, ...]
"""The name of an option after the names of the nested options it belongs to, such as (objective, temperature)."""

MAX_SETTINGS = 256
"""The largest number of settings in a search."""


@dataclass(frozen=True)
class Search:
    """The values to be tried, as texts, for each option by name; all combinations are tried."""

    values: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Search:
        """Return the search of a text such as ``temperature=1,2,4,8`` or ``temperature=1,4,alpha=0.5,0.9``.

        Raises:
            UsageError: the text has another form, or an option has fewer than two different values.
        """
        options: dict[str, list[str]] = {}
        values: list[str] | None = None
        for word in text.split(","):
            name, equals, value = word.partition("=")
            if equals:
                name = name.strip().removeprefix("--").replace("-", "_")
                if not name or name in options:
                    raise UsageError(f"{text!r}: option {name!r} has no name or is searched twice")
                values = options[name] = []
            if values is None or not (value if equals else word).strip():
                raise UsageError(
                    f"{text!r} is not a search; write an option and its values, such as temperature=1,2,4,8"
                )
            values.append((value if equals else word).strip())
        for name, tried in options.items():
            if len(set(tried)) < max(2, len(tried)):
                raise UsageError(
                    f"{name}={','.join(tried)}: a search needs at least two values, all different, such as {name}=1,2,4"
                )
        return cls(tuple((name, tuple(tried)) for name, tried in options.items()))

    def __str__(self) -> str:
        """Return the text from which `parse` makes this search."""
        return ",".join(f"{name}={','.join(values)}" for name, values in self.values)

    def settings(self, method: type[Method], fixed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the options of ``method`` for each setting that is tried, by the name of the setting.

        ``fixed`` are options that all settings share.

        Raises:
            UsageError: there is no such option, it is among the fixed ones, an option does not accept a value, there
                are too many settings, or two of them are the same.
        """
        searched = [find_option(method, fixed, name) for name, _ in self.values]
        for path, info in searched:
            if _is_given(fixed, path):
                raise UsageError(f"{info.flag}: --search tries values of it; leave one of the two out")
        if (count := math.prod(len(values) for _, values in self.values)) > MAX_SETTINGS:
            raise UsageError(f"--search: {count} settings are too many; try at most {MAX_SETTINGS}")
        settings: dict[str, dict[str, Any]] = {}
        names: dict[str, str] = {}
        for values in itertools.product(*(values for _, values in self.values)):
            options = dict(fixed)
            for (path, info), text in zip(searched, values, strict=True):
                options = _with(method, options, path, _value(info, text))
            try:
                checked = dumps(method(**options).as_data(), sort_keys=True)
            except UsageError as error:
                raise UsageError(f"--search: {error}") from error
            parts = (f"{name}={value}" for (name, _), value in zip(self.values, values, strict=True))
            setting = ", ".join(parts).replace("_", "-")
            # Texts may differ where their values do not: 1 and 1.0.
            if (same := names.setdefault(checked, setting)) != setting:
                raise UsageError(f"--search: {same!r} and {setting!r} are the same setting; leave one out")
            settings[setting] = options
        return settings


def find_option(method: type[Method], fixed: Mapping[str, Any], name: str) -> tuple[OptionPath, OptionInfo]:
    """Return the path and the description of an option of a method or of the methods nested in it.

    An option of the method itself comes first. An option of a nested method may be named alone or with its full path
    (``objective_temperature``).

    Raises:
        UsageError: there is no option of that name, there are several, or the option is a list.
    """
    everything = list(_walk(method, fixed, ()))
    own = [(path, info) for path, info in everything if path == (name,)]
    full = [(path, info) for path, info in everything if "_".join(path) == name]
    last = [(path, info) for path, info in everything if path[-1] == name]
    matches = own or full or last
    if len(matches) > 1:
        names = " or ".join("-".join(path).replace("_", "-") for path, _ in matches)
        raise UsageError(f"--search {name.replace('_', '-')}: several methods have this option; write {names}")
    if not matches:
        known = sorted({path[-1].replace("_", "-") for path, _ in everything})
        hint = nearest(name, known) or f"; its options are {', '.join(known)}"
        raise UsageError(f"--search: {method.name} has no option {name.replace('_', '-')!r}{hint}")
    path, info = matches[0]
    if info.many:
        raise UsageError(f"--search: {info.flag} is a list, and lists cannot be searched")
    return path, info


def _walk(method: type[Method], fixed: Mapping[str, Any], path: OptionPath) -> Iterator[tuple[OptionPath, OptionInfo]]:
    """Yield the path and the description of every option of a method and of the methods nested in it."""
    for info in method.describe():
        yield (*path, info.name), info
        inner = _mapping(fixed.get(info.name), info) if info.kind else {}
        if inner.get("name"):
            yield from _walk(method_class(info.kind or "", inner["name"]), inner, (*path, info.name))


def _is_given(options: Any, path: OptionPath) -> bool:
    """Return whether the option at a path has a value; those of a method that is given as an object do not count."""
    for name in path:
        if not isinstance(options, Mapping) or options.get(name) is None:
            return False
        options = options[name]
    return True


def _mapping(value: Any, info: OptionInfo) -> dict[str, Any]:
    """Return the value of a nested option as a dictionary with the method's name and options."""
    if isinstance(value, Method):
        return {"name": value.name, **value.as_data()}
    options = {"name": value} if isinstance(value, str) else dict(value or {})
    return {"name": info.method, **options}


def _with(method: type[Method], options: Mapping[str, Any], path: OptionPath, value: Any) -> dict[str, Any]:
    """Return the options with another value at a path."""
    name, *rest = path
    if not rest:
        return {**options, name: value}
    info = next(info for info in method.describe() if info.name == name)
    inner = _mapping(options.get(name), info)
    return {**options, name: _with(method_class(info.kind or "", inner["name"]), inner, tuple(rest), value)}


def _value(info: OptionInfo, text: str) -> Any:
    """Return the Python value of a text."""
    if info.type is bool:
        switches = {"on": True, "off": False}
        if text not in switches:
            raise UsageError(f"--search: {info.flag} must be on or off, not {text!r}")
        return switches[text]
    if info.type in (int, float):
        try:
            return info.type(text)
        except ValueError:
            return text  # a schedule, or a text that the option itself refuses
    return text
