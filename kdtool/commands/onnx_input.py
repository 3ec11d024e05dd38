"""ONNX files as inputs of commands that measure: an onnxruntime session in the place of a network."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from kdtool.commands.inputs import load
from kdtool.data.spec import DataSpec
from kdtool.errors import Error, UsageError
from kdtool.exporting.contained import ContainedSession
from kdtool.exporting.onnx_operators import PRECISION, believed
from kdtool.exporting.sessions import described
from kdtool.models.architecture import Architecture, Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.modules import Opaque
from kdtool.models.prediction import METRICS, MOST_ENTRIES
from kdtool.models.size import measure
from kdtool.utils.files import gzip_bytes
from kdtool.utils.forms import COUNT, TEXT, Each, misfit
from kdtool.utils.strict_json import loads

SUFFIX = ".onnx"

SIZES = ("parameters", "nonzero", "macs")
"""What a file tells of its network's size."""

# The names of many thousand classes are far shorter.
LONGEST_TEXT = 4 << 20


class SessionModule(Opaque):
    """A session as a module without parameters, which maps images to logits on the CPU."""

    def __init__(self, session: Any, title: str) -> None:
        super().__init__(title)
        self.session, self.fixed = session, session.get_inputs()[0].shape[0]
        self.images, self.logits = session.get_inputs()[0].name, session.get_outputs()[0].name

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, channels, height, width], on their device."""
        return torch.cat([self._run(batch) for batch in self._batches(images)])[: len(images)]

    def _batches(self, images: Tensor) -> Iterable[Tensor]:
        """Return the images in batches that the file takes; where their size is fixed, the last one is filled up."""
        if not isinstance(self.fixed, int):
            return [images]
        missing = -len(images) % self.fixed
        return list(torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]).split(self.fixed))

    def _run(self, images: Tensor) -> Tensor:
        feed = {self.images: images.float().cpu().contiguous().numpy()}
        logits = torch.from_numpy(self.session.run([self.logits], feed)[0])
        if logits.ndim != 2 or len(logits) != len(images):
            shape = f"an array of {list(logits.shape)} for {len(images)} images"
            raise Error(f"{self.title}: gives {shape}, not logits [images, classes]; make them its first output")
        return logits.to(images.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A session has no state that a run changes, and cannot be copied.
        memo[id(self.session)] = self.session
        other = memo[id(self)] = self.__class__.__new__(self.__class__)
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


@dataclass(repr=False)
class OnnxCheckpoint(Checkpoint):
    """An ONNX file in the form of a checkpoint; it has no weights that can be trained."""

    about: Mapping[str, str] = field(default_factory=dict)
    """The metadata of the file."""

    @property
    def files(self) -> list[Path]:
        """The file, and those beside it that hold its weights, if it does not."""
        assert isinstance(self.module, SessionModule)
        return [*self.module.session.files]

    @property
    def knows_images(self) -> bool:
        """Whether its data set can be found by its name: a folder's path is not in the file."""
        return self.data is not None and ":" not in self.data.name

    def size(self) -> dict[str, int | None]:
        """Return what the file tells of its network's size, None where it does not."""
        content = _plain(self.about.get("kdtool.size"), {})
        values = {name: content.get(name) if isinstance(content, dict) else None for name in SIZES}
        return {name: value if misfit(value, COUNT) is None else None for name, value in values.items()}


def several(given: Any) -> list[Any]:
    """Return the given checkpoints as a list, and one alone as a list of it: also a network, some of which iterate."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | nn.Module) else [given]


def load_any(source: str | Path | Checkpoint) -> Checkpoint:
    """Return a checkpoint, or an ONNX file that ``kdtool export`` wrote in the form of one.

    Raises:
        Error: the file is missing, is damaged, or is neither of these.
    """
    if not isinstance(source, str | Path) or Path(source).suffix.lower() != SUFFIX:
        return load(source)
    return read_onnx(Path(source))


def size_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the ``parameters``, ``nonzero`` and ``macs`` of a checkpoint or an ONNX file (None if not known)."""
    return checkpoint.size() if isinstance(checkpoint, OnnxCheckpoint) else {**measure(checkpoint.network)}


