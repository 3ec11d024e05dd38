"""Which code a name may import: packages that the user trusts, each in the folder where it was when they said so.

A checkpoint, a recipe or a command may name a function of any package, such as ``mypackage.nets:make_net``. Importing
it runs its code, so that the name alone is not enough. Trust holds for a package in one folder: a package of the same
name in another folder, such as the current one, is another package. Finding a package imports nothing.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdtool.errors import Error, UsageError
from kdtool.utils.files import config_directory, write_text
from kdtool.utils.forms import TEXT, Each, misfit
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps, load

VARIABLE = "KDTOOL_TRUST"
"""Packages that are trusted without being remembered: names of installed ones, or absolute paths, with commas."""

FORM = {"trusted!": Each({"package!": TEXT, "folder!": TEXT})}
"""The form of the file of trusted packages, see `misfit`."""


_typed: list[Place] = []
"""Packages that a command line names and that are not remembered before the whole line has been checked."""


@dataclass(frozen=True)
class Place:
    """A package, or a module without one, and the folder that holds it."""

    package: str
    folder: Path

    def __str__(self) -> str:
        """Return the path of the package, or of the file of the module."""
        return str(_spot(self.folder / self.package))


def file_of_trust() -> Path:
    """Return the file that remembers the trusted packages; it need not exist."""
    return config_directory() / "trusted.json"


def remembered() -> list[Place]:
    """Return the packages that were trusted on this machine, in the order in which they were.

    Raises:
        Error: the file cannot be read, or is damaged.
    """
    path = file_of_trust()
    try:
        content = load(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Error(f"{path}: cannot be read: {error}; remove it, and trust your packages again") from error
    if misfit(content, FORM) is not None:
        raise Error(f"{path}: is damaged; remove it, and trust your packages again")
    return [Place(entry["package"], Path(entry["folder"])) for entry in content["trusted"]]


def trust(text: str) -> Place:
    """Trust a package from now on, say where it is, and return it; ``text`` is its name or its path.

    Of several packages of one name, the one in the current folder is meant.

    Raises:
        UsageError: there is no such package, or it is a part of Python.
        Error: it cannot be remembered.
    """
    place = _meant(text)
    _remember([place])
    return place


@contextlib.contextmanager
def trusted_meanwhile(text: str) -> Iterator[None]:
    """Trust a package, given as in `trust`, while the block runs; `remember_typed` makes it last.

    Raises:
        UsageError: there is no such package, or it is a part of Python.
    """
    place = _meant(text)
    _typed.append(place)
    try:
        yield
    finally:
        _typed.remove(place)


def remember_typed() -> None:
    """Trust the packages that are trusted meanwhile from now on, and say where they are.

    Raises:
        Error: they cannot be remembered.
    """
    if _typed:
        _remember(_typed)


def _remember(places: Sequence[Place]) -> None:
    known = remembered()
    new = [place for place in dict.fromkeys(places) if place not in known]
    if new:
        _write([*known, *new])
    for place in new:
        say(f"trusted from now on: {place}; kdtool trust --remove {place.package} takes it back")


def distrust(text: str) -> list[Place]:
    """Trust a package of this name, or at this path, no more, wherever it is; return what was trusted.

    Raises:
        UsageError: there was none.
    """
    package, folder = _split(text)
    known = remembered()
    gone = [place for place in known if place.package == package and folder in (None, place.folder)]
    if not gone:
        raise UsageError(f"{text}: is not trusted; kdtool trust lists what is")
    _write([place for place in known if place not in gone])
    return gone


def place_of(package: str, name: str) -> Place:
    """Return the place from which a package may be imported; ``name`` is the function that is asked for.

    Raises:
        UsageError: there is no such package.
        Error: it is not trusted, or it is not clear which one is meant.
    """
    places = [place for place in (*remembered(), *_typed, *_of_variable()) if place.package == package]
    here = Place(package, Path.cwd().resolve())
    if here in places:
        return here
    if _holds(here.folder, package):
        if places:
            raise Error(
                f"{name}: there are two: {here} in the current folder, which is not trusted, and {places[0]}, which "
                f"is; work in another folder or, if this one is yours too, add --trust {package}"
            )
        raise _not_trusted(here, name)
    if len(set(places)) > 1:
        where = " and ".join(str(place.folder) for place in places)
        raise Error(f"{name}: {package} is trusted in {where}; work in the folder of the one that is meant")
    if places:
        return places[0]
    raise _not_trusted(_found(package, name), name)


def is_there(place: Place) -> bool:
    """Return whether a package is still in its place."""
    return _holds(place.folder, place.package, namespaces=True)


def exists(package: str) -> bool:
    """Return whether a package or module of that name is in the current folder or installed; it is not imported."""
    return any(True for _ in _candidates(package))


def _not_trusted(place: Place, name: str) -> Error:
    return Error(
        f"{name}: is code in {place}, which is not trusted; if it is yours, or you have read it, add --trust "
        f"{place.package} (once, it is remembered)"
    )


def _meant(text: str) -> Place:
    """Return the place of a package that a user names."""
    package, folder = _split(text)
    if package in sys.stdlib_module_names:
        raise UsageError(f"--trust {text}: {package} is a part of Python and has no networks")
    if folder is None:
        return _found(package, f"--trust {text}")
    if not _holds(folder, package, namespaces=True):
        raise UsageError(f"--trust {text}: there is no package or module of that name")
    return Place(package, folder)


def _split(text: str) -> tuple[str, Path | None]:
    """Return the package that a text names, and the folder if it is a path."""
    if re.search(r"[/\\]", text) or text.endswith(".py"):
        path = Path(text).expanduser().resolve()
        package, folder = path.name.removesuffix(".py"), path.parent
    else:
        package, folder = text.partition(":")[0].partition(".")[0], None
    if not package.isidentifier():
        raise UsageError(f"--trust {text!r}: is not the name of a package, such as mypackage, nor its path")
    return package, folder


def _found(package: str, name: str) -> Place:
    place = next(_candidates(package), None)
    if place is None:
        raise UsageError(
            f"{name}: there is no package or module {package} in the current folder or among the installed ones; work "
            "in the folder that holds it, or install it"
        )
    return place


def _candidates(package: str) -> Iterator[Place]:
    """Yield the places of a package: the current folder, what is installed, and folders of modules without a marker."""
    here = Path.cwd().resolve()
    if _holds(here, package):
        yield Place(package, here)
    yield from _installed(package)
    if not _holds(here, package) and _holds(here, package, namespaces=True):
        yield Place(package, here)


def _installed(package: str) -> Iterator[Place]:
    """Yield where an import would find a package if the current folder were not on the path."""
    # Python itself puts the current folder first, for a script and for -m.
    path = [entry for entry in sys.path[sys.path[:1] == [os.getcwd()] :] if entry not in ("", ".")]
    for finder in sys.meta_path:
        if finder in (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter):
            continue
        found = importlib.machinery.PathFinder.find_spec(package, path)
        if finder is not importlib.machinery.PathFinder:
            found = finder.find_spec(package, None, None)  # of packages that are installed for editing
        inside = [*(found.submodule_search_locations or ()), found.origin] if found else []
        if inside and inside[0]:
            yield Place(package, Path(inside[0]).resolve().parent)


def _holds(folder: Path, package: str, *, namespaces: bool = False) -> bool:
    """Return whether a folder holds a package or module; one of ``namespaces`` has no ``__init__.py``."""
    found = importlib.machinery.PathFinder.find_spec(package, [str(folder)])
    if found is None or found.origin is not None:
        return found is not None
    return namespaces and any(folder.glob(f"{package}/**/*.py"))


def _spot(path: Path) -> Path:
    return path if path.is_dir() else path.with_name(f"{path.name}.py")


def _of_variable() -> Iterator[Place]:
    """Yield the packages that the environment trusts; a name alone never means the current folder."""
    for text in filter(None, (word.strip() for word in os.environ.get(VARIABLE, "").split(","))):
        package, folder = _split(text)
        if folder is not None:
            if not Path(text).expanduser().is_absolute():
                raise UsageError(
                    f"{VARIABLE}={text}: write the absolute path; a relative one means another place each time"
                )
            yield Place(package, folder)
        else:
            yield from list(_installed(package))[:1]


def _write(places: list[Place]) -> None:
    path = file_of_trust()
    content = {"trusted": [{"package": place.package, "folder": str(place.folder)} for place in places]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(
            f"{path}: cannot be written: {error.strerror}; set KDTOOL_CONFIG to a folder that can, or {VARIABLE}"
        ) from error
    write_text(path, dumps(content, indent=1) + "\n")
