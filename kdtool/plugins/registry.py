"""Find a method by its name and make it, from the command line or as an option of another method."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import operator
import re
from collections.abc import Mapping
from typing import Any

from kdtool.errors import UsageError, bare, nearest
from kdtool.plugins.containment import importing
from kdtool.plugins.entry_points import (
    KINDS,
    LONGEST_NAME,
    SINGULAR,
    TRACKERS,
    BrokenPlugin,
    Plugin,
    installed,
    names,
    reason_of,
    register,
)
from kdtool.plugins.method import COMBINING, Method
from kdtool.plugins.options import OptionInfo
from kdtool.plugins.tracker import tracker_class
from kdtool.utils.progress import say


def method_class(kind: str, name: str) -> type[Any]:
    """Import the class of a method and return it.

    A combined name such as ``kd:0.9+at:1000`` is passed to the class of its first term (see `Method.combine`).

    Raises:
        UsageError: no method of that name is installed, for which the message suggests similar names; or there is no
            such kind.
        BrokenPlugin: its plugin cannot be used.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no kind of methods {kind!r}{nearest(str(kind), KINDS) or '; ' + ', '.join(KINDS)}")
    if not isinstance(name, str):
        got = name.__name__ if isinstance(name, type) else type(name).__name__
        raise UsageError(f"expected the name of one of the {kind}, got {got}; give its options beside its name")
    term = COMBINING.split(name)[0]
    plugins = [plugin for plugin in installed() if (plugin.kind, plugin.name) == (kind, name)]
    if term != name and not plugins:
        if not term:
            raise UsageError(f"{name}: the first term has no name")
        return _combined(kind, term, name)
    if not plugins:
        known = names(kind)
        meant = also_called(kind, name)
        if kind == "distillers" and "," in name and {*name.split(",")} <= {*known}:
            meant = [name.replace(",", "+")]
        if kind == "distillers" and not meant and name != (close := re.sub(r"\s*\+\s*", "+", name.strip())):
            meant = [close]
        hint = f"; did you mean {' or '.join(meant)}?" if meant else nearest(name, known)
        raise UsageError(f"no {SINGULAR[kind]} is called {name!r}{hint or '; there are ' + ', '.join(known)}")
    if len({(plugin.module, plugin.attribute) for plugin in plugins}) > 1:
        owners = " and ".join(plugin.distribution for plugin in plugins)
        raise BrokenPlugin(f"{SINGULAR[kind]} {name!r} comes from {owners}: uninstall one of them")
    cls: type[Any] = load(plugins[0])
    return cls


def also_called(kind: str, word: str) -> list[str]:
    """Return the methods of a kind that are also called ``word``, without case and hyphens.

    Methods of other packages are not imported for that.
    """
    word = bare(word)
    return [plugin.name for plugin in installed() if plugin.kind == kind and word in _other_names(plugin)]


def _other_names(plugin: Plugin) -> set[str]:
    if not plugin.builtin:
        return set()
    try:
        return {bare(name) for name in load(plugin).also_called}
    except UsageError:
        return set()


@functools.cache
def _combined(kind: str, term: str, text: str) -> type[Any]:
    cls: type[Any] = method_class(kind, term).combine(text, functools.partial(method_class, kind))
    return cls


def make(kind: str, name: str, /, **options: Any) -> Any:
    """Make the method ``name`` of a kind with the given options.

    Raises:
        UsageError: there is no such method, or an option is unknown, missing or out of bounds.
    """
    cls = method_class(kind, name)
    known = [info.name for info in cls.describe()]
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}{nearest(option, known)}")
    return cls(**options)


def nested(kind: str, default: str | None = None, *, help: str, hidden: bool = False, **defaults: Any) -> Any:
    """Declare an option whose value is a method of ``kind``, such as the refiner of ikd.

    ``default`` names the default method, and ``defaults`` replace its own defaults. ``hidden`` leaves the option out of
    the help.
    """
    about = {
        "help": help,
        "kind": kind,
        "method": default,
        "defaults": defaults,
        "hidden": hidden,
        "resolve": resolve,
    }
    value: Any = None if default is None else {"name": default, **defaults}
    return dataclasses.field(default_factory=lambda: value, metadata={"kdtool": about})


