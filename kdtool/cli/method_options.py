"""Turn the options of a method, and of the methods in its roles, into options of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import Plugin, installed
from kdtool.plugins.places import DEPTH, Place, spellings
from kdtool.plugins.registry import load, method_class

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kdtool.plugins.options import OptionInfo, Options


@dataclass(frozen=True)
class Section:
    """Options with a common heading in the help: those of a method or of a group of settings."""

    title: str
    options: type[Options]
    place: Place = ()
    """The names of the roles that lead to this section: ``("refiner",)`` for the options of ikd's refiner."""
    only: tuple[str, ...] = ()
    """The names of the options that are offered; empty for all."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults that the role sets for the options of its method."""

    def infos(self) -> list[OptionInfo]:
        """Return the options that are offered."""
        return [info for info in self.options.describe() if not self.only or info.name in self.only]


class Value(click.ParamType):  # type: ignore[type-arg]
    """The value of one declared option, checked by its declaration."""

    def __init__(self, info: OptionInfo) -> None:
        """Use the type and the bounds of ``info``."""
        self.info = info
        names = {int: "integer", float: "number", str: "text", Path: "path", bool: "bool"}
        self.name = names.get(info.type) or info.type.__name__.lower()

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder of the value in the help text."""
        if self.info.kind:
            return "NAME"
        if self.info.choices and not self.info.many:
            return f"[{'|'.join(self.info.choices)}]"
        if self.info.scheduled:
            return f"{self.name.upper()}|A->B"
        return f"{self.name.upper()},..." if self.info.many else self.name.upper()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value converted to the declared type."""
        if isinstance(value, str):
            value = tuple(map(self._parse, value.split(","))) if self.info.many else self._parse(value)
        try:
            # The method of a role is looked up later, when all options are known.
            return value if self.info.kind else self.info.check(value)
        except UsageError as error:
            raise click.BadParameter(str(error).removeprefix(f"{self.info.flag}: "), ctx, param) from error

    def _parse(self, text: str) -> Any:
        if self.info.type not in (int, float):
            return text
        try:
            return self.info.type(text)
        except ValueError:
            # The check of the declaration reports the error.
            return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the matching choices, methods of the role's kind, data sets, networks or files."""
        from kdtool.cli.candidates import of_option

        return of_option(self.info, incomplete)


class MethodOption(click.Option):
    """One declared option; its value is None if it was not typed, so that defaults are set in one place only."""

    def __init__(self, info: OptionInfo, section: Section, flags: Sequence[str]) -> None:
        """Create the option; ``flags`` are its names, the full one first."""
        self.info, self.section = info, section
        self.place: Place = (*section.place, info.name)
        self.flags = tuple(flags)
        boolean, self.repeated = info.type is bool, info.many and info.type is str
        declared = [f"{flag}/--no-{flag[2:]}" if boolean else flag for flag in flags]
        super().__init__(
            [*declared, "__".join(("option", *self.place))],
            default=None,
            type=click.BOOL if boolean else Value(info),
            is_flag=boolean,
            multiple=self.repeated,
            hidden=info.hidden,
            help=info.help + _default_and_bounds(info, section.defaults.get(info.name, info.default)),
        )

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the value; that of a list of words which was given several times is the whole list."""
        if self.repeated and not value:
            return None
        cast = super().type_cast_value(ctx, value)
        return tuple(word for words in cast for word in words) if self.repeated else cast


def _default_and_bounds(info: OptionInfo, default: Any) -> str:
    """Return the default and the bounds of an option as a suffix of its help text."""
    notes = []
    if info.required:
        notes.append("required")
    elif default is not None and default != ():
        notes.append(f"default: {_format_default(default)}")
    if info.bounds:
        notes.append(info.bounds)
    return f"  [{'; '.join(notes)}]" if notes else ""


def _format_default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ",".join(map(_format_default, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def method_options(
    sections: Sequence[Section], chosen: Mapping[Place, str], taken: Collection[str]
) -> list[MethodOption]:
    """Return the options of all sections and of the methods in their roles, outer options first.

    Every option of a role's method has a full name (``--refiner-keep``), and a short name where that is free (see
    `spellings`). ``chosen`` maps roles to the methods that the user named, ``taken`` holds the names of the command's
    own options.

    Raises:
        UsageError: a method is unknown, its plugin is broken, or it uses a name of the command's own options.
    """
    declared = list(_walk(sections, chosen))
    full = {_flag(*section.place, info.name): section for section, info in reversed(declared)}
    for flag, section in full.items():
        if flag in taken:
            raise UsageError(
                f"{section.title}: {flag} is an option of the command itself; the plugin must choose another name"
            )
    words = spellings(
        [(*section.place, info.name) for section, info in declared], {flag[2:].replace("-", "_") for flag in taken}
    )
    return [
        MethodOption(info, section, [_flag(word) for word in words[*section.place, info.name]])
        for section, info in declared
    ]


def _walk(sections: Sequence[Section], chosen: Mapping[Place, str]) -> Iterable[tuple[Section, OptionInfo]]:
    """Yield every option with its section; a method's options come before those of the methods in its roles."""
    seen: set[Place] = set()
    level = list(sections)
    for _ in range(DEPTH):
        inner = []
        for section in level:
            for info in section.infos():
                place = (*section.place, info.name)
                if place in seen:  # a method hides it on purpose, see Method.check_beside
                    continue
                seen.add(place)
                yield section, info
                name = chosen.get(place, info.method)
                if info.kind and name:
                    title = f"Options of {name} ({_flag(*place)})"
                    override = section.defaults.get(info.name)
                    overrides = override if isinstance(override, Mapping) else {}
                    defaults = {**info.defaults, **overrides} if name == info.method else {}
                    inner.append(Section(title, method_class(info.kind, name), place, defaults=defaults))
        level = inner


def _flag(*names: str) -> str:
    return "--" + "-".join(names).replace("_", "-")


def role_methods(options: Iterable[MethodOption], values: Mapping[str, str]) -> dict[Place, str]:
    """Return the typed method of each role; ``values`` maps flags to values in the order of the command line."""
    return {
        option.place: value
        for flag, value in values.items()
        for option in options
        if option.info.kind and flag in option.flags
    }


def api_options(options: Sequence[MethodOption], params: Mapping[str, Any], place: Place = ()) -> dict[str, Any]:
    """Return the options that were typed, as the API takes them: a role is a name, or a mapping with its options."""
    values: dict[str, Any] = {}
    for option in options:
        if option.place[:-1] != place:
            continue
        value = params.get(option.name or "")
        if option.info.kind:
            inner = api_options(options, params, option.place)
            value = {"name": value or option.info.method, **inner} if inner else value
        if value is not None:
            values[option.info.name] = value
    return values


def owners(kind: str, name: str) -> list[str]:
    """Return the methods of a kind that have an option ``name``.

    Methods of other packages are imported only if no built-in method has the option. Broken plugins are skipped.
    """
    plugins = [plugin for plugin in installed() if plugin.kind == kind]
    for builtin in (True, False):
        methods = [plugin.name for plugin in plugins if plugin.builtin is builtin and _has_option(plugin, name)]
        if methods:
            return methods
    return []


def _has_option(plugin: Plugin, name: str) -> bool:
    try:
        return any(info.name == name for info in load(plugin).describe())
    except UsageError:
        return False
