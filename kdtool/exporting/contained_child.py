"""What runs in the process of a `contained` session: onnxruntime, with the memory that it is given.

This file, like the others that measure, needs numpy and onnxruntime alone of all that kdtool depends on.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from kdtool.errors import Error, UsageError, first_line
from kdtool.exporting.latency import measure_latency
from kdtool.exporting.sessions import caller, failures, open_session

HEADER = struct.Struct(">QQ")
"""Before each message: the bytes of its JSON, and of the numbers behind it."""

MOST_OUTPUT = 1 << 28
"""Bytes of the outputs of a batch; those of 65,536 images in 1,000 classes."""

# Words in messages of onnxruntime that could not get memory.
NO_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "cudaerrormemoryallocation")


KNOWN: tuple[type[Exception], ...] = (Error, MemoryError, ValueError, TypeError, OSError)


def send(stream: IO[bytes], content: dict[str, Any], raw: bytes = b"") -> None:
    """Write a message."""
    text = json.dumps(content).encode()
    stream.write(HEADER.pack(len(text), len(raw)))
    stream.write(text)
    stream.write(raw)
    stream.flush()


def receive(stream: IO[bytes], most: int) -> tuple[dict[str, Any], bytes]:
    """Read a message of at most ``most`` bytes.

    Raises:
        EOFError: the other process has ended.
    """
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        raise EOFError
    text, raw = HEADER.unpack(head)
    if text + raw > most:
        raise EOFError
    content, numbers = stream.read(text), stream.read(raw)
    if len(content) < text or len(numbers) < raw:
        raise EOFError
    return json.loads(content), numbers


class Child:
    """One session, and what the parent asks of it."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self.source, self.target = source, target
        self.session: Any = None

    def serve(self) -> None:
        """Answer until the parent closes the pipe."""
        while True:
            try:
                request, raw = receive(self.source, sys.maxsize)
            except EOFError:
                return
            try:
                import onnxruntime  # noqa: F401  # what it takes is not the file's

                allow(request.pop("memory"))
                allow_cpu(request.pop("cpu"))
                answer, numbers = getattr(self, f"do_{request.pop('do')}")(raw, **request)
            except KNOWN + failures() as error:
                answer, numbers = told(error), b""
            send(self.target, answer, numbers)

    def do_open(self, raw: bytes, path: str, threads: int) -> tuple[dict[str, Any], bytes]:
        """Open a file, and tell what it takes and gives."""
        self.session = open_session(Path(path), threads)
        sides = {"inputs": self.session.get_inputs(), "outputs": self.session.get_outputs()}
        about = {
            side: [{"name": entry.name, "type": entry.type, "shape": list(entry.shape)} for entry in entries]
            for side, entries in sides.items()
        }
        return {**about, "metadata": dict(self.session.get_modelmeta().custom_metadata_map)}, b""

    def do_run(self, raw: bytes, output: str, input: str, shape: list[int]) -> tuple[dict[str, Any], bytes]:
        """Run the session on images, float32 [batch, channels, height, width]; the outputs are float32 too."""
        images = np.frombuffer(raw, np.float32).reshape(shape)
        started = time.process_time()
        (result,) = self.session.run([output], {input: images})
        cpu = time.process_time() - started
        if not isinstance(result, np.ndarray) or result.dtype.kind != "f" or result.nbytes > MOST_OUTPUT:
            raise Error(f"{output} is no array of numbers, or one of more than {MOST_OUTPUT >> 20} MiB")
        logits = np.ascontiguousarray(result, np.float32)
        return {"shape": list(logits.shape), "cpu": cpu}, logits.tobytes()

    def do_try(self, raw: bytes, batch: int) -> tuple[dict[str, Any], bytes]:
        """Run the session on a batch of random images, and tell how long it takes."""
        call, started = caller(self.session, batch, 0), time.monotonic()
        call()
        return {"seconds": time.monotonic() - started}, b""

    def do_latency(
        self, raw: bytes, model: str, against: str | None, how: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """Measure the latency of a file, alone or with another one."""
        files = (Path(model), None if against is None else Path(against))
        return {"measured": measure_latency(*files, **how, shown=self._shown)}, b""

    @contextlib.contextmanager
    def _shown(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        send(self.target, {"title": title, "total": total})
        yield lambda: send(self.target, {"advance": 1})


def told(error: BaseException) -> dict[str, Any]:
    """Return an error as a message."""
    text = first_line(error)
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        return {"error": text, "kind": "memory"}
    if isinstance(error, Error):
        return {"error": text, "kind": "usage" if isinstance(error, UsageError) else "kdtool"}
    import onnxruntime

    return {"error": text, "kind": "onnxruntime", "version": onnxruntime.__version__}


def allow(more: int | None) -> None:
    """Let the process take ``more`` bytes of memory than it has now; None is no limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limit = hard if more is None else taken + more
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def allow_cpu(more: float | None) -> None:
    """Let the process take ``more`` seconds of CPU than it has taken, or up to one more; None is no limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        limit = hard if more is None else math.ceil(min(time.process_time() + more, 1e9))
        resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))


def lock_down() -> None:
    """Let the process write no file, and be the first to end if the machine has too little memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        for name in ("RLIMIT_FSIZE", "RLIMIT_CORE"):
            resource.setrlimit(getattr(resource, name), (0, 0))


def end_with(parent: int) -> None:
    """End this process when its parent is gone, whatever it computes."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def main(parent: int) -> None:
    """Answer on the standard streams; what a library prints goes nowhere."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    end_with(parent)
    lock_down()
    Child(source, target).serve()
