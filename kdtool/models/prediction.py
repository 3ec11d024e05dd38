"""What the file of a network records of its images, classes and weights, and what it says of a single image."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdtool.data.classes import outputs_of
from kdtool.data.preparation import INTERPOLATION, SMALL, Preparation, default_crop
from kdtool.data.spec import DataSpec
from kdtool.data.transform import Transform
from kdtool.errors import Error
from kdtool.models.architecture import Architecture, Network
from kdtool.models.hooks import evaluating
from kdtool.models.sources import expected_images
from kdtool.models.weight_files import known_images
from kdtool.plugins.distributions import own_versions
from kdtool.utils.forms import CELL, COUNT, FLAG, NUMBER, ROWS, TEXT, Each, Named, misfit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SHOWN = 4
"""How many class names the description of a checkpoint has."""

CHANGED, COMMENT = "save", "# "
"""The command of an entry of a history that says that weights were changed outside of kdtool; how its line begins."""

# More commands than this made no checkpoint.
MOST_ENTRIES = 10_000

METRICS = {"split!": TEXT, **dict.fromkeys(("accuracy", "error", "loss", "images"), CELL)}
"""The form of an entry of the metrics, see `misfit`."""

SIZE = {"parameters!": COUNT, **dict.fromkeys(("nonzero", "macs"), COUNT)}

ENTRY = {
    **{"command!": TEXT, "line!": TEXT, **dict.fromkeys(("method", "output", "date", "kept"), TEXT)},
    **{"options": {}, "training": {}, "data": {}, "versions": Named(CELL), "size": SIZE, "masked": FLAG, "rows": ROWS},
    **dict.fromkeys(("trained_epochs", "trial_epochs"), COUNT),
    **{"seconds": NUMBER, "cpu_seconds": NUMBER, "reached": {"of!": TEXT, "asked!": NUMBER, "removed!": NUMBER}},
    "inputs": Each({"role!": TEXT, "path!": TEXT, "weights": TEXT, "lines": Each(TEXT)}),
}
"""The form of an entry of the history: of what is read again, and of nothing else."""


@dataclasses.dataclass(repr=False)
class Recorded:
    """A network with what its file records; the base class of `Checkpoint`."""

    network: Network
    data: DataSpec | None = None
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    path: Path | None = None

    @property
    def architecture(self) -> Architecture:
        """The plain data from which the network is rebuilt."""
        return self.network.architecture

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of the logits; numbers from 0 if no names are recorded."""
        return recorded_classes(self) or tuple(map(str, range(self.architecture.classes)))

    @property
    def transform(self) -> Transform:
        """How the network expects an image: a function that prepares a file, an image of Pillow or an array of uint8.

        The result is float32 [channels, size, size], normalised.

        Raises:
            Error: it is not recorded; the network was built without data.
        """
        channels, size, _ = self.architecture.input
        if self.data is not None:
            return Transform(self.data.preparation, self.data.mean, self.data.std)
        expected = expected_by(self)
        if not {"mean", "std"} <= {*expected}:
            name = self.path or self.architecture.spec
            raise Error(f"{name}: does not tell how its images are prepared; train it with data, or normalise yourself")
        prepared = Preparation(
            size, channels, expected.get("crop", default_crop(size)), expected.get("interpolation", "bilinear")
        )
        return Transform(prepared, expected["mean"], expected["std"])

    def predict(self, image: str | Path | Image | NDArray[Any] | Tensor) -> dict[str, float]:
        """Return the probability of each class for one image, the most likely class first.

        ``image`` is what `transform` takes. Two classes of one name are told apart by their numbers.

        Raises:
            Error: the image cannot be read, or it is not recorded how the network expects it.
        """
        module = self.network.module
        parameter = next(module.parameters(), None)
        batch = self.transform(image)[None]
        if parameter is not None:
            batch = batch.to(parameter.device, parameter.dtype)
        with evaluating(module), torch.inference_mode():
            probabilities = module(batch)[0].float().softmax(0).tolist()
        order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
        names = unique(self.classes)
        return {names[index]: probabilities[index] for index in order}

    def __repr__(self) -> str:
        """Return five lines: the file, the network, its input and classes, its scores, and the last command."""
        channels, height, width = self.architecture.input
        parameters = sum(weight.numel() for weight in self.network.module.parameters())
        names = ", ".join(self.classes[:SHOWN]) + (", ..." if len(self.classes) > SHOWN else "")
        scores = ", ".join(f"{row['split']} {row['accuracy']:.4f}" for row in self.metrics if "accuracy" in row)
        made = self.history[-1].get("line", "") if self.history else ""
        return "\n".join(
            f"{name:<11} {value}"
            for name, value in (
                ("checkpoint", self.path or "in memory"),
                ("network", f"{self.architecture.spec}, {parameters:,} parameters"),
                ("input", f"{channels}x{height}x{width}, {self.architecture.classes} classes: {names}"),
                ("accuracy", scores or "not measured"),
                ("made by", made or "unknown"),
            )
        )


