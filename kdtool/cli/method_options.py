"""A method's options, and those of the methods it names in turn, as options of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import Plugin, installed, names
from kdtool.plugins.registry import load, method_class

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kdtool.plugins.options import OptionInfo, Options

# Methods that name methods that name methods; deeper ones keep their defaults.
DEPTH = 4

Place = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Options that stand together in the help: those of a method, or of a group of settings."""

    title: str
    options: type[Options]
    place: Place = ()
    """The names of the roles that lead here: ``("refiner",)`` for the options of ikd's refiner."""
    only: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults that the role declares for its own method."""

    def infos(self) -> list[OptionInfo]:
        """Return the options that are offered."""
        return [info for info in self.options.describe() if not self.only or info.name in self.only]


class Value(click.ParamType):  # type: ignore[type-arg]
    """The value of one declared option, checked as the declaration says."""

    def __init__(self, info: OptionInfo) -> None:
        """Take the type and the bounds of ``info``."""
        self.info = info
        names = {int: "integer", float: "number", str: "text", Path: "path", bool: "bool"}
        self.name = names.get(info.type) or info.type.__name__.lower()

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the kind of value as the help shows it."""
        if self.info.kind:
            return "NAME"
        if self.info.choices and not self.info.many:
            return f"[{'|'.join(self.info.choices)}]"
        if self.info.scheduled:
            return f"{self.name.upper()}|A->B"
        return f"{self.name.upper()},..." if self.info.many else self.name.upper()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as the declared type."""
        if isinstance(value, str):
            value = tuple(map(self._one, value.split(","))) if self.info.many else self._one(value)
        try:
            # A role's method is looked up with its options, when all of them are known.
            return value if self.info.kind else self.info.check(value)
        except UsageError as error:
            raise click.BadParameter(str(error).removeprefix(f"{self.info.flag}: "), ctx, param) from error

    def _one(self, text: str) -> Any:
        if self.info.type not in (int, float):
            return text
        try:
            return self.info.type(text)
        except ValueError:
            # The declaration's own check says what is expected.
            return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return choices, methods of the role's kind, data sets or files."""
        from click.shell_completion import CompletionItem

        if self.info.type is Path:
            return [CompletionItem(incomplete, type="file")]
        offered: Iterable[str] = self.info.choices
        if self.info.kind:
            offered = names(self.info.kind)
        elif self.info.name in ("data", "unlabelled"):
            offered = names("datasets")
        return [CompletionItem(name) for name in offered if name.startswith(incomplete)]


class MethodOption(click.Option):
    """One declared option; its value is None where it was not given, so that the default lives in one place."""

    def __init__(self, info: OptionInfo, section: Section, flags: Sequence[str]) -> None:
        """Make the option; ``flags`` are its names, the full one first."""
        self.info, self.section = info, section
        self.place: Place = (*section.place, info.name)
        self.flags = tuple(flags)
        boolean = info.type is bool
        declared = [f"{flag}/--no-{flag[2:]}" if boolean else flag for flag in flags]
        super().__init__(
            [*declared, "__".join(("option", *self.place))],
            default=None,
            type=click.BOOL if boolean else Value(info),
            is_flag=boolean,
            hidden=info.hidden,
            help=info.help + _extra(info, section.defaults.get(info.name, info.default)),
        )


def _extra(info: OptionInfo, default: Any) -> str:
    """Return default and bounds, as they stand behind an option's help."""
    told = []
    if info.required:
        told.append("required")
    elif default is not None:
        told.append(f"default: {_shown(default)}")
    if info.bounds:
        told.append(info.bounds)
    return f"  [{'; '.join(told)}]" if told else ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ",".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def method_options(
    sections: Sequence[Section], chosen: Mapping[Place, str], taken: Collection[str]
) -> list[MethodOption]:
    """Return the options of all sections and of the methods in their roles, the outer ones first.

    Every option of a role's method goes by its full name (``--refiner-keep``), and by its own (``--keep``) where no
    outer option and no other role has that one. ``chosen`` holds the roles' methods that were named, ``taken`` the
    names that the command itself uses.

    Raises:
        UsageError: there is no such method, its plugin is broken, or it uses a name of the command's own.
    """
    found = list(_walk(sections, chosen))
    full = {_flag(*section.place, info.name): section for section, info in reversed(found)}
    for flag, section in full.items():
        if flag in taken:
            raise UsageError(f"{section.title}: {flag} is an option of the command itself; the plugin must rename it")
    plain: dict[str, list[Place]] = {}
    for section, info in found:
        places = plain.setdefault(_flag(info.name), [])
        if not places or len(places[0]) == len(section.place):
            places.append(section.place)
    options = []
    for section, info in found:
        flags, short = [_flag(*section.place, info.name)], _flag(info.name)
        if section.place and short not in full and short not in taken and plain[short] == [section.place]:
            flags.append(short)
        options.append(MethodOption(info, section, flags))
    return options


def _walk(sections: Sequence[Section], chosen: Mapping[Place, str]) -> Iterable[tuple[Section, OptionInfo]]:
    """Yield every option, those of a method before those of the methods in its roles."""
    seen: set[Place] = set()
    level = list(sections)
    for _ in range(DEPTH):
        inner = []
        for section in level:
            for info in section.infos():
                place = (*section.place, info.name)
                # A method's own option stands before that of the same name in a group of settings.
                if place in seen:
                    continue
                seen.add(place)
                yield section, info
                name = chosen.get(place, info.method)
                if info.kind and name:
                    title = f"Options of {name} ({_flag(*place)})"
                    given = section.defaults.get(info.name)
                    own = given if isinstance(given, Mapping) else {}
                    defaults = {**info.defaults, **own} if name == info.method else {}
                    inner.append(Section(title, method_class(info.kind, name), place, defaults=defaults))
        level = inner


def _flag(*names: str) -> str:
    return "--" + "-".join(names).replace("_", "-")


def named(options: Iterable[MethodOption], values: Mapping[str, str]) -> dict[Place, str]:
    """Return the methods that were named for roles; ``values`` holds options as typed, the last one last."""
    return {
        option.place: value
        for flag, value in values.items()
        for option in options
        if option.info.kind and flag in option.flags
    }


def explicit(options: Sequence[MethodOption], params: Mapping[str, Any], place: Place = ()) -> dict[str, Any]:
    """Return the options that were given, as the API takes them: a role is a name, or a mapping with its options."""
    given: dict[str, Any] = {}
    for option in options:
        if option.place[:-1] != place:
            continue
        value = params.get(option.name or "")
        if option.info.kind:
            inner = explicit(options, params, option.place)
            value = {"name": value or option.info.method, **inner} if inner else value
        if value is not None:
            given[option.info.name] = value
    return given


def owners(kind: str, name: str) -> list[str]:
    """Return the methods of a kind that have an option ``name``; those of others are imported only where no built-in
    method has it, and broken plugins have none."""
    plugins = [plugin for plugin in installed() if plugin.kind == kind]
    for builtin in (True, False):
        found = [plugin.name for plugin in plugins if plugin.builtin is builtin and _has(plugin, name)]
        if found:
            return found
    return []


def _has(plugin: Plugin, name: str) -> bool:
    try:
        return any(info.name == name for info in load(plugin).describe())
    except UsageError:
        return False
