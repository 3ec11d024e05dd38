"""timm's description of a network, the ``config.json`` of its folders."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdtool import Network

ORIGIN = ("tag", "license", "origin_url", "paper_name", "paper_ids", "notes", "description", "label_offset")
"""What timm says of its own weights of a network, which are not those of the folder."""


def timm_refusal(network: Network) -> str | None:
    """Return why timm cannot describe a network, or None if it can."""
    from kdtool.models import quantiser_of

    architecture = network.architecture
    if not getattr(network.module, "pretrained_cfg", None):
        return f"{architecture.spec} is no network of timm"
    if architecture.options.get("stem", "default") != "default":
        return f"{architecture.spec} has another stem (--stem {architecture.options['stem']})"
    if architecture.is_edited:
        return f"{architecture.spec} was edited"
    if quantiser_of(network.module) is not None:
        return f"{architecture.spec} was trained in 8 bits"
    return None


def write_config(network: Network, path: Path, metadata: Mapping[str, str]) -> None:
    """Write timm's description of a network, with the preparation of its images and the names of its classes."""
    from timm.models._hub import save_config_for_hf

    architecture = network.architecture
    module = copy.copy(network.module)
    own: dict[str, Any] = dict(module.pretrained_cfg)  # type: ignore[arg-type]
    module.pretrained_cfg = {key: value for key, value in own.items() if key not in ORIGIN}  # type: ignore[assignment]
    channels, height, width = architecture.input
    prepared: dict[str, Any] = {
        "input_size": (channels, height, width),
        "test_input_size": None,
        "num_classes": architecture.classes,
    }
    for theirs, ours in {
        "mean": "kdtool.mean",
        "std": "kdtool.std",
        "crop_pct": "kdtool.crop",
        "interpolation": "kdtool.interpolation",
    }.items():
        if ours in metadata:
            value = json.loads(metadata[ours])
            prepared[theirs] = tuple(value) if isinstance(value, list) else value
    # Without a record timm's own numbers, if they are for as many channels.
    left_out = [name for name in ("mean", "std") if name not in prepared and len(own.get(name) or ()) != channels]
    for name in left_out:
        module.pretrained_cfg.pop(name, None)  # type: ignore[operator,union-attr]
    arguments: dict[str, Any] = {} if channels == 3 else {"in_chans": channels}
    if own.get("fixed_input_size"):
        arguments["img_size"] = [height, width]
    config: dict[str, Any] = {"pretrained_cfg": prepared}
    if "kdtool.classes" in metadata:
        config["label_names"] = json.loads(metadata["kdtool.classes"])
    save_config_for_hf(module, str(path), model_config=config, model_args=arguments)