def unique(names: Sequence[str]) -> list[str]:
    """Return names that differ: a name that occurs again gets its number in the list."""
    return [name if names.index(name) == number else f"{name} ({number})" for number, name in enumerate(names)]


def with_change(checkpoint: Recorded, before: str, path: Path) -> list[dict[str, Any]]:
    """Return the history of a network whose weights were changed outside of kdtool and are saved as ``path``.

    ``before`` is the fingerprint that they had. An entry of an earlier change is replaced: a training of one's own may
    save after each epoch.
    """
    history = checkpoint.history
    inputs = [{"role": "checkpoint", "path": str(checkpoint.path or ""), "weights": before}]
    if history and history[-1]["command"] == CHANGED:
        history, inputs = history[:-1], history[-1].get("inputs") or inputs
    origin = shlex.quote(inputs[0]["path"] or checkpoint.architecture.spec)
    entry = {
        "command": CHANGED,
        "line": f"{COMMENT}weights of {origin} changed outside of kdtool and saved as {shlex.quote(str(path))}",
        **{"method": "", "options": {}, "training": {}, "data": {}, "inputs": inputs, "output": str(path)},
        "versions": own_versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "trained_elsewhere": True,
        **({"held_out": False} if checkpoint.data else {}),
    }
    return [*history, entry]


def trained_elsewhere(checkpoint: Recorded) -> bool:
    """Return whether the weights of a checkpoint come from another program, and no data are recorded since."""
    return checkpoint.data is None and bool(checkpoint.history and checkpoint.history[0].get("trained_elsewhere"))


def expected_by(checkpoint: Recorded) -> dict[str, Any]:
    """Return how weights that were trained elsewhere expect their images: mean, std, crop and interpolation.

    These are entries of a `DataSpec` for the network's input; what is not known, or does not fit it, is left out. What
    the file of the weights told counts more than what is known of the network.
    """
    if not trained_elsewhere(checkpoint):
        return {}
    architecture = checkpoint.architecture
    channels, size, _ = architecture.input
    own = {name: architecture.options[name] for name in architecture.origin().as_data()}
    told = told_by(checkpoint)
    expected = {**expected_images(architecture.spec, own), **told}
    for name in {"mean", "std"} & {*expected}:
        expected[name] = tuple(expected[name]) * (channels if len(expected[name]) == 1 else 1)
    fits = {
        "mean": len(expected.get("mean", ())) == channels,
        "std": len(expected.get("std", ())) == channels,
        "crop": size > SMALL or "crop" in told,
        "interpolation": expected.get("interpolation") in INTERPOLATION,
    }
    return {name: tuple(value) if isinstance(value, list) else value for name, value in expected.items() if fits[name]}


def told_by(checkpoint: Recorded) -> dict[str, Any]:
    """Return what the file of weights told of the images of their training, see `kdtool.models.weight_files.Told`."""
    told = checkpoint.history[0].get("images") if trained_elsewhere(checkpoint) else None
    return known_images(told) if isinstance(told, dict) else {}


def recorded_classes(checkpoint: Recorded) -> tuple[str, ...] | None:
    """Return the classes in the order of a network's outputs, from its data or its file of weights; None if unknown."""
    if checkpoint.data is not None:
        return checkpoint.data.classes
    names = checkpoint.history[0].get("classes") if trained_elsewhere(checkpoint) else None
    return None if names is None else tuple(names)


def is_natural(checkpoint: Recorded) -> bool:
    """Return whether a network's outputs are in the `natural_order` of the classes, if those are not recorded."""
    return trained_elsewhere(checkpoint) and checkpoint.history[0].get("natural") is True


def classes_in(checkpoint: Recorded, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes in the order of a network's outputs; ``own`` are those of the data set that it is to see."""
    if checkpoint.data is not None:
        return checkpoint.data.classes
    return outputs_of(own, recorded_classes(checkpoint), natural=is_natural(checkpoint))


def checked_entries(entries: Any, name: str, form: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a file's ``name``, metrics or history, if each has its form.

    Raises:
        Error: one has not.
    """
    if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
        raise Error(f"damaged checkpoint: {name} is not a list of entries")
    place = misfit(entries, Each(form))
    if place is not None:
        raise Error(f"damaged checkpoint: {name}: entry {place} is missing or malformed")
    return entries
