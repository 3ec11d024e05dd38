"""ONNX files as teachers: their logits, and what they tell or what is taken for granted of their images and classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtool.commands.inputs import check_pair, load
from kdtool.commands.onnx_input import SUFFIX, OnnxCheckpoint, SessionModule, data_of, lines_of, opened, several
from kdtool.commands.quantise import in_float
from kdtool.data.checks import tell
from kdtool.distillation.distiller import Distiller
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Architecture, Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.modules import check_transparent
from kdtool.training.objective import Objective
from kdtool.training.plan import check_teacher
from kdtool.utils.formatting import printable

TOLD = ("kdtool.data", "kdtool.classes", "kdtool.mean", "kdtool.std")
"""The metadata that tell of images and classes."""

PROBES = 2
"""How many random images show what a file gives."""


def load_teacher(source: str | Path | Checkpoint) -> Checkpoint:
    """Return a checkpoint, or an ONNX file in the form of one, which can only teach.

    Raises:
        Error: the file is missing or damaged, or does not give logits of square images.
    """
    if not isinstance(source, str | Path) or Path(source).suffix.lower() != SUFFIX:
        return load(source)
    path = Path(source)
    session, shape, about = opened(path)
    # A file of another program tells nothing; one of kdtool tells all, or is damaged.
    data = data_of(about, shape, path) if any(name in about for name in TOLD) else None
    module = TeacherSession(session, path)
    outputs, classes = session.get_outputs(), module.classes
    if len(outputs) > 1:
        tell(f"{path}: has {len(outputs)} outputs; the first, {printable(outputs[0].name)}, is taken for its logits")
    if module.probabilities:
        tell(f"{path}: gives probabilities, not logits; their logarithms are taken for the logits")
    if data is not None and (data.in_channels, data.image_size, len(data.classes)) != (shape[0], shape[1], classes):
        raise Error(
            f"{path}: its metadata are those of another network: {len(data.classes)} classes of {data.in_channels}x"
            f"{data.image_size}x{data.image_size} images; it takes {'x'.join(map(str, shape))}, and gives {classes}"
        )
    options = {"classes": classes, "in_channels": shape[0], "image_size": shape[1]}
    checkpoint = OnnxCheckpoint(Network(Architecture("onnx", path.name, options), module), data, path=path, about=about)
    size, lines = checkpoint.size(), lines_of(about)
    if None not in size.values():
        line = lines[-1] if lines else ""
        checkpoint.history = [{"command": "export", "method": "onnx", "line": line, "lines": lines, "size": size}]
    return checkpoint


def load_teachers(
    teacher: str | Path | Checkpoint | Sequence[str | Path | Checkpoint],
    method: type[Distiller],
) -> list[Checkpoint]:
    """Return the teachers that a method learns from, in the given order.

    Raises:
        UsageError: the method takes one teacher and several are given, or it needs several and one is given.
        Error: the teachers have different classes, or take images of different shapes. The order of the classes may
            differ.
    """
    checkpoints = several(teacher)
    method.check_teachers(len(checkpoints))
    teachers = [in_float(load_teacher(checkpoint)) for checkpoint in checkpoints]
    first, *others = teachers
    for number, other in enumerate(others, start=2):
        check_pair(first, other, str(other.path or f"teacher {number}"), "the first teacher")
    return teachers


class TeacherSession(SessionModule):
    """A session as a frozen teacher, with logits [batch, classes] for any number of images."""

    content: Tensor

    def __init__(self, session: Any, path: Path) -> None:
        """Try the session; ``path`` is its file.

        Raises:
            Error: it gives no logits.
        """
        super().__init__(session, str(path))
        self.probabilities = False
        digest = hashlib.sha256()
        for file in session.files:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        # The cache of its outputs and its run recognise a network by its tensors.
        self.register_buffer("content", torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8).clone())
        noise = np.random.default_rng(0).standard_normal((PROBES, *session.get_inputs()[0].shape[1:]))
        probe = self(torch.from_numpy(noise.astype(np.float32)))
        if probe.ndim != 2 or probe.shape[1] < 2 or not bool(torch.isfinite(probe).all()):
            raise Error(f"{path}: gives an array of {list(probe.shape)} for {PROBES} images, not logits of classes")
        self.classes = int(probe.shape[1])
        self.probabilities = bool((probe >= 0).all()) and bool(((probe.sum(1) - 1).abs() < 1e-3).all())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, channels, height, width], on their device."""
        logits = super().forward(images)
        return logits.clamp_min(torch.finfo(torch.float32).tiny).log() if self.probabilities else logits

    def extra_repr(self) -> str:
        """Return the file."""
        return self.title


def check_images_known(first: Checkpoint, data: str | None) -> None:
    """Check that the images of the first teacher are known, if it is an ONNX file; ``data`` is what the user named.

    Raises:
        UsageError: they are not.
    """
    if isinstance(first, OnnxCheckpoint) and data is None and not first.knows_images:
        raise UsageError(f"{first.path}: does not tell where its images are; name them with --data")


def check_onnx_teachers(
    teachers: Iterable[Checkpoint], distiller: Distiller, student: Network | None, *, refined: bool
) -> None:
    """Check that teachers that are ONNX files can teach a student in this way; ``refined``: it is made from the first.

    Raises:
        UsageError: the method reads their layers, or has to make the student from them.
    """
    objective = distiller if isinstance(distiller, Objective) else getattr(distiller, "objective", None)
    for number, teacher in enumerate(teachers):
        if refined and number == 0:
            check_transparent(teacher.module, "no student can be made from it")
        if isinstance(objective, Objective) and student is not None:
            check_teacher(objective, student, teacher.network)