def resolve(info: OptionInfo, value: Any) -> Any:
    """Return the method that is the value of an option of another method.

    ``value`` is a name, plain data (``{"name": "halve", "init": "inherit"}``) or a method. The defaults that the option
    declares apply whenever its default method is used, even if the user names it.

    Raises:
        UsageError: there is no such method, or it is of another kind.
    """
    kind = info.kind or ""
    if isinstance(value, Method):
        if value.kind != kind:
            raise UsageError(f"{info.flag}: {value.name} is one of the {value.kind}, not of the {kind}")
        return value
    if value is None and info.optional:
        return None
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name", info.method), str):
        raise UsageError(f"{info.flag}: expected the name of one of the {kind}, got {value!r}")
    options = dict(value)
    name = options.pop("name", info.method)
    if not method_class(kind, name).fills_role():
        raise UsageError(f"{info.flag} {name}: is a strategy and has no loss; use it as --method")
    return make(kind, name, **({**info.defaults, **options} if name == info.method else options))


def load(plugin: Plugin) -> Any:
    """Import a plugin and return the class of its method; for a plugin that is always on, return its module.

    Raises:
        BrokenPlugin: it fails to import, has an unknown hook, or names something that is not a method of its kind.
    """
    try:
        if not plugin.has_good_name:
            raise BrokenPlugin(f"its name is not letters, digits, - and . alone, or longer than {LONGEST_NAME}")
        if plugin.kind == TRACKERS:
            return tracker_class(plugin)
        if plugin.kind not in KINDS:
            return register(plugin.module)
        return _from_hook(plugin) if not plugin.attribute else _class_named(plugin)
    except BrokenPlugin as error:
        raise BrokenPlugin(f"{plugin}: {error}") from error


def _class_named(plugin: Plugin) -> type[Method]:
    """Return the class that an entry point names, with the name of the entry point."""
    where = f"{plugin.module}:{plugin.attribute}"
    same = (plugin.kind, plugin.module, plugin.attribute)
    others = {other.name for other in installed() if (other.kind, other.module, other.attribute) == same}
    if len(others | {plugin.name}) > 1:
        # Whichever was loaded last would name the class, and histories would hold a name that nobody asked for.
        both = " and ".join(sorted(others | {plugin.name}))
        raise BrokenPlugin(f"{where}: has several names, {both}; derive a class for each")
    try:
        with importing():
            cls = operator.attrgetter(plugin.attribute)(importlib.import_module(plugin.module))
        checked = _checked(plugin, cls, where)
    except BrokenPlugin:
        raise
    except (Exception, SystemExit) as error:  # a plugin may fail in any way, and the tool must go on
        raise BrokenPlugin(f"{where}: {reason_of(error)}") from error
    checked.name = plugin.name
    return checked


def _checked(plugin: Plugin, cls: Any, where: str) -> type[Method]:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise BrokenPlugin(
            f"{where}: is not a method but {type(cls).__name__}; name a class that derives from kdtool's"
        )
    if cls.kind != plugin.kind:
        raise BrokenPlugin(f"{where}: {cls.name} is one of the {cls.kind or 'methods'}, not of the {plugin.kind}")
    cls.describe()
    return cls


@functools.cache
def _from_hook(plugin: Plugin) -> type[Method]:
    """Return the class of an entry point that names a module, as entry points did before 0.2.

    The module has a function with the name of the kind. It returns classes, one of which has the entry point's name.
    """
    try:
        with importing():
            module = importlib.import_module(plugin.module)
        hook = getattr(module, plugin.kind, None)
        if hook is None:
            raise BrokenPlugin(f"{plugin.module}: name the class, as in {plugin.name} = {plugin.module + ':CLASS'!r}")
        classes = {cls.name: cls for cls in hook()}
        if plugin.name not in classes:
            raise BrokenPlugin(f"{plugin.module}: provides {', '.join(classes) or 'nothing'}, not {plugin.name!r}")
        cls = _checked(plugin, classes[plugin.name].from_old_form(), plugin.module)
    except BrokenPlugin:
        raise
    except (Exception, SystemExit) as error:  # the hook and the class are code of the plugin
        raise BrokenPlugin(f"{plugin.module}: {reason_of(error)}") from error
    say(
        f"{plugin.distribution} {plugin.version}: entry point {plugin.name!r} names a module; the next release of "
        f'kdtool requires the class: {plugin.name} = "{plugin.module}:{classes[plugin.name].__name__}"'
    )
    return cls
