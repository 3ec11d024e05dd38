"""Find a method by its name and make it, also where an option of another method names it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import operator
from collections.abc import Mapping
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.plugins.entry_points import KINDS, SINGULAR, BrokenPlugin, Plugin, installed, names, reason_of, register
from kdtool.plugins.method import COMBINING, Method
from kdtool.plugins.options import OptionInfo
from kdtool.utils.progress import say


def method_class(kind: str, name: str) -> type[Any]:
    """Import and return one method, a subclass of the base of its kind.

    A name such as ``kd:0.9+at:1000`` is combined by the class of its first term (see `Method.combine`).

    Raises:
        UsageError: no method of that name is installed; the message names the most similar ones.
        BrokenPlugin: its plugin cannot be used.
    """
    term = COMBINING.split(name)[0]
    installed_here = [plugin for plugin in installed() if (plugin.kind, plugin.name) == (kind, name)]
    if term != name and not installed_here:
        if not term:
            raise UsageError(f"{name}: the first term has no name")
        return _combined(kind, term, name)
    if not installed_here:
        known = names(kind)
        hint = nearest(name, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"no {SINGULAR[kind]} is called {name!r}{hint}")
    if len({(plugin.module, plugin.attribute) for plugin in installed_here}) > 1:
        owners = " and ".join(plugin.distribution for plugin in installed_here)
        raise BrokenPlugin(f"{SINGULAR[kind]} {name!r} comes from {owners}: uninstall one of them")
    cls: type[Any] = load(installed_here[0])
    return cls


@functools.cache
def _combined(kind: str, term: str, text: str) -> type[Any]:
    cls: type[Any] = method_class(kind, term).combine(text, functools.partial(method_class, kind))
    return cls


def make(kind: str, name: str, /, **options: Any) -> Any:
    """Return the method ``name`` of a kind with these options.

    Raises:
        UsageError: there is no such method, or an option is unknown, missing or out of bounds.
    """
    cls = method_class(kind, name)
    known = [info.name for info in cls.describe()]
    for given in options:
        if given not in known:
            raise UsageError(f"{name} has no option {given!r}{nearest(given, known)}")
    return cls(**options)


def nested(kind: str, default: str | None = None, *, help: str, hidden: bool = False, **defaults: Any) -> Any:
    """Declare an option whose value is another method of ``kind``, such as ikd's refiner.

    ``defaults`` replace the defaults of the method named by ``default``; ``hidden`` keeps it out of the help.
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
    """Return the method that an option of another method names.

    ``value`` is a name, plain data (``{"name": "halve", "init": "inherit"}``) or a method. The defaults
    that the option declares for its own default method hold wherever that method is named.

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
    """Import one plugin and return its method's class (the module, for one that is always on).

    Raises:
        BrokenPlugin: it fails to import, misspells a hook, or what it names is no method of its kind.
    """
    try:
        if plugin.kind not in KINDS:
            return register(plugin.module)
        return _from_hook(plugin) if not plugin.attribute else _class_named(plugin)
    except BrokenPlugin as error:
        raise BrokenPlugin(f"{plugin}: {error}") from error


def _class_named(plugin: Plugin) -> type[Method]:
    """Return the class that an entry point names; it takes the entry point's name."""
    where = f"{plugin.module}:{plugin.attribute}"
    try:
        cls = operator.attrgetter(plugin.attribute)(importlib.import_module(plugin.module))
        described = _checked(plugin, cls, where)
    except BrokenPlugin:
        raise
    except (Exception, SystemExit) as error:  # a plugin may fail in any way; the tool goes on
        raise BrokenPlugin(f"{where}: {reason_of(error)}") from error
    described.name = plugin.name
    return described


def _checked(plugin: Plugin, cls: Any, where: str) -> type[Method]:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise BrokenPlugin(f"{where}: is no method, but {type(cls).__name__}; name a class derived from kdtool's")
    if cls.kind != plugin.kind:
        raise BrokenPlugin(f"{where}: {cls.name} is one of the {cls.kind or 'methods'}, not of the {plugin.kind}")
    cls.describe()
    return cls


@functools.cache
def _from_hook(plugin: Plugin) -> type[Method]:
    """Return the method of an entry point that names a module, as entry points did before 0.2.

    The module's function of the kind's name returns classes, one of which has the entry point's name.
    """
    try:
        module = importlib.import_module(plugin.module)
        hook = getattr(module, plugin.kind, None)
        if hook is None:
            raise BrokenPlugin(f"{plugin.module}: name the class, as in {plugin.name} = {plugin.module + ':CLASS'!r}")
        classes = {cls.name: cls for cls in hook()}
        if plugin.name not in classes:
            raise BrokenPlugin(f"{plugin.module}: brings {', '.join(classes) or 'nothing'}, not {plugin.name!r}")
        cls = _checked(plugin, classes[plugin.name].from_old_form(), plugin.module)
    except BrokenPlugin:
        raise
    except (Exception, SystemExit) as error:  # the hook and the class are the plugin's code as well
        raise BrokenPlugin(f"{plugin.module}: {reason_of(error)}") from error
    say(
        f"{plugin.distribution} {plugin.version}: entry point {plugin.name!r} names a module; the next release of "
        f'kdtool wants the class: {plugin.name} = "{plugin.module}:{classes[plugin.name].__name__}"'
    )
    return cls
