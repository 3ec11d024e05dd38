"""Load the plugins that are always on, and let them add commands.

`importlib.metadata` takes as long to import as the rest of ``kdtool --help``, and most installations have no such
plugin. So this module first looks for the section's name in the packages' files, and imports nothing if it is absent.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

import click

from kdtool.utils.formatting import printable

LIMIT = 20.0
"""Seconds that a plugin may take to add its commands."""

_SECTION = b"[kdtool]"
"""The section of such plugins in ``entry_points.txt``."""


def load_always_on(cli: click.Group) -> None:
    """Load the plugins that are always on and let them add commands; a broken one gets a warning on stderr."""
    # Where the plugins' module is imported already, there is no time to save.
    if "kdtool.plugins.entry_points" not in sys.modules and not _any_installed():
        return
    from kdtool.plugins.containment import TooLong, contained, limited
    from kdtool.plugins.entry_points import always_on, manager

    for broken in always_on():
        _warn(str(broken))
    for hook in manager().hook.commands.get_hookimpls():
        try:
            with contained(), limited(LIMIT):
                hook.function(*[cli for _ in hook.argnames])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may fail in any way
            late = isinstance(error, TooLong)
            reason = f"takes longer than {LIMIT:g} s" if late else f"{type(error).__name__}: {error}"
            _warn(f"plugin {hook.plugin_name} is broken: commands(): {reason}")


def _warn(text: str) -> None:
    # No warning while the shell asks for completions.
    if "_KDTOOL_COMPLETE" not in os.environ:
        click.echo(f"warning: {printable(' '.join(text.split()), 1000)}", err=True)


def _any_installed() -> bool:
    """Return False if no package on the path has a plugin that is always on; True if one has, or may have."""
    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        return True  # packages that are found in another way than by the path
    return any(_may_have_plugin(entry or ".") for entry in sys.path)


def _may_have_plugin(folder: str) -> bool:
    if folder.endswith(".egg"):
        return True
    try:
        names = os.listdir(folder)
    except NotADirectoryError:
        return True  # a zip file
    except OSError:
        return False
    return any(_has_section(f"{folder}/{name}") for name in names if name.lower().endswith((".dist-info", ".egg-info")))


def _has_section(metadata: str) -> bool:
    try:
        with open(f"{metadata}/entry_points.txt", "rb") as file:
            return _SECTION in file.read()
    except OSError:
        return False
