"""Compare networks: their accuracies, the images on which they disagree, and the distance between their outputs."""

from __future__ import annotations

import copy
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtool.commands.inputs import data_for
from kdtool.commands.measure import LatencyOptions
from kdtool.commands.onnx_input import OnnxCheckpoint, load_any, size_of
from kdtool.data.classes import positions
from kdtool.data.splits import Split
from kdtool.errors import Error, UsageError
from kdtool.exporting.contained import measure_contained
from kdtool.exporting.exporter import Exporter, exporter_of_suffix
from kdtool.exporting.sessions import check_provider
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.calls import public
from kdtool.plugins.registry import make
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH, outputs
from kdtool.training.options import Training
from kdtool.utils.classification import decisive
from kdtool.utils.files import check_output
from kdtool.utils.kinds import bytes_of
from kdtool.utils.statistics import calibration_error, mcnemar, wilson

MAX_IMAGES = 64
"""The largest number of images in a picture."""


@dataclass
class _Evaluated:
    """A checkpoint with its network's outputs on the images of the comparison."""

    checkpoint: Checkpoint
    name: str
    logits: Tensor
    """``[images, classes]``, float32, in the order of the first checkpoint's classes."""
    labels: Tensor
    """``[images]``, int64: the true classes, numbered in that order."""
    split: Split

    @property
    def classes(self) -> Tensor:
        """The predicted class of each image, ``[images]``."""
        return self.logits.argmax(1)

    @property
    def correct(self) -> Tensor:
        """Whether the predicted class is the true one, ``[images]``."""
        return self.classes == self.labels


