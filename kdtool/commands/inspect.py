"""Describe checkpoints, and measure their accuracy."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdtool.commands.inputs import data_for, load
from kdtool.commands.onnx_input import SUFFIX, OnnxCheckpoint, described_onnx, load_any, several
from kdtool.data.options import DataOptions
from kdtool.data.survey import survey
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.quantisation.fake import quantiser_of
from kdtool.models.quantisation.training import quantisation_of
from kdtool.models.size import measure
from kdtool.plugins.calls import public
from kdtool.plugins.places import split
from kdtool.surgery.depth.observe import output_shapes
from kdtool.surgery.depth.stages import stages_of
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH, outputs, score
from kdtool.training.options import Training
from kdtool.utils.classification import confusion, decisive, per_class as classes_of
from kdtool.utils.files import check_output, gzip_bytes
from kdtool.utils.kinds import bytes_of, weights_file

PathOrCheckpoint = str | Path | Checkpoint


@public
def inspect(
    checkpoint: PathOrCheckpoint | None = None, *, stages: bool = False, data: str | None = None, **options: Any
) -> dict[str, Any]:
    """Return the description of a checkpoint, as plain data; or that of a data set, see `survey`.

    With ``data`` and a checkpoint, what changed in the images since the checkpoint was made is told too. ``options``
    are options of `DataOptions`.

    The keys are ``path``, ``source``, ``parameters``, ``nonzero``, ``macs`` (multiply-accumulate operations for one
    image), ``compression`` (parameters of the first teacher divided by its own), ``file_bytes``, ``classes``, ``input``
    (channels, height, width), ``architecture``, ``data``, ``metrics`` and ``history`` (each entry's ``line`` is its
    command). A network with masks, or with shared values, has ``gzip_bytes`` too, and a checkpoint with early weights
    ``early_epoch``. ``stages=True`` adds the list ``stages``, which is empty if the network has none. Each stage has a
    ``name``, ``blocks`` (their paths in order), ``parameters`` (of each block), ``dense`` (whether its blocks are
    densely connected) and ``output``, the shape of its output for one image (None if that is not known).

    Raises:
        UsageError: an option is not known, or says nothing of what is described.
        Error: ``checkpoint`` cannot be read, or its stages cannot be determined; or the data set cannot be read.
    """
    split(options, DataOptions)
    if data is None and options:
        raise UsageError(f"{DataOptions.info(next(iter(options))).flag}: names no data set; add --data")
    if data is not None:
        if stages:
            raise UsageError("--stages: a data set has no stages; leave out --data, which describes a data set alone")
        before = None if checkpoint is None else load_any(checkpoint).data
        return survey(DataOptions(data=data, **options), before)
    if checkpoint is None:
        raise UsageError("name a checkpoint, or a data set with --data")
    if isinstance(checkpoint, str | Path) and Path(checkpoint).suffix.lower() == SUFFIX:
        if stages:
            raise UsageError(f"{checkpoint}: an ONNX file has no stages; name the checkpoint it was exported from")
        return described_onnx(Path(checkpoint))
    checkpoint = load(checkpoint)
    size = measure(checkpoint.network)
    file_bytes = bytes_of(checkpoint.path)
    repeats = checkpoint.masked or any("shared_values" in entry for entry in checkpoint.history)
    zipped = checkpoint.path if repeats and file_bytes is not None else None
    return {
        "path": str(checkpoint.path) if checkpoint.path else None,
        "source": checkpoint.architecture.spec,
        **size,
        "compression": checkpoint.compression(size["parameters"]),
        "file_bytes": file_bytes,
        **({"gzip_bytes": gzip_bytes(weights_file(zipped))} if zipped else {}),
        **({"early_epoch": checkpoint.early.epoch} if checkpoint.early else {}),
        **({"quantised": quantisation_of(checkpoint.network)} if quantiser_of(checkpoint.module) else {}),
        "classes": checkpoint.architecture.classes,
        "input": list(checkpoint.architecture.input),
        "architecture": plain(checkpoint.architecture.as_data()),
        "data": checkpoint.data.as_data() if checkpoint.data else None,
        "metrics": checkpoint.metrics,
        "history": plain(checkpoint.history),
        **({"stages": _stages(checkpoint.network)} if stages else {}),
    }


def _stages(network: Network) -> list[dict[str, Any]]:
    stages = stages_of(network)
    ends = {stage.name: stage.name if stage.dense else stage.blocks[-1] for stage in stages}
    outputs = output_shapes(network.module, network.architecture.input, ends.values())
    return [{**plain(dataclasses.asdict(stage)), "output": outputs.get(ends[stage.name])} for stage in stages]


def plain(value: Any) -> Any:
    """Return ``value`` as data that JSON can hold; a tensor becomes its shape and type."""
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@public
def evaluate(
    checkpoints: PathOrCheckpoint | Sequence[PathOrCheckpoint],
    *,
    split: str = "test",
    device: str = "auto",
    per_class: bool = False,
    picture: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Return the accuracy of each checkpoint or ONNX file on a split, as plain data.

    ``split`` is ``train``, ``val`` or ``test``, or ``all`` for the images of all of them.
    A row has ``checkpoint`` (path), ``split``, ``accuracy``, ``error``, ``loss``, ``images``, ``balanced_accuracy``
    (the mean of the classes' recalls) and, of more than five classes, ``top5``. With ``per_class`` it has ``classes``
    too, a list of ``class``, ``images``, ``recall``, ``precision`` and ``f1`` (None where a number is not defined), and
    ``confusion``, how many images of each class (rows) are taken for each class. ``picture`` is a PNG file of that
    matrix, of one checkpoint; with ``force`` it may exist. ``options`` are options of `DataOptions`; they replace what
    the checkpoint remembers.

    Raises:
        UsageError: an ONNX file is of a folder of images, whose place it does not tell.
        Error: a checkpoint remembers no data set, or the data set has no such split.
    """
    given = several(checkpoints)
    if picture is not None:
        if len(given) != 1:
            raise UsageError(f"{picture}: is a picture of one checkpoint, and there are {len(given)}")
        check_output(Path(picture), force=force)
    rows = []
    for checkpoint in map(load_any, given):
        if isinstance(checkpoint, OnnxCheckpoint) and options.get("data") is None and not checkpoint.knows_images:
            raise UsageError(f"{checkpoint.path}: does not tell where its images are; name them with --data")
        engine = engine_for(Training(device=device, precision="fp32"), VALIDATION_BATCH, checkpoint.network)
        data = data_for(checkpoint, options)
        images = data.measured(split, checkpoint.data)
        measured = outputs(engine.place(copy.deepcopy(checkpoint.module)), images, engine=engine)
        logits, labels = (tensor.numpy() for tensor in measured)
        name = str(checkpoint.path) if checkpoint.path else checkpoint.architecture.spec
        rows.append({"checkpoint": name, **score(*measured, split), **decisive(logits, labels)})
        counts = confusion(logits, labels) if per_class or picture is not None else None
        if per_class and counts is not None:
            rows[-1] |= {"classes": classes_of(logits, labels, data.spec.classes), "confusion": counts.tolist()}
        if picture is not None and counts is not None:
            from kdtool.plotting.confusion import draw_confusion

            title = f"{Path(name).name}: {len(labels):,} {split} images, accuracy {rows[-1]['accuracy']:.4f}"
            draw_confusion(counts, data.spec.classes, title, Path(picture))
    return rows
