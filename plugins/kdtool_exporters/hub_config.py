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

PLACES = ("architecture", "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
"""What timm says of where its own weights are."""


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
    # What a network from the Hub was built with; timm before 1.0.31 does not keep it.
    arguments: dict[str, Any] = json.loads(architecture.options.get("described") or "{}").get("arguments", {})
    arguments |= {} if channels == 3 else {"in_chans": channels}
    if own.get("fixed_input_size"):
        arguments["img_size"] = [height, width]
    # Weights for other channels than three are as they are; timm before 1.0.31 would adapt them.
    kept = {key: value for key, value in module.pretrained_cfg.items() if key not in PLACES and value is not None}  # type: ignore[operator,union-attr]
    prepared |= {} if channels == 3 else {"first_conv": None}
    # All of it, since timm before 1.0.31 takes this in place of its own.
    config: dict[str, Any] = {"pretrained_cfg": {**kept, **prepared}}
    if "kdtool.classes" in metadata:
        config["label_names"] = json.loads(metadata["kdtool.classes"])
    save_config_for_hf(module, path, model_config=config, model_args=arguments)
