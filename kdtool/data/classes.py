"""Classes are identified by their names: the order of one list in that of another, or the difference between them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from kdtool.errors import Error
from kdtool.utils.formatting import printable

# How many names a message lists.
SHOWN = 4


def positions(
    names: Sequence[str], reference: Sequence[str], what: str, of: str, way_out: str = "rename them, or use another one"
) -> list[int] | None:
    """Return for each of ``names`` its place in ``reference``, or None if both lists are equal.

    ``what`` has the classes ``names``, ``of`` has the classes ``reference``; both are named in the message, which ends
    in ``way_out``.

    Raises:
        Error: the names are not the same ones; the message says which differ, and which of them differ only in case, in
            surrounding spaces or in the form of their Unicode characters.
    """
    names, reference = list(names), list(reference)
    if names == reference:
        return None
    if len(set(names)) == len(names) == len(reference) and set(names) == set(reference):
        places = {name: place for place, name in enumerate(reference)}
        return [places[name] for name in names]
    raise Error(f"{what}: its classes are not those of {of}: {difference(names, reference)}; {way_out}")


def outputs_of(own: tuple[str, ...], named: tuple[str, ...] | None, *, natural: bool) -> tuple[str, ...]:
    """Return the classes of a data set in the order of a network's outputs.

    ``own`` are those of the data set in its order. ``named`` are those that the file of the network names: ascending
    numbers may stand for any names, and count only where the data set has these numbers. ``natural`` says that the
    outputs are in the `natural_order`, where no names count.
    """
    if named is not None and ({*named} == {*own} or not only_numbers(named)):
        return named
    return natural_order(own) if natural else own


def only_numbers(names: Sequence[str]) -> bool:
    """Return whether names are ascending numbers."""
    return all(re.fullmatch(r"\d{1,9}", name) for name in names) and list(names) == sorted(names, key=int)


def natural_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes in the order in which timm sorts their folders: without case, numbers by their value."""

    def key(name: str) -> list[str | int]:
        parts = re.split(r"(\d+)", name.rpartition("/")[2].lower())
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    return tuple(sorted(names, key=key))


def difference(names: Sequence[str], reference: Sequence[str]) -> str:
    """Return in words how two lists of class names differ.

    Names that look alike but differ in case, in spaces or in Unicode form are paired, and shown with the characters
    that cannot be told apart on a screen as escapes.
    """
    own, others = set(names), set(reference)
    missing = [name for name in reference if name not in own]
    extra = [name for name in names if name not in others]
    alike = {_plain(name): name for name in missing}
    # Taken out, since two names may look like the same one.
    pairs = [(name, alike.pop(_plain(name))) for name in extra if _plain(name) in alike]
    paired = {name for pair in pairs for name in pair}
    missing = [name for name in missing if name not in paired]
    extra = [name for name in extra if name not in paired]
    parts = [
        f"it has {_escaped(name, other)} for {_escaped(other, name)} ({_how(name, other)})"
        for name, other in pairs[:SHOWN]
    ]
    parts += [f"and {len(pairs) - SHOWN} more such pairs"] if len(pairs) > SHOWN else []
    parts += [f"it lacks {_listed(missing)}"] if missing else []
    parts += [f"it adds {_listed(extra)}"] if extra else []
    if not parts:
        parts = ["a name occurs twice"]
    return f"{', '.join(parts)} ({len(names)} and {len(reference)} classes)"


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _how(name: str, other: str) -> str:
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
        return "the same characters in another Unicode form"
    if name.casefold() == other.casefold():
        return "another case"
    if " ".join(name.split()) == " ".join(other.split()):
        return "other spaces"
    return "another case, spaces or Unicode form"


def _escaped(name: str, other: str) -> str:
    """Return a name in quotes; where it would look like ``other``, with all but ASCII characters as escapes."""
    plain = repr(printable(name, 60))
    if unicodedata.normalize("NFKC", name) == unicodedata.normalize("NFKC", other):
        return ascii(name[:60])
    return plain


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(printable(name, 60)) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
