"""The model card of a folder: what the network is, what was measured, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdtool.utils import markdown_code, markdown_text

if TYPE_CHECKING:
    from kdtool import Architecture

SHOWN = 20
"""How many classes the card names."""


def card(
    name: str,
    architecture: Architecture,
    metadata: Mapping[str, str],
    about: Mapping[str, Any],
    *,
    timm: bool,
    license: str = "",
) -> str:
    """Return the text of ``README.md``: a header in YAML, and Markdown.

    ``about`` are the measurements of the exporter, ``timm`` whether timm reads the folder.
    """
    header = {
        **({"license": license} if license else {}),
        "library_name": "timm" if timm else "kdtool",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *(["timm"] if timm else []), "kdtool"],
    }
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items())
    edited = "" if not architecture.is_edited else ", with layers that were removed or narrowed since"
    size = json.loads(metadata.get("kdtool.size", "{}"))
    rows = {
        **_scores(about.get("accuracy")),
        **{_SIZES[key]: f"{size[key]:,}" for key in _SIZES if key in size},
        "bytes of model.safetensors": f"{about['file_bytes']:,}",
    }
    table = "\n".join(f"| {label} | {value} |" for label, value in rows.items())
    parts = [
        f"---\n{yaml}\n---",
        f"# {markdown_text(name)}",
        f"A classifier of {architecture.classes} classes: {markdown_text(architecture.spec)}{edited}.",
        f"| measured | |\n|---|---|\n{table}",
        "## Images",
        _images(architecture, metadata),
        "## Use",
        _use(timm),
    ]
    history = json.loads(metadata.get("kdtool.history", "[]"))
    if history:
        parts += ["## How it was made", markdown_code("\n".join(history), "console")]
    return "\n\n".join(parts) + "\n"


_SIZES = {"parameters": "parameters", "nonzero": "parameters that are not zero", "macs": "MACs"}


def _scores(scores: Mapping[str, Any] | None) -> dict[str, str]:
    if scores is None:
        return {"accuracy": "not measured"}
    return {f"accuracy on {scores['images']:,} images of the test split": f"{scores['accuracy']:.4f}"}


def _images(architecture: Architecture, metadata: Mapping[str, str]) -> str:
    channels, height, width = architecture.input
    lines = [f"float32 [batch, {channels}, {height}, {width}]"]
    keys = ("mean", "std", "crop", "interpolation")
    if all(f"kdtool.{key}" in metadata for key in keys):
        how = {key: json.loads(metadata[f"kdtool.{key}"]) for key in keys}
        lines[0] += (
            f": the centre square of {how['crop']:g} of the shorter side, resized by {how['interpolation']}, divided "
            f"by 255, minus {how['mean']}, divided by {how['std']}"
        )
    lines[0] += "."
    if "kdtool.classes" in metadata:
        classes = json.loads(metadata["kdtool.classes"])
        shown = ", ".join(markdown_text(str(name)) for name in classes[:SHOWN])
        more = f", ... ({len(classes):,} in all)" if len(classes) > SHOWN else ""
        lines.append(f"Classes, in the order of the logits: {shown}{more}.")
    return "\n\n".join(lines)


def _use(timm: bool) -> str:
    theirs = (
        "```python\n"
        "import timm\n\n"
        'network = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()  # or "local-dir:FOLDER"\n'
        "```\n\n"
    )
    ours = (
        "kdtool reads a copy of this folder in place of a checkpoint:\n\n"
        "```console\n"
        "hf download USER/NAME --local-dir FOLDER\n"
        "kdtool inspect FOLDER\n"
        "```"
    )
    return (theirs if timm else "") + ours
