"""Run the code of a method, which may be anybody's, and tell whose fault an error is."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any, TypeVar

from kdtool.errors import Error
from kdtool.plugins.containment import ProcessExit, no_exit
from kdtool.plugins.entry_points import SINGULAR, installed

T = TypeVar("T")


class MethodError(Error):
    """A mistake in the code of a method that kdtool found itself; `running_method` puts the method's name in front."""


@contextlib.contextmanager
def running_method(method: Any) -> Iterator[None]:
    """Run code of a method in the block; if it exits, or fails by a mistake of its own, the error names the method.

    Raises:
        Error: it did, or kdtool found a mistake of it (`MethodError`). Other errors that a user reads, and those of
            kdtool, of libraries and of the system, stay as they are.
    """
    try:
        with no_exit:
            yield
    except SystemExit as end:
        function = "os._exit" if isinstance(end, ProcessExit) else "sys.exit"
        raise Error(f"{_named(method)}: its code called {function}({end.code!r})") from end
    except MethodError as error:
        raise Error(f"{_named(method)}: {error}") from error
    except (Error, OSError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        if "memory" in str(error).lower() or not _own(method, error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Error(f"{_named(method)} failed: {reason}; run again with --debug for the traceback") from error
    except BaseException as error:
        if not _own(method, error):
            raise
        raise Error(f"{_named(method)}: its code raised {type(error).__name__}, which is no Exception") from error


def returned(method: Any, value: T, kind: type | tuple[type, ...], what: str) -> T:
    """Return what a method returned, if it is of its kind; ``what`` says in words what that is.

    Raises:
        Error: it is something else.
    """
    if not isinstance(value, kind):
        raise misreturned(method, f"{type(value).__name__}, not {what}")
    return value


def misreturned(method: Any, what: str) -> Error:
    """Return the error about a method that returned something else than it should; ``what`` says both in words."""
    return Error(f"{_named(method)} returned {what}")


def not_overridden(method: object, function: str) -> MethodError:
    """Return the error about a function that a class leaves to those who derive from it, and that one of them lacks."""
    return MethodError(f"{type(method).__name__}.{function}() is not implemented")


def _named(method: Any) -> str:
    """Return the kind and the name of a method, and who wrote it."""
    if not hasattr(method, "kind"):
        return str(getattr(method, "name", type(method).__name__))
    owners = [plugin for plugin in installed() if (plugin.kind, plugin.name) == (method.kind, method.name)]
    owner = f" of {owners[0].distribution} {owners[0].version}" if owners and not owners[0].builtin else ""
    return f"{SINGULAR.get(method.kind, 'method')} {method.name}{owner}"


def _own(method: Any, error: BaseException) -> bool:
    """Return whether the last line that failed, libraries apart, is in a package of somebody else's plugin."""
    package = type(method).__module__.partition(".")[0]
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]
    ours = [name for name in packages if name == package or name == "kdtool" or name.startswith("kdtool_")]
    return bool(ours) and ours[-1] == package and not _builtin(type(method).__module__)


def _builtin(module: str) -> bool:
    return any(plugin.builtin and plugin.module == module for plugin in installed())