@public
def compare(
    a: str | Path | Checkpoint,
    b: str | Path | Checkpoint,
    *more: str | Path | Checkpoint,
    split: str = "test",
    device: str = "auto",
    latency: bool = False,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    picture: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return how networks differ on one split of a data set, by default that of the first checkpoint.

    ``split`` is ``train``, ``val`` or ``test``, or ``all`` for the images of all of them.
    ``latency`` also measures the latency of each network against the first. This exports the networks to onnxruntime
    and takes seconds for each; ``provider``, ``threads`` and ``batch`` are those of `measure_latency`. ``picture`` is a
    PNG file to write; it shows the first 64 images that the networks classify differently. ``options`` are options of
    `DataOptions`; they replace what the checkpoints remember. Each network sees the images as in its training, and its
    classes are matched by name.

    Returns:
        For two checkpoints: ``a`` and ``b``, each with ``checkpoint`` (path), ``accuracy`` with the ends of its 95 %
        interval ``accuracy_low`` and ``accuracy_high`` (Wilson), ``balanced_accuracy`` (the mean of the classes'
        recalls), ``top5`` (of more than five classes), ``calibration_error`` (15 bins), ``parameters``, ``nonzero``,
        ``macs`` and ``file_bytes``; with ``latency``, ``b`` also has ``latency``, measured against ``a`` (see
        `measure_latency`), and ``latency_ratio``; ``split``; ``images``; and the numbers of the pair. These are
        ``classified_differently`` (the number of images with different predicted classes), ``agreement`` (the
        fraction of images with the same one), ``l2`` (the L2 distance between the logits, mean over images),
        ``l2_sum`` (its sum), ``only_a_right`` and ``only_b_right`` (numbers of images), and ``mcnemar``, a test of
        whether the last two differ (see `kdtool.utils.statistics.mcnemar`).
        For three or more: ``split``, ``images``, ``models`` (a list with the content of ``a`` above, and after the
        first that of ``b``), ``pairs`` (the numbers of each pair; ``a`` and ``b`` are the indices of the two in
        ``models``) and ``all_agree``, the number of images to which all networks give the same class.

    Raises:
        Error: the networks have different classes or inputs, there is no data, or the checkpoints remember different
            images.
    """
    how = LatencyOptions(provider=provider, threads=threads, batch=batch).as_data()
    if picture is not None:
        check_output(Path(picture), force=force)
    if latency:
        check_provider(provider)
    evaluated = _evaluate([load_any(checkpoint) for checkpoint in (a, b, *more)], split, device, options)
    models = [_numbers(network) for network in evaluated]
    if latency:
        _add_latency(models, evaluated, how)
    if picture is not None:
        _draw(evaluated, Path(picture), split)
    images = len(evaluated[0].labels)
    if not more:
        return {"split": split, "a": models[0], "b": models[1], "images": images, **_pair(*evaluated)}
    indices = itertools.combinations(range(len(evaluated)), 2)
    pairs = [{"a": i, "b": j, **_pair(evaluated[i], evaluated[j])} for i, j in indices]
    all_agree = images - len(_disagreements(evaluated))
    return {"split": split, "images": images, "models": models, "pairs": pairs, "all_agree": all_agree}


def _evaluate(checkpoints: list[Checkpoint], split: str, device: str, options: dict[str, Any]) -> list[_Evaluated]:
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _check_comparable(first, other)
    evaluated: list[_Evaluated] = []
    for checkpoint in checkpoints:
        engine = engine_for(Training(device=device, precision="fp32"), VALIDATION_BATCH, checkpoint.network)
        named = checkpoint.data is not None and options.get("data") is not None
        parent = checkpoint if named or _knows_images(checkpoint) else _with_images(checkpoints)
        data = data_for(parent, options, learner=checkpoint)
        images = data.measured(split, checkpoint.data)
        logits, labels = outputs(engine.place(copy.deepcopy(checkpoint.module)), images, engine=engine)
        if evaluated:
            of_first = evaluated[0].split.spec
            places = positions(data.spec.classes, of_first.classes, _name(checkpoint), _name(first))
            if places is not None:
                order = torch.tensor(places)
                logits, labels = logits[:, order.argsort()], order[labels]
            same = all(
                data.spec.splits.get(part) == of_first.splits.get(part)
                for part in (("train", "val", "test") if split == "all" else (split,))
            )
        if evaluated and not (same and torch.equal(labels, evaluated[0].labels)):
            raise Error(
                f"{_name(first)} and {_name(checkpoint)} remember different {split} images; "
                "name the data set for all with --data"
            )
        evaluated.append(_Evaluated(checkpoint, _name(checkpoint), logits, labels, images))
    return evaluated


def _with_images(checkpoints: list[Checkpoint]) -> Checkpoint:
    """Return the first checkpoint whose images can be found.

    Raises:
        UsageError: those of none can.
    """
    first = checkpoints[0]
    found = next((checkpoint for checkpoint in checkpoints if _knows_images(checkpoint)), first)
    if isinstance(found, OnnxCheckpoint) and not found.knows_images:
        raise UsageError(f"{_name(first)}: does not tell where its images are; name them with --data")
    return found


def _knows_images(checkpoint: Checkpoint) -> bool:
    return checkpoint.knows_images if isinstance(checkpoint, OnnxCheckpoint) else checkpoint.data is not None


def _check_comparable(first: Checkpoint, other: Checkpoint) -> None:
    names = f"{_name(first)} and {_name(other)}"
    for attribute in ("classes", "input"):
        value, other_value = getattr(first.architecture, attribute), getattr(other.architecture, attribute)
        if value != other_value:
            raise Error(f"{names} cannot be compared: {attribute} {value} and {other_value}")
    if first.data and other.data:
        positions(other.data.classes, first.data.classes, _name(other), _name(first))


def _name(checkpoint: Checkpoint) -> str:
    return str(checkpoint.path) if checkpoint.path else checkpoint.architecture.spec


def _numbers(network: _Evaluated) -> dict[str, Any]:
    correct, images = int(network.correct.sum()), len(network.labels)
    low, high = wilson(correct, images)
    confidence = network.logits.double().softmax(1).amax(1)
    more = decisive(network.logits.numpy(), network.labels.numpy())
    return {
        "checkpoint": network.name,
        "accuracy": correct / images,
        "accuracy_low": low,
        "accuracy_high": high,
        **more,
        "calibration_error": calibration_error(confidence.numpy(), network.correct.numpy()),
        **size_of(network.checkpoint),
        "file_bytes": _bytes_of(network.checkpoint),
    }


def _bytes_of(checkpoint: Checkpoint) -> int | None:
    """Return the bytes of a checkpoint's file, for an ONNX file with those beside it; None if there is no file."""
    if isinstance(checkpoint, OnnxCheckpoint):
        return sum(file.stat().st_size for file in checkpoint.files)
    return bytes_of(checkpoint.path)


def _pair(a: _Evaluated, b: _Evaluated) -> dict[str, Any]:
    distance = (a.logits - b.logits).double().norm(dim=1)
    different = int((a.classes != b.classes).sum())
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    return {
        "classified_differently": different,
        "agreement": 1 - different / len(distance),
        "l2": float(distance.mean()),
        "l2_sum": float(distance.sum()),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "mcnemar": mcnemar(only_a, only_b),
    }


def _add_latency(models: list[dict[str, Any]], evaluated: list[_Evaluated], how: dict[str, Any]) -> None:
    """Add to every model but the first its latency, measured against the first."""
    exporter: Exporter = make("exporters", exporter_of_suffix(".onnx").name, latency=False)
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / f"{index}{exporter.suffix}" for index in range(len(evaluated))]
        for index, network in enumerate(evaluated):
            if isinstance(network.checkpoint, OnnxCheckpoint):
                assert network.checkpoint.path is not None
                files[index] = network.checkpoint.path
            else:
                exporter.export(network.checkpoint.network, files[index], metadata={})
        for model, file in zip(models[1:], files[1:], strict=True):
            model["latency"] = measure_contained(file, files[0], **how)
            model["latency_ratio"] = model["latency"]["ratio"]


