"""What a ``config.json`` in timm's form says of a network, checked, as plain data that a checkpoint can hold."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdtool import UsageError
from kdtool.errors import nearest
from kdtool_teachers.timm_models import is_classifier

KEYS = {
    *("architecture", "arguments", "weights", "sized", "labels"),
    *("classes", "in_channels", "image_size", "mean", "std", "crop", "interpolation"),
}

REFUSED = {
    "pretrained_cfg",
    "pretrained_strict",
    "pretrained_model_args",
    "features_only",
    "feature_cfg",
    "out_indices",
}
"""Arguments of timm's builder that no description may set, beside those of ``create_model``: some name files."""

OF_WEIGHTS = ("classifier", "first_conv", "fixed_input_size", "label_offset", "pool_size")
"""What timm has to know of the weights to adapt them to other classes and channels."""

MOST = 200_000
"""The most labels."""


def described_by(path: Path) -> dict[str, Any]:
    """Return the description of a network in the folder of its ``config.json``.

    Raises:
        UsageError: the file is no description of a network of timm; the message goes on after the network's name.
    """
    from timm.models._hub import load_model_config_from_path

    try:
        config, architecture, arguments = load_model_config_from_path(path.parent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"its {path.name} is no description of a network of timm") from error
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(architecture) if isinstance(architecture, str) and _is_model(architecture) else None
    base = {name: getattr(known, name, None) for name in ("mean", "std", "crop_pct", "interpolation", *OF_WEIGHTS)}
    config = {**base, **{name: value for name, value in config.items() if value is not None}}
    size, labels = config.get("input_size", (3, 224, 224)), config.get("label_names")
    arguments = {**({"global_pool": pool} if (pool := config.get("global_pool")) else {}), **_dict(arguments)}
    try:
        return described(
            {
                "architecture": architecture,
                "arguments": {name: value for name, value in arguments.items() if name not in _OWN},
                "weights": {name: config[name] for name in OF_WEIGHTS if config.get(name) is not None},
                "sized": bool(config.get("fixed_input_size")) or "img_size" in arguments,
                "labels": _labels(labels, config.get("num_classes")),
                "classes": config.get("num_classes"),
                "in_channels": size[0],
                "image_size": min(size[1:]),
                "mean": list(config["mean"]),
                "std": list(config["std"]),
                "crop": config["crop_pct"],
                "interpolation": config["interpolation"],
            }
        )
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise UsageError(f"its {path.name} is damaged: {' '.join(str(error).split())[:100]}") from error


_OWN = {"num_classes", "in_chans", "img_size"}
"""Arguments that kdtool sets itself."""


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _labels(labels: Any, classes: Any) -> list[str]:
    """Return the names of the classes, or none if they do not fit."""
    if isinstance(labels, Mapping):
        labels = [labels.get(str(index)) for index in range(len(labels))]
    fits = isinstance(labels, list) and len(labels) == classes <= MOST and len({*map(str, labels)}) == len(labels)
    return [str(label) for label in labels] if fits else []


def _is_model(architecture: str) -> bool:
    import timm

    return architecture.isidentifier() and timm.is_model(architecture)


def described(data: Any) -> dict[str, Any]:
    """Return a description; every entry is checked, since a file may hold anything.

    Raises:
        UsageError: an entry is malformed, or there is no such network; the message goes on after the network's name.
    """
    import timm

    if not isinstance(data, Mapping) or set(data) != KEYS:
        raise UsageError("its description is damaged")
    name = data["architecture"]
    if not isinstance(name, str) or not _is_model(name):
        known = nearest(str(name), timm.list_models())
        raise UsageError(
            f"timm {timm.__version__} has no network {str(name)[:60]!r}{known}; update timm, if it is newer"
        )
    if not is_classifier(name):
        raise UsageError(f"{name} is not a classifier")
    refused = [key for key in data["arguments"] if key in REFUSED | _builder_arguments() or not str(key).isidentifier()]
    if refused:
        raise UsageError(f"its description sets {', '.join(map(str, refused))[:100]}, which no network may")
    for part in ("arguments", "weights"):
        if not isinstance(data[part], Mapping) or not all(map(_is_plain, data[part].values())):
            raise UsageError(f"its description is damaged: {part}")
    if set(data["weights"]) - {*OF_WEIGHTS}:
        raise UsageError("its description is damaged: weights")
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("classes", "in_channels", "image_size"), lambda value: type(value) is int and value > 0),
        **dict.fromkeys(("mean", "std"), lambda value: isinstance(value, list) and all(map(_is_number, value))),
        "crop": lambda value: _is_number(value) and value > 0,
        "interpolation": lambda value: isinstance(value, str),
        "labels": lambda value: isinstance(value, list) and all(isinstance(label, str) for label in value),
        "sized": lambda value: isinstance(value, bool),
    }
    for key, valid in checks.items():
        if not valid(data[key]):
            raise UsageError(f"its description is damaged: {key}")
    return dict(data)


def of_weights(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what timm is told of the weights, to adapt them to other classes, channels and sizes."""
    size = description["image_size"]
    return {
        **description["weights"],
        "architecture": description["architecture"],
        "num_classes": description["classes"],
        "input_size": (description["in_channels"], size, size),
    }


def _builder_arguments() -> set[str]:
    import timm

    return {*inspect.signature(timm.create_model).parameters}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(item is None or isinstance(item, list | tuple | str | int | float) for item in value)
    return value is None or isinstance(value, str | int | float)
