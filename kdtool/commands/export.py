"""Write a checkpoint in another format, and measure its cost against that of its teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdtool.commands.costs import side_by_side, teacher_costs
from kdtool.commands.history import is_of_compression, public_content, public_line, public_word
from kdtool.commands.inputs import data_for, load
from kdtool.commands.outputs import FINISHED
from kdtool.data.options import DataOptions
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Data, Split
from kdtool.errors import Error, UsageError
from kdtool.exporting.exporter import Exporter, check_exported
from kdtool.models.architecture import Architecture, Network, build
from kdtool.models.checkpoint import Checkpoint, fingerprint, read
from kdtool.models.prediction import expected_by, recorded_classes
from kdtool.models.size import measure
from kdtool.plugins.calls import public
from kdtool.plugins.method_code import running_method
from kdtool.plugins.places import split
from kdtool.plugins.registry import make, method_class
from kdtool.utils.files import beside, sha256_of, slug
from kdtool.utils.kinds import is_checkpoint_folder
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

BATCH = 64
"""Images in a batch of those that an exporter gets."""

MADE = "kdtool.made"
"""The entry of a file's metadata by which `--resume` knows what it made itself."""

MOST_IMAGES = 5000
"""The most validation images that choose how a file is quantised; each of many trials runs on all of them."""


