"""Run ONNX files that a user names in processes of their own.

An ONNX file is a program: a few hundred bytes can ask for terabytes or loop forever, and onnxruntime may crash on it.
So it is checked first (`onnx_limits`), and then onnxruntime runs it in a child process, which may take a bounded
amount of memory and of time and writes no file. If the child ends, the command goes on to its one line.

This file, like the others that measure, needs numpy and onnxruntime alone of all that kdtool depends on.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtool.errors import Error
from kdtool.exporting.contained_process import Child
from kdtool.exporting.onnx_limits import check_file

# Beyond what onnxruntime itself takes: for small files, for each byte of a file (it is parsed, copied and packed anew),
# for each byte of a batch (the feature maps of DenseNet-201 take about 60 times the images), and for each thread.
BASE, PER_BYTE, PER_BATCH_BYTE, PER_THREAD = 4 << 30, 8, 100, 256 << 20

# Seconds to start, to load a file and to run the first image. A batch may take 20 times as long per image as that.
START, LOAD, FIRST, SLACK, SLOWER = 60.0, 120.0, 120.0, 60.0, 20.0

# Seconds of CPU that are more than an honest network takes, so that a small file without end is ended soon. To load: a
# node has some 100 bytes and takes less than 1 ms. To run: each float32 weight is used at each pixel at most, with 10
# million multiply-accumulates a second. Processors are a hundred times faster, and maps become smaller: that is left
# for layers that enlarge maps or repeat their weights. What is larger than this has the time above alone.
CPU, CPU_PER_BYTE, CPU_PER_PAIR = 3.0, 1e-5, 6e-9

# Images of a batch, where the file fixes it.
MOST_BATCH = 1 << 16

# Numbers of an image, 256 MiB as float32.
MOST_PIXELS = 1 << 26

# Numbers of a batch that the file fixes: fewer images are filled up to it.
MOST_FIXED = 1 << 28


@dataclass(frozen=True)
class Side:
    """An input or an output of a session."""

    name: str
    type: str
    shape: list[Any]


class ContainedSession:
    """A session of onnxruntime on the CPU, in a process of its own, with the methods of `InferenceSession` in use."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Open a file.

        Raises:
            Error: it is not accepted (see `check_file`), or onnxruntime does not load it; the message names the file.
        """
        self.path, self.threads = path, threads
        self.files = check_file(path)
        self._copied: dict[str, bytes] = {}
        self._bytes = sum(self.files.values())
        self._child = Child(path)
        self._per_image: tuple[float, float] | None = None
        request = {"do": "open", "path": str(path.absolute()), "threads": threads}
        answer, _ = self._ask(request, b"", START + LOAD + self._bytes / 1e7, cpu=CPU + CPU_PER_BYTE * self._bytes)
        self._inputs = [Side(**entry) for entry in answer["inputs"]]
        self._outputs = [Side(**entry) for entry in answer["outputs"]]
        self._metadata: dict[str, str] = answer["metadata"]
        fixed = max(
            [side.shape[0] for side in self._inputs if side.shape and isinstance(side.shape[0], int)], default=1
        )
        if not 1 <= fixed <= MOST_BATCH:
            raise Error(f"{path}: takes batches of {fixed:,} images; the most are {MOST_BATCH:,}")
        if self._pixels > MOST_PIXELS:
            raise Error(f"{path}: takes images of {self._pixels:,} numbers; the most are {MOST_PIXELS:,}")
        if fixed * self._pixels > MOST_FIXED:
            raise Error(f"{path}: takes batches of {fixed * self._pixels:,} numbers; the most are {MOST_FIXED:,}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process gets a copy: it may work in another folder, or on a machine that does not see the file.
        folder = self.path.parent
        files = self._copied or {str(file.relative_to(folder)): file.read_bytes() for file in self.files}
        return _from_copy, (self.path, self.threads, files)

    def get_inputs(self) -> list[Side]:
        """Return names, types and shapes of the inputs."""
        return self._inputs

    def get_outputs(self) -> list[Side]:
        """Return names, types and shapes of the outputs."""
        return self._outputs

    def get_modelmeta(self) -> SimpleNamespace:
        """Return the metadata, as ``custom_metadata_map``."""
        return SimpleNamespace(custom_metadata_map=self._metadata)

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return one output for one input, images [batch, channels, height, width].

        Raises:
            Error: onnxruntime cannot run it within the bounds of memory and time.
        """
        (output,), ((name, images),) = outputs, feed.items()
        if self._per_image is None:
            # The time of one image bounds that of a batch.
            fixed = isinstance(self._inputs[0].shape[0], int)
            first, started = images if fixed else images[:1], time.monotonic()
            result, cpu = self._run(output, name, first, FIRST, self._first_cpu(4 * first.size))
            number = max(1, len(first))
            self._per_image = ((time.monotonic() - started) / number, cpu / number)
            if len(first) == len(images):
                return [result]
        bounds = [SLOWER * per_image * len(images) for per_image in self._per_image]
        return [self._run(output, name, images, SLACK + bounds[0], self._first_cpu(4 * images[:1].size) + bounds[1])[0]]

    def _run(
        self, output: str, name: str, images: NDArray[np.float32], seconds: float, cpu: float
    ) -> tuple[NDArray[np.float32], float]:
        """Return the output, and the seconds of CPU that it took."""
        raw = np.ascontiguousarray(images, np.float32).tobytes()
        request = {"do": "run", "output": output, "input": name, "shape": list(images.shape)}
        answer, numbers = self._ask(request, raw, seconds, cpu=cpu)
        return np.frombuffer(numbers, np.float32).reshape(answer["shape"]).copy(), float(answer["cpu"])

    def _first_cpu(self, image_bytes: int) -> float:
        """Return how many seconds of CPU the first images may take."""
        return CPU + CPU_PER_PAIR * self._bytes * image_bytes

    @property
    def _pixels(self) -> int:
        """How many numbers its largest input has for one image, as far as the file tells."""
        shapes = [side.shape[1:] for side in self._inputs]
        return max((math.prod(size for size in shape if isinstance(size, int)) for shape in shapes), default=0)

    def latency(self, against: ContainedSession | None = None, **how: Any) -> dict[str, Any]:
        """Return the latency of the file, alone or compared with another one (see `measure_latency`).

        Raises:
            UsageError: the installed onnxruntime does not have the provider.
            Error: a file is no network for images, or onnxruntime cannot run it within the bounds.
        """
        batch, files = how.get("batch", 1), [self, *([] if against is None else [against])]
        calls = [file._tried(batch) for file in files]
        extra = sum(other._memory(4 * batch * other._pixels) for other in files)
        # Other devices map far more than they take.
        memory = 2 * extra if how.get("provider", "cpu") == "cpu" else None
        # Each is loaded up to two times, and called at least some hundred times in all.
        seconds = 2 * START + 4 * LOAD + 3 * how.get("seconds", 60.0) + 200 * sum(calls)
        other = None if against is None else str(against.path.absolute())
        request = {"do": "latency", "model": str(self.path.absolute()), "against": other, "how": how}
        return dict(self._child.ask(request, memory=memory, seconds=seconds)[0]["measured"])

    def _tried(self, batch: int) -> float:
        """Return for how many seconds it runs one batch of random images."""
        image_bytes = 4 * batch * self._pixels
        cpu = self._first_cpu(image_bytes)
        answer, _ = self._ask({"do": "try", "batch": batch}, b"", FIRST, image_bytes, cpu=cpu)
        return float(answer["seconds"])

    def _memory(self, batch_bytes: int) -> int:
        return BASE + PER_BYTE * self._bytes + PER_BATCH_BYTE * batch_bytes + PER_THREAD * self.threads

    def _ask(
        self, request: dict[str, Any], raw: bytes, seconds: float, batch_bytes: int = 0, *, cpu: float
    ) -> tuple[dict[str, Any], bytes]:
        memory = self._memory(len(raw) or batch_bytes)
        return self._child.ask(request, raw, memory=memory, seconds=seconds, cpu=cpu)


def _from_copy(path: Path, threads: int, files: dict[str, bytes]) -> ContainedSession:
    """Return a session of the content of files, which have names in the folder of ``path``."""
    with tempfile.TemporaryDirectory(prefix="kdtool-onnx-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        try:
            session = ContainedSession(folder / path.name, threads)
        except Error as error:
            raise type(error)(str(error).replace(str(folder / path.name), str(path))) from error
    session.path = session._child.path = path
    session._copied = files
    return session


def measure_contained(model: Path, against: Path | None = None, **how: Any) -> dict[str, Any]:
    """Return what `measure_latency` returns of files that a user names.

    Raises:
        UsageError: the installed onnxruntime does not have the provider.
        Error: a file is not accepted, or onnxruntime cannot run it.
    """
    threads = how.get("threads", 1)
    session = ContainedSession(model, threads)
    return session.latency(None if against is None else ContainedSession(against, threads), **how)
