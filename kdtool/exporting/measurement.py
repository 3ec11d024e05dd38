"""Measurements of ONNX files that are made on one device and read on another.

What measures here needs numpy and onnxruntime alone. `write_script` packs it into one file, which Python runs where
kdtool is not installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError
from kdtool.exporting.contained import ContainedSession
from kdtool.exporting.onnx_operators import PRECISION, STRUCTURE, believed
from kdtool.exporting.providers import PROVIDERS
from kdtool.exporting.sessions import check_provider, described
from kdtool.utils.formatting import three_digits
from kdtool.utils.progress import say

FORMAT = "kdtool-latency"

BUSY = 1.1
"""A network that takes so many times its time of the CPU waits for other programs."""

SCRIPT = (
    "errors",
    "exporting/contained",
    "exporting/contained_child",
    "exporting/contained_process",
    "exporting/latency",
    "exporting/measurement",
    "exporting/onnx_limits",
    "exporting/onnx_operators",
    "exporting/protobuf_wire",
    "exporting/providers",
    "exporting/samples",
    "exporting/sessions",
    "utils/formatting",
    "utils/meters",
    "utils/processes",
    "utils/progress",
    "utils/screens",
    "utils/verbosity",
)
"""The modules that measure, without .py; they import each other, numpy and onnxruntime."""


def measure_file(
    model: str | Path,
    *,
    batch: int = 1,
    threads: int = 1,
    provider: str = "cpu",
    pairs: int = 50,
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Measure the latency of a file that classifies images, and return it with what the file is, as plain data.

    Returns:
        ``model`` (the file's name), ``file_bytes`` (with those of weights in files beside it), ``input`` (channels,
        height, width), ``classes``, ``precision``, ``structure`` (hexadecimal digits, the same for networks that differ
        in their weights alone; None if the file is not as kdtool wrote it), ``p50_ms`` and ``p90_ms`` for ``batch``
        images, and ``noise``, ``clock``, ``cpu_ms``, ``threads``, ``pairs``, ``batch``, ``provider``, ``onnxruntime``
        and ``cpu`` as `measure_latency` has them; ``platform``.

    Raises:
        UsageError: there is no such file, or the installed onnxruntime does not have the provider.
        Error: the file is no classifier of images, or onnxruntime cannot run it within bounds of memory and time.
    """
    path = Path(model)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name an ONNX file, as kdtool export writes it")
    check_provider(provider)
    session = ContainedSession(path, threads)
    about = _classifier(session, path)
    metadata = believed(path, session.get_modelmeta().custom_metadata_map)
    measured = session.latency(batch=batch, threads=threads, provider=provider, pairs=pairs, seconds=seconds)
    wall, cpu = measured["student"]["p50_ms"], measured["cpu_ms"]
    if cpu is not None and wall > BUSY * cpu:
        times = f"a batch takes {three_digits(wall)} ms, of which it computes {three_digits(cpu)} ms"
        say(f"{path}: the machine is busy: {times}")
    facts = ("noise", "clock", "cpu_ms", "threads", "pairs", "batch", "provider", "onnxruntime", "cpu")
    return {
        "format": FORMAT,
        "model": path.name,
        "file_bytes": sum(session.files.values()),
        **about,
        "precision": metadata.get(PRECISION, "float32"),
        "structure": metadata.get(STRUCTURE),
        **measured["student"],
        **{name: measured[name] for name in facts},
        "platform": platform.platform(),
    }


