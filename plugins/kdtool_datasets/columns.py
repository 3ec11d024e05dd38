"""Which columns of a table of images are the image and the label: known by their types and names, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kdtool import Error
from kdtool.utils import printable
from kdtool_datasets.listing import some
from kdtool_datasets.tables import FILE_NAMES, LABEL_NAMES, plain

if TYPE_CHECKING:
    import pyarrow

# The metadata of a schema may hold anything.
LONGEST_METADATA = 2**26


class Columns(NamedTuple):
    """The names of the columns, and those of the classes if the table knows them; ``notes`` is what to say."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


def columns_of(
    schema: pyarrow.Schema, shown: str, choices: Mapping[str, str], written: str, *, labelled: bool = True
) -> Columns:
    """Return the columns of a table.

    ``choices`` are what the user chose for ``image`` and ``label``, ``written`` is how the data set is named, for
    messages. Unless it is ``labelled``, the label is not looked for.

    Raises:
        kdtool.Error: there is no column that fits, or more than one.
    """
    features = _features(schema)
    kinds = {field.name: _kind(field.type, features.get(field.name)) for field in schema}
    notes: list[str] = []
    image = _chosen("image", choices, kinds, ("image",), shown)
    if image is None:
        image = _one("image", [name for name, kind in kinds.items() if kind == "image"], FILE_NAMES, shown, written)
    if image is None:
        raise Error(
            f"{shown}: has no column of images, as bytes or as {{bytes, path}}, only {some(list(kinds))}; files beside "
            "a table are read from a list, with csv:FILE"
        )
    label = _chosen("label", choices, kinds, ("class", "number", "text"), shown) if labelled else None
    if labelled and label is None:
        label = _label(kinds, image, shown, written, notes)
    classes = _names(features.get(label, {})) if label is not None else None
    return Columns(image, label, classes, tuple(notes))


def _label(kinds: Mapping[str, str], image: str, shown: str, written: str, notes: list[str]) -> str:
    named = [name for name, kind in kinds.items() if kind == "class"]
    usual = [name for name, kind in kinds.items() if kind in ("number", "text") and plain(name) in LABEL_NAMES]
    label = _one("label", named or usual, {"label", "labels"}, shown, written)
    if label is None:
        rest = [name for name, kind in kinds.items() if kind in ("number", "text")]
        others = [name for name in kinds if name != image]
        what = f"only {some(others)}" if others else "only the images"
        choose = f"; if one of them is the label, choose it with {written},label=NAME" if rest else ""
        raise Error(f"{shown}: has no column of labels, {what}{choose}")
    others = list(dict.fromkeys(name for name in (*named, *usual) if name != label))
    if others:
        notes.append(f"labels are read from the column {printable(label)}, not from {some(others)}")
    return label


def _chosen(what: str, choices: Mapping[str, str], kinds: Mapping[str, str], fitting: tuple[str, ...], shown: str
            ) -> str | None:  # fmt: skip
    """Return the column that the user chose, None if it was not chosen."""
    if what not in choices:
        return None
    name = choices[what]
    if name not in kinds:
        raise Error(f"{shown}: has no column {printable(name)}, only {some(list(kinds))}")
    if kinds[name] not in fitting:
        holds = "holds images" if kinds[name] == "image" else f"is of the type {kinds[name]}"
        wanted = "bytes or {bytes, path}" if what == "image" else "whole numbers or text"
        raise Error(f"{shown}: the column {printable(name)} {holds}, but a column of {what}s has {wanted}")
    return name


def _one(what: str, names: list[str], usual: set[str] | frozenset[str], shown: str, written: str) -> str | None:
    """Return the one column of several that is named as usual, None if there are none."""
    exact = [name for name in names if plain(name) in usual]
    if len(names) > 1 and len(exact) != 1:
        listed = " and ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
        raise Error(
            f"{shown}: its columns {listed} may all be the {what}; choose one, as in "
            f"{written},{what}={printable(names[0])}"
        )
    return exact[0] if len(names) > 1 else next(iter(names), None)


def _kind(kind: pyarrow.DataType, feature: Any) -> str:
    """Return ``image``, ``class``, ``number``, ``text``, or the name of another type."""
    import pyarrow

    types = pyarrow.types
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
        return "image" if types.is_binary(kind) or types.is_large_binary(kind) else str(kind)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "image"
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_integer(kind) or types.is_boolean(kind):
        return "class" if _names(feature) else "number"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return printable(str(kind), 60)


def _features(schema: pyarrow.Schema) -> dict[str, Any]:
    """Return what the metadata of Hugging Face's ``datasets`` says of each column; it may hold anything."""
    text = (schema.metadata or {}).get(b"huggingface", b"")
    if not 0 < len(text) <= LONGEST_METADATA:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _names(feature: Any) -> tuple[str, ...] | None:
    """Return the names of the classes of a ``ClassLabel``, None for other features."""
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
