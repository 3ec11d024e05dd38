"""Read what other programs saved: the weights of a network, and what the file tells of its classes and images."""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdtool.data.classes import only_numbers
from kdtool.data.preparation import INTERPOLATION
from kdtool.errors import Error
from kdtool.utils.formatting import printable
from kdtool.utils.stand_ins import arguments, plain
from kdtool.utils.tensor_files import safe_load, safetensors_metadata

# Keys under which training scripts store the weights; averaged ones first, as in timm's own loader.
_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "ema_model",
    "ema_weights",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
)

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# Keys under which training scripts store the names of the classes, without case, dashes and underscores.
_CLASS_NAMES = frozenset(
    {
        *("classes", "classnames", "classlabels", "labelnames", "labels", "categories", "clsnames"),
        *("classtoidx", "classtoindex", "labeltoidx", "label2id", "class2idx", "labelmap"),
        *("idxtoclass", "indextoclass", "idxtolabel", "id2label", "idx2class", "idx2label"),
    }
)

# How deep names of classes are searched in nested dictionaries, and in how many entries.
_DEPTH, _ENTRIES = 4, 1_000_000

# Sides of images in pixels that are believed.
MOST_SIDE = 4096

# How many names a message lists.
SHOWN = 4


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state_dict in a .pth, .pt or .safetensors file: tensors by name.

    Dictionaries that a training script put around it (``{"state_dict": ...}``, averaged weights first) are unwrapped.

    Raises:
        Error: the file holds no state_dict; the message says what it holds.
    """
    weights = _unwrap(Path(path), _content(path))
    infinite = [
        name for name, tensor in weights.items() if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all())
    ]
    if infinite:
        logging.getLogger("kdtool").warning(
            "%s: %d of %d tensors hold numbers that are not finite (%s)",
            *(path, len(infinite), len(weights), first_few(infinite)),
        )
    return weights


class Told(NamedTuple):
    """What a file of weights tells of their training.

    ``classes`` are the names of the classes in the order of the network's outputs, None without any. ``images`` has
    some of ``mean``, ``std`` (a number for each channel, or one for all), ``crop`` and ``interpolation``, as in a
    `DataSpec`. ``size`` is the side of the images in pixels. ``natural`` says that timm's script has sorted the classes
    (see `kdtool.data.classes.natural_order`).
    """

    classes: tuple[str, ...] | None = None
    images: Mapping[str, Any] = {}
    size: int | None = None
    natural: bool = False


def told_in(path: str | Path) -> Told:
    """Return what a file of weights tells of their training.

    Raises:
        Error: the file cannot be read, or it holds different lists of names.
    """
    content = _content(path)
    said = arguments(content.get("args")) if isinstance(content, dict) else {}
    mode = plain(said.get("crop_mode"))
    if isinstance(mode, str) and mode != "center":
        logging.getLogger("kdtool").warning(
            "%s: was trained with crop mode %s, which kdtool does not have; images are cropped to their centre",
            *(path, printable(mode, 100)),
        )
    return Told(_names_in(path, content), known_images(_of_script(said)), _size_in(said), _sorted_by_timm(said))


def _names_in(path: str | Path, content: Any) -> tuple[str, ...] | None:
    entries = [*_entries(content)]
    entries += [(key, _from_json(text)) for key, text in safetensors_metadata(Path(path)).items() if _is_class_key(key)]
    found = {where: names for where, value in entries if (names := _names(value)) is not None}
    found = {where: names for where, names in found.items() if not only_numbers(names)} or found
    if len(set(found.values())) > 1:
        raise Error(f"{path}: names its classes in several ways ({first_few(list(found))}); keep one of them")
    return next(iter(found.values()), None)


def fitting_names(path: Path | None, names: tuple[str, ...] | None, classes: int) -> tuple[str, ...] | None:
    """Return the names of classes in a file if there are as many as a network has classes; if not, say so."""
    if names is not None and len(names) != classes:
        logging.getLogger("kdtool").warning(
            "%s: names %d classes and the network has %d; the names are ignored", path, len(names), classes
        )
        return None
    return names


def _content(path: str | Path) -> Any:
    content = safe_load(path, foreign=True)
    if isinstance(content, dict) and content.get("format") == "kdtool":
        raise Error(f"{path}: a kdtool checkpoint already; use it directly: kdtool distill {path}")
    return content


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    for _ in range(4):
        if not isinstance(content, dict):
            break
        named = [key for key in _WRAPPERS if _holds_tensors(content.get(key))]
        if len(named) > 1:
            logging.getLogger("kdtool").warning(
                "%s: holds weights as %s; those of %s are read; to read others, save them alone",
                *(path, first_few(named), named[0]),
            )
        if named:
            content = content[named[0]]
            continue
        weights = {
            name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
        }
        inner = {str(key): value for key, value in content.items() if _is_state_dict(value)}
        if weights and len(weights) > max(map(len, inner.values()), default=0):
            return weights
        parts = [name for value in inner.values() for name in value]
        if len(inner) != 1 and len(parts) == len(set(parts)) > 0:
            # The parts of a network, such as its backbone and its classifier.
            return {f"{key}.{name}": tensor for key, value in inner.items() for name, tensor in value.items()}
        if len(inner) != 1:
            break
        content = next(iter(inner.values()))
    what = type(content).__name__
    if isinstance(content, dict):
        what = f"a dict of {first_few([str(key) for key in content])}" if content else "an empty dict"
    raise Error(f"{path}: holds no state_dict but {what}; save one: torch.save(module.state_dict(), FILE)")


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _holds_tensors(content: Any, depth: int = _DEPTH) -> bool:
    """Return whether a value is a dictionary with tensors in it, or in dictionaries in it."""
    if not isinstance(content, dict) or not depth:
        return False
    return any(isinstance(value, Tensor) or _holds_tensors(value, depth - 1) for value in content.values())


# How images were prepared


def _of_script(said: Mapping[Any, Any]) -> dict[str, Any]:
    """Return mean, std, crop and interpolation from the arguments of a training script of timm or torchvision."""
    crop = plain(said.get("crop_pct"))
    resized, cropped = plain(said.get("val_resize_size")), plain(said.get("val_crop_size"))
    if crop is None and type(resized) is type(cropped) is int and 0 < cropped <= resized:
        crop = cropped / resized
    return {**{name: plain(said.get(name)) for name in ("mean", "std", "interpolation")}, "crop": crop}


def _sorted_by_timm(said: Mapping[Any, Any]) -> bool:
    """Return whether timm's training script has sorted the folders of the classes, given its arguments."""
    other = plain(said.get("class_map")) or "/" in str(plain(said.get("dataset")))  # a data set of another library
    return {"model", "crop_pct"} <= {*said} and not other


