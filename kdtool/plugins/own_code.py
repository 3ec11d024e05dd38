"""Functions of the user's own packages by their names, such as ``mypackage.nets:make_net``.

A package is imported from the place where the user trusted it, and from nowhere else (see `trust`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import operator
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from kdtool.errors import Error, UsageError, nearest
from kdtool.plugins.containment import contained
from kdtool.plugins.entry_points import reason_of
from kdtool.plugins.trust import Place, is_there, place_of

MAIN = "__main__"
"""The name of a module that is a script or a notebook."""

_GIVEN: dict[str, tuple[Callable[..., Any], object]] = {}
"""The functions that this process gave itself, by name; no trust is needed to call them again.

Beside each is what had its name in its module at that time. Another thing there now is the same function, mended: a
cell of a notebook ran again, or the module was loaded again.
"""


_IMPORTED: dict[str, Place] = {}
"""The packages that this process has imported because the user trusts them, by name."""

_BROUGHT: dict[str, Place] = {}
"""The packages that are trusted in the process for which this one works, by name."""


def is_path(text: str) -> bool:
    """Return whether a text has the form of an import path, ``mypackage.nets:make_net``."""
    module, colon, function = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *function.split(".")))


def given(function: Callable[..., Any]) -> str:
    """Return the import path of a function or class that a program holds; this process may call it by that name.

    Raises:
        UsageError: it has no name in a module, so that nobody could find it again.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    path = f"{module}:{name}"
    kind = type(function).__name__
    if hasattr(function, "state_dict") and not isinstance(function, type):
        raise UsageError(
            f"expected what builds a network, got a network, a {kind}; give the function or class that builds it, and "
            "its weights to kdtool.teacher(..., weights=FILE)"
        )
    if not callable(function) or not is_path(path):
        raise UsageError(
            f"{name or kind}: has no name of its own in a module, so that no checkpoint can tell what builds its "
            "network; write a function at the top of a module, and its arguments with functools.partial"
        )
    _GIVEN[path] = function, _present(path)
    return path


def function_at(path: str) -> Callable[..., Any]:
    """Return the function or class that an import path names; its package is imported if the user trusts it.

    Raises:
        UsageError: the text is no import path, or there is no such package, module or function.
        Error: the package is not trusted, or its import fails.
    """
    if path in _GIVEN:
        held, before = _GIVEN[path]
        now = _present(path)
        return now if now is not before and callable(now) else held
    if not is_path(path):
        raise UsageError(f"{path}: a function of your own code is written as mypackage.nets:make_net")
    name, _, attribute = path.partition(":")
    if name == MAIN:
        raise UsageError(
            f"{path}: is a function of a script or a notebook, which only that process can call; put it into a module"
        )
    package = name.partition(".")[0]
    place = _BROUGHT.get(package) or place_of(package, path)
    module = _imported(name, place, path)
    _IMPORTED[package] = place
    try:
        found = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{path}: {name} has no function {attribute}{nearest(attribute, known)}") from error
    # What a module has imported, such as os.system, is no code of the package that is trusted.
    owner = found.func if isinstance(found, functools.partial) else found
    home = str(getattr(owner, "__module__", None) or "")
    if not callable(found) or home.partition(".")[0] != package:
        what = f"is defined in {home}, not in {package}" if callable(found) and home else "is no function and no class"
        raise UsageError(f"{path}: {what}; name a function of {package} that returns a network")
    function: Callable[..., Any] = found
    return function


def imported() -> tuple[Place, ...]:
    """Return the places of the trusted packages that this process has imported."""
    return tuple(_IMPORTED.values())


def bring_in(places: Iterable[Place]) -> None:
    """Import packages that are trusted in the process for which this one works, so that it can read their objects.

    Raises:
        Error: one is not there on this machine, or its import fails.
    """
    for place in places:
        if not is_there(place):
            raise Error(
                f"{place}: is not on {socket.gethostname()}; put your own code at the same path on all machines"
            )
        _imported(place.package, place, place.package)
        _BROUGHT[place.package] = place


def _present(path: str) -> object:
    """Return what has the name of an import path in its module now; None if there is nothing."""
    module, _, attribute = path.partition(":")
    try:
        return operator.attrgetter(attribute)(sys.modules[module])
    except (KeyError, AttributeError):
        return None


def _imported(name: str, place: Place, path: str) -> ModuleType:
    """Import a module of a package from its place."""
    try:
        # What is printed while it is imported is no result of a command.
        with contained():
            _import_package(place, path)
            return importlib.import_module(name)
    except Error:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Error(f"{path}: cannot be imported from {place}: {reason_of(error)}") from error
        raise UsageError(f"{path}: there is no module {error.name} in {place}") from error
    except (Exception, SystemExit) as error:  # the code of a user may fail in any way
        raise Error(f"{path}: cannot be imported from {place}: {reason_of(error)}") from error


def _import_package(place: Place, path: str) -> None:
    package, folder = place.package, place.folder
    if package in sys.modules:
        known = _folder_of(sys.modules[package])
        if known != folder:
            raise Error(f"{path}: another {package} is imported already, from {known}; rename yours")
        return
    spec = importlib.machinery.PathFinder.find_spec(package, [str(folder)])
    if spec is None:
        raise UsageError(f"{path}: {place} is trusted, but there is no such package any more")
    module = importlib.util.module_from_spec(spec)
    if spec.origin is None:
        # Python would look for the parts of a package without __init__.py in every folder of the path.
        module.__path__ = [str(folder / package)]
    sys.modules[package] = module
    # Last on the path: modules beside the package are found, but replace none that are installed.
    added = str(folder) not in sys.path
    if added:
        sys.path.append(str(folder))
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        if added:
            sys.path.remove(str(folder))
        raise


def _folder_of(module: ModuleType) -> Path | None:
    """Return the folder that holds an imported package or module."""
    inside = [*getattr(module, "__path__", [])] or [getattr(module, "__file__", None)]
    return Path(inside[0]).resolve().parent if inside[0] else None
