"""How a network is named: ``SOURCE:NAME``, with options behind commas, or the import path of a function of one's own.

Nothing here imports torch or a source, since the command line splits names before it does anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.plugins import trust
from kdtool.plugins.entry_points import names
from kdtool.plugins.own_code import MAIN, given, is_path
from kdtool.utils.keywords import as_keywords, read_keywords
from kdtool.utils.progress import say

OWN_CODE = "python"
"""The source of networks that are functions of the user's own code; its name may be left out."""


MEANT = {"torch": "torchvision", "pytorch": "torchvision", "tv": "torchvision", "huggingface": "hf", "hub": "hf"}
"""What is written in the place of a source, where no module is called so; no function of torch builds a network."""


def forms() -> str:
    """Return how a network can be written, for messages."""
    return " or ".join([*(f"{name}:NAME" for name in names("teachers") if name != OWN_CODE), "MODULE:FUNCTION"])


def qualified(text: str) -> str:
    """Return a name with its source: ``mypackage.nets:make_net`` is ``python:mypackage.nets:make_net``.

    A name whose first part is that of a source is left as it is, and so is one that is no import path. A module without
    a package is one if it is there: ``tim:resnet18`` is rather a misspelt source.
    """
    source = text.partition(":")[0]
    if source in names("teachers") or not is_path(text.partition(",")[0]):
        return text
    found = "." in source or source == MAIN or (source != "torch" and trust.exists(source))
    return f"{OWN_CODE}:{text}" if found else text


def source_of(text: str) -> str:
    """Return the source of a name.

    Raises:
        UsageError: there is no such source, and no module of that name that could have the function.
    """
    source = qualified(text).partition(":")[0]
    known = names("teachers")
    if source not in known:
        hint = f"; did you mean {MEANT[source]}?" if MEANT.get(source) in known else nearest(source, known)
        own = f", nor a module {source} here" if not hint and source.isidentifier() else ""
        raise UsageError(f"no teacher source is called {source!r}{own}{hint or '; there are ' + ', '.join(known)}")
    return source


def named(network: str | Path | Callable[..., Any]) -> str:
    """Return the name of a network that a program gives: a text, or the function or class that builds it.

    Arguments of the function are given with `functools.partial`.

    Raises:
        UsageError: the function cannot be found by a name, or an argument is no plain value.
    """
    if isinstance(network, str | Path):
        return str(network)
    function, arguments, unnamed = network, dict[str, Any](), tuple[Any, ...]()
    if isinstance(network, functools.partial):
        function, arguments, unnamed = network.func, network.keywords, network.args
    path = given(function)
    if unnamed or read_keywords(as_keywords(arguments)) != dict(arguments):
        raise UsageError(f"{path}: give its arguments by name, as numbers, texts, True, False, None or lists of them")
    if path.partition(":")[0] == MAIN:
        say(f"{path}: is in the script itself, so that no other process can read its checkpoints; put it into a module")
    return f"{OWN_CODE}:{path}" + (f",{as_keywords(arguments)}" if arguments else "")


def stem_of(text: str) -> str:
    """Return the part of a name that names files: ``resnet18`` of ``timm:resnet18``, the function of an import path."""
    return PurePath(qualified(text).partition(",")[0].rpartition(":")[2]).name