def _classifier(session: Any, path: Path) -> dict[str, Any]:
    """Return the sizes of a file's input and output.

    Raises:
        Error: it does not map images to the logits of classes.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    known = (
        len(inputs) == len(outputs) == 1
        and inputs[0].type == outputs[0].type == "tensor(float)"
        and len(inputs[0].shape) == 4
        and len(outputs[0].shape) == 2
        and all(isinstance(size, int) for size in (*inputs[0].shape[1:], outputs[0].shape[1]))
        and outputs[0].shape[1] > 1
    )
    if not known:
        raise Error(
            f"{path}: is no classifier of images: it maps {described(inputs)} to {described(outputs)}, not float32 "
            "images [batch, channels, height, width] of one size to logits [batch, classes]"
        )
    return {"input": list(inputs[0].shape[1:]), "classes": outputs[0].shape[1]}


def read_measurements(path: str | Path) -> list[dict[str, Any]]:
    """Return what ``kdtool measure --json`` printed to a file: one measurement or several.

    Raises:
        UsageError: the file cannot be read.
        Error: it holds something else.
    """
    from kdtool.utils.strict_json import load  # not on the device that measures

    try:
        content = load(Path(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:
        content = None
    rows = content if isinstance(content, list) else [content]
    for row in rows:
        good = isinstance(row, dict) and row.get("format") == FORMAT
        if not good or not all(_positive(row.get(name)) for name in ("p50_ms", "p90_ms", "batch", "threads")):
            raise Error(f"{path}: holds no measurements; make it on the device: kdtool measure FILE.onnx --json > FILE")
    return rows


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def measured_elsewhere(
    rows: Sequence[dict[str, Any]], structure: str, against: str | None = None
) -> dict[str, Any] | None:
    """Return the latency of a network from measurements, in the form of `measure_latency`; None if it is not there.

    ``structure`` and ``against`` are those of the network and of the one to compare it with. Each was measured alone,
    so that the ratio, of their medians, has no interval; ``noise`` is that of both. The medians are those of the time
    of the CPU, whose noise it is, if both have them.
    """
    row = next((row for row in reversed(rows) if row.get("structure") == structure), None)
    if row is None:
        return None
    how = ("batch", "threads", "provider", "cpu", "onnxruntime")
    other = None
    if against is not None:
        same = [other for other in rows if all(other.get(name) == row.get(name) for name in how)]
        other = next((other for other in reversed(same) if other.get("structure") == against), None)
    cpu_ms = row["cpu_ms"] if _positive(row.get("cpu_ms")) else None
    noises = [entry.get("noise") or 0.0 for entry in (row, other) if entry is not None]
    clock = "cpu_ms" if all(_positive(entry.get("cpu_ms")) for entry in (row, other or row)) else "p50_ms"
    return {
        "student": {name: row[name] for name in ("p50_ms", "p90_ms")},
        "teacher": other and {name: other[name] for name in ("p50_ms", "p90_ms")},
        "ratio": other and row[clock] / other[clock],
        "ratio_low": None,
        "ratio_high": None,
        "noise": sum(noises),
        "clock": "thread-cpu" if clock == "cpu_ms" else "wall",
        "cpu_ms": cpu_ms,
        **{name: row.get(name) for name in ("threads", "pairs", "batch", "provider", "onnxruntime", "cpu")},
    }


def write_script(path: Path) -> None:
    """Write a program of one file that measures without kdtool: ``python measure.pyz model.onnx --json``."""
    root = Path(__file__).parents[1]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in ("kdtool", "kdtool/exporting", "kdtool/utils"):
            archive.writestr(zipfile.ZipInfo(f"{package}/__init__.py"), "")
        for module in SCRIPT:
            text = (root / f"{module}.py").read_text(encoding="utf-8")
            archive.writestr(zipfile.ZipInfo(f"kdtool/{module}.py"), text)
        # As kdtool/__init__.py does.
        text = "import os\n\nos.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')\n"
        text += "from kdtool.exporting.measurement import main\n\nmain()\n"
        archive.writestr(zipfile.ZipInfo("__main__.py"), text)


def main(words: Sequence[str] | None = None) -> None:
    """Measure the files of a command line and print JSON; an error is one line on stderr."""
    parser = argparse.ArgumentParser(prog="measure", description="Measure the latency of ONNX files in onnxruntime.")
    parser.add_argument("models", nargs="+", metavar="FILE.onnx")
    parser.add_argument("--batch", type=int, default=1, help="images in a batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
    parser.add_argument("--pairs", type=int, default=50, help="pairs of samples")
    parser.add_argument("--seconds", type=float, default=20.0, help="measure fewer pairs if they take longer")
    parser.add_argument("--json", action="store_true", help="accepted, since kdtool measure has it; this prints JSON")
    given = vars(parser.parse_args(words))
    models, _ = given.pop("models"), given.pop("json")
    if min(given["batch"], given["threads"], given["pairs"]) < 1 or given["seconds"] <= 0:
        parser.error("--batch, --threads, --pairs and --seconds must be positive")
    try:
        rows = [measure_file(model, **given) for model in models]
    except Error as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2))
