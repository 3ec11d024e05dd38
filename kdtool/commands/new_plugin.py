"""What `kdtool new-plugin` does."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from pathlib import Path
from string import Template

from kdtool.errors import Error, UsageError, nearest
from kdtool.exporting.names import option_names
from kdtool.plugins.entry_points import KINDS, SINGULAR, TRACKERS, names

TEMPLATES = Path(__file__).parent / "templates"

GROUPS = {kind.removesuffix("s"): kind for kind in (*KINDS, TRACKERS)}
"""The kinds of plugins in the singular, as they are typed, and the group of each."""

CHECKS = {
    "teachers": "check_source",
    **{kind: f"check_{kind.removesuffix('s')}" for kind in GROUPS.values() if kind != "teachers"},
}
"""The function of `kdtool.testing` for each kind."""

SUMMARIES = {kind: f"A {singular} for kdtool." for kind, singular in SINGULAR.items()} | {
    "exporters": "An exporter for kdtool.",
    TRACKERS: "A tracker for kdtool.",
}

USAGE = {
    "teachers": "kdtool teacher NAME:one-hidden --help",
    "refiners": "kdtool refine --method NAME --help",
    "distillers": "kdtool distill --method NAME --help",
    "pruners": "kdtool prune --method NAME --help",
    "exporters": "kdtool export --method NAME --help",
    "datasets": "kdtool inspect --data NAME",
    TRACKERS: "kdtool teacher kdtool:lenet-5 --data digits --epochs 1 --track NAME",
}

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_plugin(name: str, kind: str, *, output: str | Path | None = None) -> Path:
    """Write a package with one method or tracker and its test, and return its directory.

    ``name`` is what users will type, ``kind`` one of teacher, refiner, distiller, pruner, exporter, dataset and
    tracker. What is written works, and passes the check of its kind: change it step by step. ``output`` is the
    directory, by default ``kdtool-NAME``.

    Raises:
        UsageError: the name cannot be one, or is taken; the kind is none; or the directory exists.
        Error: the directory cannot be written.
    """
    group = GROUPS.get(kind.removesuffix("s"))
    if group is None:
        raise UsageError(f"--kind {kind}: is no kind{nearest(kind, GROUPS) or '; one of ' + ', '.join(GROUPS)}")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r}: a name has lower-case letters, digits and hyphens, such as my-{kind}")
    if name in names(group):
        raise UsageError(f"{name}: is the name of an installed {SINGULAR.get(group, kind)}; choose another one")
    if group == "exporters" and name in option_names():
        raise UsageError(f"{name}: kdtool export has an option --{name}, and users type --NAME; choose another one")
    taken = importlib.util.find_spec(_module(name))
    if taken is not None and taken.submodule_search_locations is not None:  # the new module would hide the package
        raise UsageError(f"{name}: there is a package {_module(name)} already; choose another one")
    target = Path(output) if output is not None else Path(f"kdtool-{name}")
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target}: exists already; choose another directory with -o")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no directory {target.parent}")
    contents = _contents(name, group)
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name[:50]}.", dir=target.parent))
        try:
            for file, text in contents.items():
                (draft / file).write_text(text, encoding="utf-8")
            draft.chmod(0o755)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise Error(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _module(name: str) -> str:
    return f"kdtool_{name.replace('-', '_')}"


def _contents(name: str, group: str) -> dict[str, str]:
    """Return the files of the package and their texts."""
    words = name.split("-")
    joined = "".join(word.capitalize() for word in words)
    function = "_".join(words)
    filled = {
        "CLASS": joined + "Method" * keyword.iskeyword(joined),
        "MODULE": _module(name),
        "FUNCTION": function,
        "GROUP": group,
        "CHECK": CHECKS[group],
        "SUMMARY": SUMMARIES[group],
        "USAGE": USAGE[group].replace("NAME", name),
        "NAME": name,
    }

    def text(template: str) -> str:
        return Template((TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(filled)

    return {
        "pyproject.toml": text("pyproject"),
        "README.md": text("readme"),
        f"{filled['MODULE']}.py": text(group.removesuffix("s")),
        f"test_{function}.py": text("test"),
    }