def read_onnx(path: Path) -> OnnxCheckpoint:
    """Read an ONNX file with what its metadata tell.

    Raises:
        UsageError: there is no such file.
        Error: it is not accepted, onnxruntime cannot load it, or it does not tell how its images are prepared and what
            its classes are.
    """
    session, shape, about = opened(path)
    data = data_of(about, shape, path)
    options = {"classes": len(data.classes), "in_channels": shape[0], "image_size": shape[1]}
    source, _, name = about.get("kdtool.source", "").partition(":")
    architecture = Architecture(source=source or "onnx", name=name or path.name, options=options)
    metrics = _plain(about.get("kdtool.metrics"), [])
    fit = misfit(metrics, Each(METRICS)) is None and len(metrics) <= MOST_ENTRIES
    return OnnxCheckpoint(
        Network(architecture, SessionModule(session, str(path))),
        data,
        metrics if fit else [],
        [{"command": "", "method": "", "line": line} for line in lines_of(about)],
        path,
        about=about,
    )


def opened(path: Path) -> tuple[ContainedSession, list[int], Mapping[str, str]]:
    """Return a session of a file, the shape of an image [channels, height, width], and its metadata.

    Raises:
        UsageError: there is no such file.
        Error: it is not accepted, onnxruntime cannot load it, or it does not take square images.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    session = ContainedSession(path, torch.get_num_threads())
    inputs, about = session.get_inputs(), believed(path, session.get_modelmeta().custom_metadata_map)
    shape = inputs[0].shape[1:] if inputs else []
    if len(inputs) != 1 or len(shape) != 3 or not all(isinstance(size, int) for size in shape) or shape[1] != shape[2]:
        raise Error(f"{path}: takes {described(inputs)}, not square images [batch, channels, height, width]")
    if not session.get_outputs():
        raise Error(f"{path}: gives no output; its graph has to name the logits as one")
    return session, shape, about


def data_of(about: Mapping[str, str], shape: list[int], path: Path) -> DataSpec:
    """Return the data set of a file's metadata.

    Raises:
        Error: they do not tell the classes or the normalisation.
    """
    described = _plain(about.get("kdtool.data"), None)
    if described is None:
        # Files of 0.1 tell less.
        known = {name: _plain(about.get(f"kdtool.{name}"), None) for name in ("classes", "mean", "std")}
        if None in known.values():
            missing = ", ".join(f"kdtool.{name}" for name, value in known.items() if value is None)
            raise Error(
                f"{path}: its metadata lack {missing}, so that neither its images nor its classes are known; name "
                "a file that kdtool export wrote of a checkpoint that records its data"
            )
        optional = {name: _plain(about.get(f"kdtool.{name}"), None) for name in ("crop", "interpolation")}
        described = {
            **{"name": "folder:", "directory": None, "subset": 1.0, "validation": 0.1, "split_seed": 0},
            **{"augment": "none", "image_size": shape[1], "in_channels": shape[0]},
            **known,
            **{name: value for name, value in optional.items() if value is not None},
        }
    try:
        return DataSpec.from_data(described)
    except (Error, TypeError) as error:
        raise Error(f"{path}: its metadata are damaged: {error}") from error


def _plain(text: str | None, default: Any) -> Any:
    """Return the value of a text in JSON, or ``default`` if there is none, or one that is too long."""
    try:
        return default if text is None or len(text) > LONGEST_TEXT else loads(text)
    except ValueError:
        return default


def lines_of(about: Mapping[str, str]) -> list[str]:
    """Return the commands that made a file, as its metadata tell."""
    lines = _plain(about.get("kdtool.history"), [])
    return lines if misfit(lines, Each(TEXT)) is None and len(lines) <= MOST_ENTRIES else []


def described_onnx(path: Path) -> dict[str, Any]:
    """Return what `kdtool.inspect` tells of an ONNX file; the numbers that it does not tell are None.

    Raises:
        Error: it cannot be read.
    """
    checkpoint = read_onnx(path)
    assert checkpoint.data is not None
    return {
        "path": str(path),
        "source": checkpoint.architecture.spec,
        **checkpoint.size(),
        "compression": None,
        "file_bytes": sum(file.stat().st_size for file in checkpoint.files),
        "gzip_bytes": sum(map(gzip_bytes, checkpoint.files)),
        "precision": checkpoint.about.get(PRECISION, "float32"),
        "classes": checkpoint.architecture.classes,
        "input": list(checkpoint.architecture.input),
        "architecture": None,
        "data": checkpoint.data.as_data(),
        "metrics": checkpoint.metrics,
        "history": checkpoint.history,
    }