@public
def export(
    checkpoint: str | Path | Checkpoint,
    method: str = "onnx",
    *,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    against: str | Path | Checkpoint | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network in another format and return the measurements, as plain data.

    The latency is compared with ``against``. The default is the checkpoint's first teacher: its file if that is
    unchanged, else the same network rebuilt without its weights. If the data set is available, the accuracy of the
    written file and of the teacher on the test split are measured too. ``side_by_side`` has the costs of the file and
    of the teacher (see `kdtool.commands.costs`). ``options`` are options of the exporter and of `DataOptions`; the
    latter replace what the checkpoint remembers.

    The file that a compression wrote beside the checkpoint is replaced without ``force`` where it has the default name.
    With ``resume`` a file that the same command made of the same network stays as it is; as it does not hold what was
    measured, the result has ``finished`` in its place.

    Raises:
        UsageError: the output's suffix is not that of the format, a package is missing, or the output exists already
            (with ``resume``: made by another command).
        Error: the network cannot be written, or the file does not give the network's outputs; nothing is written.
    """
    checkpoint = load(checkpoint)
    own, of_data = split(options, method_class("exporters", method), DataOptions)
    exporter = make("exporters", method, **own)
    default = beside(checkpoint.path or Path(f"{slug(checkpoint.architecture.name)}.pt"), exporter.ending)
    target = Path(output) if output is not None else default
    force = force or (target == default and is_of_compression(checkpoint, target))
    is_cut_short = resume and not target.exists() and exporter.is_cut_short(target)
    exporter.check(target, force=force or is_cut_short or (resume and target.exists()))
    data = _data(checkpoint, of_data, needed=exporter.uses_validation)
    extra: dict[str, Any] = {}
    if exporter.uses_validation:
        extra["val"] = batches_of(data.val, MOST_IMAGES) if data else None
    if exporter.uses_content:
        extra["content"] = public_content(checkpoint)
    size = measure(checkpoint.network)
    metadata = metadata_of(checkpoint, data, size)
    metadata[MADE] = made = _made_by(exporter, checkpoint, metadata)
    compression = checkpoint.compression(size["parameters"])
    about = {"checkpoint": str(checkpoint.path) if checkpoint.path else checkpoint.architecture.spec}
    if resume and _is_finished(exporter, target, made, force=force):
        say(FINISHED.format(target))
        return {**about, **size, "compression": compression, exporter.name: str(target), "finished": True}
    teacher = _teacher(checkpoint, against)
    if is_cut_short:
        # Before what tells that these files are of a killed export is removed: this process may be killed too.
        for suffix in exporter.companions:
            target.with_suffix(suffix).unlink(missing_ok=True)
    with running_method(exporter):
        result: dict[str, Any] = exporter.export(
            checkpoint.network,
            target,
            metadata=metadata,
            teacher=teacher.network if teacher else None,
            test=batches_of(data.test) if data and data.test else None,
            **extra,
        )
    check_exported(exporter, target, result)
    other = None
    if teacher is not None:
        of_teacher = _teacher_data(checkpoint, teacher.checkpoint, of_data) if data else None
        other = teacher_costs(teacher.network, teacher.checkpoint, of_teacher)
    return {
        **about,
        "against": teacher.name if teacher else None,
        **size,
        "compression": compression,
        **result,
        "side_by_side": side_by_side(result, size, other),
    }


def _made_by(exporter: Exporter, checkpoint: Checkpoint, metadata: Mapping[str, str]) -> str:
    """Return a word that stands for the command that makes a file: what is written how, and of which weights."""
    about = [exporter.name, exporter.as_data(), fingerprint(checkpoint.module.state_dict()), metadata]
    return f"{exporter.name}-{hashlib.sha256(dumps(about, sort_keys=True, default=str).encode()).hexdigest()}"


def _is_finished(exporter: Exporter, target: Path, made: str, *, force: bool) -> bool:
    """Return whether a file, or one in a folder, holds the word of the command that makes it; files come whole.

    The word may be in a companion that names the file by its SHA-256 too.

    Raises:
        UsageError: it does not, and is not to be replaced.
    """
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    files = [file for file in files if file.is_file()]
    word, companions = made.encode(), [target.with_suffix(suffix) for suffix in exporter.companions]
    told = [file for file in companions if file.is_file() and _holds(file, word)]
    named = files and any(_holds(file, sha256_of(target).encode()) for file in told)
    if named or any(_holds(file, word) for file in files):
        return all(file.is_file() for file in companions)
    if files and not force:
        raise UsageError(
            f"{target}: exists already, and does not tell that this command made it; choose another name, or "
            "overwrite it with --force"
        )
    return False


def _holds(path: Path, word: bytes) -> bool:
    """Return whether a file holds some bytes."""
    before = b""
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            if word in before + part:
                return True
            before = part[-len(word) :]
    return False


def metadata_of(checkpoint: Checkpoint, data: Data | None, size: Mapping[str, int]) -> dict[str, str]:
    """Return what a user of the file needs to prepare its inputs, and its history without paths of this machine."""
    metadata = {
        "kdtool.source": checkpoint.architecture.spec,
        "kdtool.input": json.dumps(checkpoint.architecture.input),
        "kdtool.size": json.dumps(size),
        "kdtool.history": json.dumps([public_line(entry["line"]) for entry in checkpoint.history]),
    }
    spec = checkpoint.data or (data.spec if data else None)
    if spec is None:
        expected: dict[str, Any] = {**expected_by(checkpoint), "classes": recorded_classes(checkpoint)}
        metadata |= {f"kdtool.{name}": json.dumps(value) for name, value in expected.items() if value is not None}
    else:
        about = {**spec.as_data(), "name": public_word(spec.name), "directory": None}
        metadata |= {
            "kdtool.classes": json.dumps(list(spec.classes)),
            "kdtool.mean": json.dumps(list(spec.mean)),
            "kdtool.std": json.dumps(list(spec.std)),
            "kdtool.crop": json.dumps(spec.crop),
            "kdtool.interpolation": json.dumps(spec.interpolation),
            "kdtool.preparation": json.dumps(_preparation(spec)),
            "kdtool.data": json.dumps(about),
        }
    return metadata


def _preparation(spec: DataSpec) -> dict[str, Any]:
    """Return how an image file becomes an input, in the order of the steps; docs/guides/onnx.md has the code."""
    return {
        "turn": "exif",
        "background": 255,
        "mode": {1: "L", 3: "RGB"}.get(spec.in_channels),
        "crop": spec.crop,
        "size": spec.image_size,
        "interpolation": spec.interpolation,
        "resize": "pillow",
        "divide": 255,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "layout": "NCHW",
        "dtype": "float32",
        "white": spec.white,
    }


@dataclass(frozen=True)
class _Teacher:
    """The network to compare with, its name for the reader, and its checkpoint unless it was rebuilt."""

    network: Network
    name: str
    checkpoint: Checkpoint | None


def _teacher(checkpoint: Checkpoint, against: str | Path | Checkpoint | None) -> _Teacher | None:
    """Return the network to compare with, or None if there is no teacher."""
    if against is not None:
        other = load(against)
        return _Teacher(other.network, str(other.path) if other.path else other.architecture.spec, other)
    if len(checkpoint.history) < 2:
        return None
    first, second = checkpoint.history[:2]
    used = next((entry for entry in second.get("inputs", ()) if entry["role"] == "checkpoint"), None)
    if used is None:  # an entry of the user's own
        return None
    recorded = Path(used["path"])
    # The checkpoints may have been moved together.
    paths = [recorded] if checkpoint.path is None else [recorded, checkpoint.path.parent / recorded.name]
    for path in paths:
        if path.is_file() or is_checkpoint_folder(path):
            try:
                candidate = read(path)
            except Error:
                continue
            if fingerprint(candidate.module.state_dict()) == used["weights"]:
                return _Teacher(candidate.network, str(path), candidate)
    if "architecture" not in first:
        return None
    try:
        architecture = Architecture.from_data(first["architecture"])
        network = Network(architecture, build(architecture))
    except Error as error:  # its source, or the code that builds it, may be on another machine
        say(f"the teacher is left out: {error}")
        return None
    return _Teacher(network, f"{architecture.spec}, rebuilt without its weights", None)


def _teacher_data(checkpoint: Checkpoint, teacher: Checkpoint | None, options: dict[str, Any]) -> Data | None:
    """Return the data set of the checkpoint, not the teacher's, as the teacher sees it; None if that does not fit."""
    if teacher is None:
        return None
    try:
        return data_for(checkpoint, options, learner=teacher)
    except Error as error:
        say(f"the accuracy of the teacher is not measured: {error}")
        return None


def _data(checkpoint: Checkpoint, options: dict[str, Any], *, needed: bool) -> Data | None:
    """Return the data set, or None if there is none or it cannot be opened, which is said."""
    if checkpoint.data is None and options.get("data") is None:
        return None
    try:
        data = data_for(checkpoint, options)
    except Error as error:
        if needed or options.get("data") is not None:
            raise
        say(f"the accuracy of the file is not measured: {error}")
        return None
    if data.test is None:
        say(f"the accuracy of the file is not measured: {data.spec.name} has no test split")
    return data


@dataclass(frozen=True)
class _Batches:
    """The images of a split with their labels, in batches, read again each time they are iterated."""

    split: Split
    order: Tensor | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((images, labels) for _, images, labels in self.split.batches(BATCH, order=self.order))


def batches_of(split: Split, most: int | None = None) -> _Batches:
    """Return all images of a split in batches, or ``most`` of them, evenly spaced."""
    if most is None or len(split) <= most:
        return _Batches(split)
    return _Batches(split, torch.arange(most) * len(split) // most)