def _disagreements(evaluated: list[_Evaluated]) -> list[int]:
    """Return the indices of the images to which not all networks give the same class."""
    classes = torch.stack([network.classes for network in evaluated])
    return [int(index) for index in (classes != classes[0]).any(0).nonzero().flatten()]


def _draw(evaluated: list[_Evaluated], path: Path, split: str) -> None:
    from kdtool.plotting.grid import grid

    indices = _disagreements(evaluated)
    first = evaluated[0]
    classes = first.split.spec.classes
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    captions = []
    for index in indices[:MAX_IMAGES]:
        predicted = [classes[int(network.classes[index])] for network in evaluated]
        lines = "\n".join(f"{letters[i % 26]}: {_short(name)}" for i, name in enumerate(predicted))
        captions.append(f"true: {_short(classes[int(first.labels[index])])}\n{lines}")
    legend = ", ".join(f"{letters[i % 26]} = {Path(network.name).name}" for i, network in enumerate(evaluated))
    shown = f"; the first {MAX_IMAGES}" if len(indices) > MAX_IMAGES else ""
    title = f"{len(indices):,} of {len(first.labels):,} {split} images get different classes{shown}\n{legend}"
    grid(_images(first.split, indices[:MAX_IMAGES]), captions, title, path)


def _images(split: Split, indices: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return images ``[number, height, width, channels]`` with values from 0 to 1, with the normalisation undone."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (split.spec.mean, split.spec.std))
    batches = [images for _, images, _ in split.batches(MAX_IMAGES, order=torch.tensor(indices, dtype=torch.int64))]
    if not batches:
        return np.zeros((0, 1, 1, 1), np.float32)
    plain: np.ndarray[Any, np.dtype[np.float32]] = (torch.cat(batches) * std + mean).clamp(0, 1).numpy()
    return plain.transpose(0, 2, 3, 1)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
