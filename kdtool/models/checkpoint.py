"""The checkpoint, the file that every command reads and writes: plain data, never code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.data.spec import DataSpec
from kdtool.errors import Error
from kdtool.models.architecture import Architecture, Network, build
from kdtool.models.prediction import ENTRY, METRICS, Recorded, checked_entries, with_change
from kdtool.models.quantisation.fake import float_weights, from_data, quantiser_of
from kdtool.models.trial import check_same
from kdtool.plugins.calls import public
from kdtool.plugins.distributions import comes_with
from kdtool.utils.formatting import LONGEST_LINE, printable
from kdtool.utils.kinds import check_checkpoint, is_checkpoint_folder
from kdtool.utils.progress import say
from kdtool.utils.tensor_files import safe_load, storable, write_tensors
from kdtool.utils.tensor_folder import read_folder

FORMAT = "kdtool"

VERSION = 1

KEYS = {"format", "version", "architecture", "weights", "data", "metrics", "history"}

OPTIONAL = {"early", "fingerprint", "quantisation"}


@dataclass
class Early:
    """The weights of a network after ``epoch`` epochs of its training; epoch 0 means before it."""

    epoch: int
    weights: dict[str, Tensor]


@dataclass(repr=False)
class Checkpoint(Recorded):
    """A network with the description of its data, its metrics and the history of the commands that made it.

    ``metrics`` is a list of ``{split, accuracy, error, loss, images}``. ``history`` has one entry for each command
    that made it, the first for the teacher (see `kdtool.commands.history`). ``early`` are weights from early in the
    training, if they were kept. A network that was trained in 8 bits rounds (see `kdtool.models.quantisation`).
    """

    early: Early | None = None
    stored: str | None = field(default=None, compare=False)
    """The fingerprint of the weights that were read or written last; None if there were none."""

    @property
    def masked(self) -> bool:
        """Whether the network was pruned by masks, so that its zeros must stay zero (see `Run.keep_zeros`).

        The last command that says so counts: one that gave fresh weights to a structure says that it has none.
        """
        return next((bool(entry["masked"]) for entry in reversed(self.history) if "masked" in entry), False)

    @property
    def module(self) -> nn.Module:
        """The module, in eval mode; it maps [batch, channels, height, width] to logits [batch, classes]."""
        return self.network.module

    def metric(self, split: str, name: str) -> float | None:
        """Return one metric, such as ``metric("test", "error")``, or None if it was not measured."""
        for entry in reversed(self.metrics):
            if entry["split"] == split:
                return float(entry[name])
        return None

    def compression(self, parameters: int) -> float:
        """Return the parameters of the first teacher over ``parameters``, zeros included; 1 if its size is unknown."""
        size = self.history[0].get("size") if self.history else None
        return float(size["parameters"] / parameters) if size else 1.0

    @public
    def save(self, path: str | Path) -> Checkpoint:
        """Write the checkpoint to ``path`` and return it.

        If its weights were changed since they were read or written, the metrics are dropped and the history says so.

        Raises:
            Error: the file cannot be written, or could not be read again as what this is: layers were changed, or an
                entry of the metrics or the history is malformed. A file that is there already stays.
        """
        before, content = self.stored, content_of(self)
        digest = content["fingerprint"]["weights"]
        if before is not None and before != digest:
            content |= {"metrics": [], "history": with_change(self, before, Path(path))}
        content = storable(content, Path(path).name)
        try:
            rebuilt = _parsed(content, digest).module
            check_same(self.module, rebuilt, self.architecture.input, self.architecture.spec)
        except Error as error:
            reason = str(error).removeprefix("damaged checkpoint: ")
            raise Error(f"{path}: is not written, since it could not be read again as it is: {reason}") from error
        if before not in (None, digest):
            say(f"{path}: has no metrics, its weights were changed outside of kdtool; kdtool evaluate measures them")
        _store(Path(path), self, content)
        return self


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights in float on the CPU, each tensor contiguous and in its own storage."""
    return copied(float_weights(module))


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of weights on the CPU, each tensor contiguous and in its own storage."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return a hash of the names, shapes, types and values, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        plain = tensor.detach().cpu().contiguous()
        # Hash the bytes, because numpy has no bfloat16.
        digest.update(plain.view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()[:16]


def content_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a file holds of a checkpoint: plain containers and tensors."""
    weights = weights_of(checkpoint.module)
    digests = {"weights": fingerprint(weights)}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": checkpoint.architecture.as_data(),
        "weights": weights,
        "fingerprint": digests,
        "data": None if checkpoint.data is None else checkpoint.data.as_data(),
        "metrics": checkpoint.metrics,
        "history": checkpoint.history,
    }
    if checkpoint.early is not None:
        early = copied(checkpoint.early.weights)
        content["early"] = {"epoch": checkpoint.early.epoch, "weights": early}
        digests["early"] = fingerprint(early)
    quantiser = quantiser_of(checkpoint.module)
    if quantiser is not None:
        content["quantisation"] = quantiser.as_data()
    return content


def write(path: Path, checkpoint: Checkpoint, *, tell: bool = True) -> None:
    """Write a checkpoint atomically, and ``tell`` the listeners.

    Raises:
        Error: the file cannot be written; an existing file at ``path`` is unchanged.
    """
    _store(path, checkpoint, content_of(checkpoint), tell=tell)


def _store(path: Path, checkpoint: Checkpoint, content: dict[str, Any], *, tell: bool = True) -> None:
    write_tensors(path, content)
    checkpoint.path, checkpoint.stored = path, content["fingerprint"]["weights"]
    checkpoint.metrics, checkpoint.history = content["metrics"], content["history"]
    if tell:
        from kdtool.plugins.listeners import notify

        notify("checkpoint_saved", path=str(path), metrics=checkpoint.metrics)


@public
def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is ever executed, and its weights are those that were written.

    It may also be a folder that ``kdtool export --hub-folder`` wrote.

    Raises:
        Error: the file is not a checkpoint of this version, or is damaged; the message says what it is and what to do.
    """
    path = Path(path)
    check_checkpoint(path)
    content = read_folder(path) if is_checkpoint_folder(path) else safe_load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Error(f"{path}: not a kdtool checkpoint ({_describe(content)}). {_IMPORT_HINT.format(path)}")
    version = content.get("version")
    if version != VERSION:
        told = printable(str(version), 40)
        raise Error(f"{path}: checkpoint of version {told}, this kdtool reads {VERSION}; update kdtool")
    if set(content) - OPTIONAL != KEYS:
        odd = sorted(printable(str(key), 40) for key in (set(content) - OPTIONAL) ^ KEYS)
        raise Error(f"{path}: damaged checkpoint: missing or unknown entries {', '.join(odd)}")
    try:
        checkpoint = _parsed(content)
    except Error as error:
        # A message may quote what the file holds.
        raise type(error)(f"{path}: {printable(' '.join(str(error).split()), LONGEST_LINE)}") from error
    checkpoint.path = path
    return checkpoint


def _parsed(content: Mapping[str, Any], stored: str | None = None) -> Checkpoint:
    """Return what a file holds; ``stored`` is the fingerprint of the weights if they need not be checked."""
    history = checked_entries(content["history"], "history", ENTRY)
    architecture = _architecture(content["architecture"], history)
    weights = _checked_weights(content["weights"])
    data = None if content["data"] is None else DataSpec.from_data(content["data"])
    metrics = checked_entries(content["metrics"], "metrics", METRICS)
    _check_data_fits(architecture, data)
    early = _checked_early(content["early"], weights) if "early" in content else None
    if stored is None and "fingerprint" in content:
        _check_fingerprint(content["fingerprint"], weights, early)
        stored = str(content["fingerprint"]["weights"])
    elif stored is None:  # files of older releases have none
        stored = fingerprint(weights)
    return Checkpoint(_network(architecture, content), data, metrics, history, None, early, stored)


def _network(architecture: Architecture, content: Mapping[str, Any]) -> Network:
    network = Network(architecture, build(architecture, content["weights"]))
    return from_data(network, content["quantisation"]) if "quantisation" in content else network


def _architecture(data: Any, history: list[dict[str, Any]]) -> Architecture:
    """Return the architecture; if its source is missing, say which distribution has it."""
    try:
        return Architecture.from_data(data)
    except Error as error:
        source = data.get("source") if isinstance(data, dict) else None
        if not isinstance(source, str):
            raise
        raise type(error)(f"{error}{comes_with('teachers', source, history)}") from error


_IMPORT_HINT = "Import it: kdtool teacher timm:NAME --weights {}"


def _describe(content: Any) -> str:
    if isinstance(content, dict) and content:
        values = list(content.values())
        if all(isinstance(value, Tensor) for value in values):
            return "a plain state_dict"
        return "a dict of " + ", ".join(printable(str(key), 30) for key in list(content)[:4])
    return f"a {type(content).__name__}"


def _check_data_fits(architecture: Architecture, data: DataSpec | None) -> None:
    if data is None:
        return
    of_data = (len(data.classes), data.in_channels, data.image_size)
    of_network = (architecture.classes, *architecture.input[:2])
    if of_data != of_network:
        raise Error(
            f"damaged checkpoint: the data set has {of_data} classes, channels and pixels, the network {of_network}"
        )


def _checked_weights(weights: Any) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise Error("damaged checkpoint: the weights are not a dict of tensors by name")
    return weights


def _checked_early(early: Any, weights: Mapping[str, Tensor]) -> Early:
    known = isinstance(early, dict) and set(early) == {"epoch", "weights"} and isinstance(early["epoch"], int)
    if not known or early["epoch"] < 0:
        raise Error("damaged checkpoint: the early weights have no epoch, or are malformed")
    early_weights = _checked_weights(early["weights"])
    if _shapes(early_weights) != _shapes(weights):
        raise Error("damaged checkpoint: the early weights are those of another network")
    return Early(early["epoch"], early_weights)


def _check_fingerprint(told: Any, weights: Mapping[str, Tensor], early: Early | None) -> None:
    own = {"weights": fingerprint(weights)}
    if early is not None:
        own["early"] = fingerprint(early.weights)
    if not isinstance(told, dict) or set(told) != set(own):
        raise Error("damaged checkpoint: the fingerprints of the weights are missing or malformed")
    for name, digest in own.items():
        if told[name] != digest:
            raise Error(f"damaged checkpoint: the {name} are not those that were written: their fingerprint differs")


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
