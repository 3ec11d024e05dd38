"""How alike networks are: what they get wrong, on which images they differ, how far apart their outputs lie."""

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

from kdtool.commands.inputs import data_for, load
from kdtool.data.splits import Split
from kdtool.errors import Error
from kdtool.exporting.exporter import Exporter, exporter_of_suffix
from kdtool.exporting.latency import measure_latency
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.size import measure
from kdtool.plugins.registry import make
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH, outputs
from kdtool.training.options import Training
from kdtool.utils.files import check_output
from kdtool.utils.statistics import calibration_error, mcnemar, wilson

SHOWN = 64
"""So many images a picture holds at most."""


@dataclass
class Judged:
    """A network's outputs on the images that all of them are compared on."""

    checkpoint: Checkpoint
    name: str
    logits: Tensor
    """[images, classes], float32."""
    labels: Tensor
    """[images]."""
    split: Split

    @property
    def classes(self) -> Tensor:
        """The class that each image gets, [images]."""
        return self.logits.argmax(1)

    @property
    def right(self) -> Tensor:
        """Whether it is the right one, [images]."""
        return self.classes == self.labels


def compare(
    a: str | Path | Checkpoint,
    b: str | Path | Checkpoint,
    *more: str | Path | Checkpoint,
    split: str = "test",
    device: str = "auto",
    latency: bool = False,
    picture: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return how alike networks are on a split of the first one's data.

    ``latency`` measures each against the first in onnxruntime, which exports them and takes seconds for each;
    ``picture`` is a PNG file to be written, of the images that get different classes (the first 64). ``options`` are
    those of `DataOptions`, where they differ from what the checkpoints remember.

    Returns:
        For two: ``a`` and ``b``, each with ``checkpoint`` (path), ``accuracy`` with its 95 % interval ``accuracy_low``
        and ``accuracy_high`` (Wilson), ``calibration_error`` (15 bins), ``parameters``, ``nonzero``, ``macs``,
        ``file_bytes`` and, where it was asked for, ``latency`` (see `measure_latency`) with the ``latency_ratio`` to
        the first. Beside them stand ``split``, ``images`` and what is said of the pair: ``classified_differently``
        counts the images that get different classes, ``agreement`` is the fraction of the others, ``l2`` the mean
        over images of the L2 distance between the logits, ``l2_sum`` its sum; ``only_a_right`` and ``only_b_right``
        count images, and ``mcnemar`` tests whether they are equally many (see `kdtool.utils.statistics.mcnemar`).
        For more: ``split``, ``images``, ``models`` (a list of what ``a`` is above), ``pairs`` (what is said of each
        pair, with the places of the two in ``models`` as ``a`` and ``b``) and ``all_agree``, the images that get one
        class from all.

    Raises:
        Error: they have different classes or inputs, there is no data, or they were not tested on the same images.
    """
    if picture is not None:
        check_output(Path(picture), force=force)
    judged = _judge([load(one) for one in (a, b, *more)], split, device, options)
    models = [_described(one) for one in judged]
    if latency:
        _add_latency(models, judged)
    if picture is not None:
        _draw(judged, Path(picture), split)
    images = len(judged[0].labels)
    if not more:
        return {"split": split, "a": models[0], "b": models[1], "images": images, **_pair(*judged)}
    pairs = [{"a": i, "b": j, **_pair(judged[i], judged[j])} for i, j in itertools.combinations(range(len(judged)), 2)]
    alike = images - len(_differing(judged))
    return {"split": split, "images": images, "models": models, "pairs": pairs, "all_agree": alike}


def _judge(found: list[Checkpoint], split: str, device: str, options: dict[str, Any]) -> list[Judged]:
    first = found[0]
    for other in found[1:]:
        _check_alike(first, other)
    judged: list[Judged] = []
    for one in found:
        engine = engine_for(Training(device=device, precision="fp32"), VALIDATION_BATCH, one.network)
        images = data_for(one if one.data else first, options).split(split)
        logits, labels = outputs(engine.place(copy.deepcopy(one.module)), images, engine=engine)
        if judged and not torch.equal(labels, judged[0].labels):
            names = " and ".join(_name(it) for it in (first, one))
            raise Error(f"{names} remember different {split} images; name the data set for all with --data")
        judged.append(Judged(one, _name(one), logits, labels, images))
    return judged


def _check_alike(first: Checkpoint, other: Checkpoint) -> None:
    names = f"{_name(first)} and {_name(other)}"
    for what in ("classes", "input"):
        ours, theirs = getattr(first.architecture, what), getattr(other.architecture, what)
        if ours != theirs:
            raise Error(f"{names} cannot be compared: {what} {ours} and {theirs}")
    if first.data and other.data and first.data.classes != other.data.classes:
        raise Error(f"{names} cannot be compared: their classes have other names")


def _name(found: Checkpoint) -> str:
    return str(found.path) if found.path else found.architecture.spec


def _described(one: Judged) -> dict[str, Any]:
    right, images = int(one.right.sum()), len(one.labels)
    low, high = wilson(right, images)
    confidence = one.logits.double().softmax(1).amax(1)
    path = one.checkpoint.path
    return {
        "checkpoint": one.name,
        "accuracy": right / images,
        "accuracy_low": low,
        "accuracy_high": high,
        "calibration_error": calibration_error(confidence.numpy(), one.right.numpy()),
        **measure(one.checkpoint.network),
        "file_bytes": path.stat().st_size if path and path.is_file() else None,
    }


def _pair(a: Judged, b: Judged) -> dict[str, Any]:
    distance = (a.logits - b.logits).double().norm(dim=1)
    different = int((a.classes != b.classes).sum())
    only = {"only_a_right": int((a.right & ~b.right).sum()), "only_b_right": int((b.right & ~a.right).sum())}
    return {
        "classified_differently": different,
        "agreement": 1 - different / len(distance),
        "l2": float(distance.mean()),
        "l2_sum": float(distance.sum()),
        **only,
        "mcnemar": mcnemar(only["only_a_right"], only["only_b_right"]),
    }


def _add_latency(models: list[dict[str, Any]], judged: list[Judged]) -> None:
    """Add to all models but the first the latency of each beside the first."""
    exporter: Exporter = make("exporters", exporter_of_suffix(".onnx").name, latency=False)
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / f"{place}{exporter.suffix}" for place in range(len(judged))]
        for one, file in zip(judged, files, strict=True):
            exporter.export(one.checkpoint.network, file, metadata={})
        for model, file in zip(models[1:], files[1:], strict=True):
            model["latency"] = measure_latency(file, files[0])
            model["latency_ratio"] = model["latency"]["ratio"]


def _differing(judged: list[Judged]) -> list[int]:
    """Return the places of the images that do not get one class from all networks."""
    classes = torch.stack([one.classes for one in judged])
    return [int(place) for place in (classes != classes[0]).any(0).nonzero().flatten()]


def _draw(judged: list[Judged], path: Path, split: str) -> None:
    from kdtool.plotting.grid import grid

    places = _differing(judged)
    first = judged[0]
    architecture = first.checkpoint.architecture
    data = first.checkpoint.data
    classes = data.classes if data else tuple(map(str, range(architecture.classes)))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    captions = []
    for place in places[:SHOWN]:
        given = [classes[int(one.classes[place])] for one in judged]
        said = "\n".join(f"{letters[i % 26]}: {_short(name)}" for i, name in enumerate(given))
        captions.append(f"true: {_short(classes[int(first.labels[place])])}\n{said}")
    which = ", ".join(f"{letters[i % 26]} = {Path(one.name).name}" for i, one in enumerate(judged))
    shown = f"; the first {SHOWN}" if len(places) > SHOWN else ""
    title = f"{len(places):,} of {len(first.labels):,} {split} images get different classes{shown}\n{which}"
    grid(_images(first.split, places[:SHOWN]), captions, title, path)


def _images(split: Split, places: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return images [number, height, width, channels] in 0..1, as they were before they were normalised."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (split.spec.mean, split.spec.std))
    batches = [images for _, images, _ in split.batches(SHOWN, order=torch.tensor(places, dtype=torch.int64))]
    if not batches:
        return np.zeros((0, 1, 1, 1), np.float32)
    plain: np.ndarray[Any, np.dtype[np.float32]] = (torch.cat(batches) * std + mean).clamp(0, 1).numpy()
    return plain.transpose(0, 2, 3, 1)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
