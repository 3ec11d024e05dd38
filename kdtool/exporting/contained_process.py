"""The process in which onnxruntime runs, as its parent sees it: it answers in bounded memory and time, or is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from kdtool.errors import Error, UsageError
from kdtool.exporting.contained_child import MOST_OUTPUT, receive, send
from kdtool.exporting.onnx_limits import METADATA_BYTES
from kdtool.utils.formatting import printable
from kdtool.utils.progress import progress

MOST_ANSWER = MOST_OUTPUT + METADATA_BYTES + (64 << 20)

# Messages of onnxruntime name parts of the file.
LONGEST_REASON = 400

OUT_OF_CPU = [-number for number in [getattr(signal, "SIGXCPU", None)] if number]

CODE = """
import json, sys
parent, sys.path[:] = json.loads(sys.argv[1])
from kdtool.exporting.contained_child import main
main(parent)
"""


class Child:
    """A child process that answers requests; it is ended when it answers too late, or is not needed any more."""

    def __init__(self, path: Path) -> None:
        """Start a process; ``path`` is what errors name."""
        self.path, self.late = path, False
        self._lock = threading.Lock()
        # Nothing is imported from the working directory, in which a stranger's files may be.
        about = json.dumps([os.getpid(), [entry for entry in sys.path if entry]])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", CODE, about],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.end = weakref.finalize(self, _end, self._process, os.getpid())

    def ask(
        self,
        request: Mapping[str, Any],
        raw: bytes = b"",
        *,
        memory: int | None,
        seconds: float,
        cpu: float | None = None,
    ) -> tuple[dict[str, Any], bytes]:
        """Return the answer to a request, which may take so much memory (bytes), time, and CPU time (seconds).

        Raises:
            UsageError, Error: it cannot be answered; the message names the file.
        """
        with self._lock:
            timer = threading.Timer(seconds, self._expire)
            timer.daemon = True
            timer.start()
            try:
                return self._asked({**request, "memory": memory, "cpu": cpu}, raw, memory)
            except (EOFError, OSError, ValueError) as error:
                raise Error(f"{self.path}: {self._ending(seconds, cpu)}") from error
            except Error:
                raise
            except BaseException:
                self.end()  # what it answers later would be taken for another answer
                raise
            finally:
                timer.cancel()

    def _asked(self, request: Mapping[str, Any], raw: bytes, memory: int | None) -> tuple[dict[str, Any], bytes]:
        source, target = self._process.stdout, self._process.stdin
        assert source is not None
        assert target is not None
        send(target, dict(request), raw)
        answer, numbers = _answered(source)
        if "error" not in answer:
            return answer, numbers
        kind, text = answer["kind"], printable(str(answer["error"]), LONGEST_REASON)
        if kind == "memory":
            raise Error(f"{self.path}: needs more than {_gibibytes(memory)} of memory in onnxruntime")
        if kind == "onnxruntime":
            verb = "does not load" if request["do"] == "open" else "cannot run"
            raise Error(f"{self.path}: onnxruntime {answer['version']} {verb} it: {text}")
        raise (UsageError if kind == "usage" else Error)(text if text.startswith("--") else f"{self.path}: {text}")

    def _expire(self) -> None:
        self.late = True
        self.end()

    def _ending(self, seconds: float, cpu: float | None) -> str:
        """Return why there is no answer."""
        late, process = self.late, self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        self.end()
        code = process.returncode
        if late:
            return f"onnxruntime takes longer than {seconds:.0f} s for it"
        if cpu is not None and code in OUT_OF_CPU:
            return f"onnxruntime takes more than {cpu:.0f} s of CPU for it, far more than a network of its size needs"
        if code is not None and code < 0:
            return f"onnxruntime crashed on it ({signal.Signals(-code).name})"
        return "the process of onnxruntime ended; is there enough memory?"


def _answered(source: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Return the answer, after showing the progress that comes before it."""
    answer, numbers = receive(source, MOST_ANSWER)
    if "total" in answer:
        with progress(str(answer["title"]), int(answer["total"])) as advance:
            answer, numbers = receive(source, MOST_ANSWER)
            while "advance" in answer:
                advance()
                answer, numbers = receive(source, MOST_ANSWER)
    return answer, numbers


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a copy of the object in a forked process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _gibibytes(count: int | None) -> str:
    return "there is" if count is None else f"{count / (1 << 30):.1f} GiB"