def _size_in(said: Mapping[Any, Any]) -> int | None:
    """Return the side of the images in the arguments of a training script, None if they do not tell it."""
    shape = plain(said.get("input_size"))  # channels, height, width
    square = isinstance(shape, list) and len(shape) == 3 and shape[1] == shape[2]
    sides = [shape[1] if square else None, *(plain(said.get(name)) for name in ("img_size", "val_crop_size"))]
    return next((side for side in sides if type(side) is int and 0 < side <= MOST_SIDE), None)


def known_images(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``mean``, ``std``, ``crop`` and ``interpolation`` that are there and have a meaning."""
    known: dict[str, Any] = {}
    for name in ("mean", "std"):
        value = values.get(name)
        numbers = value if isinstance(value, list | tuple) else [value]
        if numbers and all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers):
            known[name] = tuple(map(float, numbers))
    if not all(known.get("std", ())):
        del known["std"]
    crop = values.get("crop")
    if isinstance(crop, int | float) and 0 < crop <= 1:
        known["crop"] = float(crop)
    if values.get("interpolation") in INTERPOLATION:
        known["interpolation"] = values["interpolation"]
    return known


# Names of classes


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each entry that may name classes, in dictionaries up to a depth."""
    pending: deque[tuple[str, Any, int]] = deque([("", content, _DEPTH)])
    visited = 0
    while pending:
        path, value, depth = pending.popleft()
        if not isinstance(value, dict) or not depth:
            continue
        for key, item in value.items():
            visited += 1
            if visited > _ENTRIES:
                return
            where = f"{path}.{key}".removeprefix(".")
            # "names" is a usual word: only a dictionary of numbers and names is sure to name classes.
            if isinstance(key, str) and (_is_class_key(key) or (key == "names" and isinstance(item, dict))):
                yield where, item
            if isinstance(item, dict):
                pending.append((where, item, depth - 1))


def _is_class_key(key: str) -> bool:
    return re.sub(r"[\s_-]", "", key).casefold() in _CLASS_NAMES


def _names(value: Any) -> tuple[str, ...] | None:
    """Return the names of classes in the order of their numbers, None if the value is something else.

    It may be a list of names, a dictionary of numbers by name, or one of names by number. Placeholders (``LABEL_0``)
    are no names.
    """
    names: list[Any] | None = None
    if isinstance(value, dict):
        pairs = [(plain(key), plain(item)) for key, item in value.items()]
        if pairs and all(isinstance(item, str) for _, item in pairs):
            pairs = [(item, key) for key, item in pairs]
        numbers = {_number(number): name for name, number in pairs}
        if set(numbers) == set(range(len(pairs))):
            names = [numbers[number] for number in range(len(pairs))]
    else:
        decoded = plain(value)
        names = decoded if isinstance(decoded, list) else None
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        return None
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else tuple(names)


def _number(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\d{1,9}", value) else None
    return value if type(value) is int else None


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def first_few(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(printable(name, 100) for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
