"""The whole main job on real data that needs no download: teach, distil four times, prune, export, measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdtool.api import export, load
from kdtool.commands.distill import distill
from kdtool.commands.prune import prune
from kdtool.commands.teacher import teacher
from kdtool.utils.files import write_text
from kdtool.utils.progress import say

TEACHER: dict[str, Any] = {
    "name": "torchvision:resnet18",
    "stem": "small",
    "data": "digits",
    "epochs": 8,
}

STUDENTS: dict[str, Any] = {"method": "ikd", "iters": 4, "epochs": 25, "lr": 1e-2}

PRUNER: dict[str, Any] = {"method": "magnitude", "ratio": 0.5, "epochs": 15, "lr": 5e-3}


def run(output: Path, *, force: bool = False) -> list[dict[str, Any]]:
    """Do the main job in the directory ``output`` and return the table's rows, also kept as ``table.json``.

    What is done there already is not done again, unless ``force`` is given. Test errors are taken on the test split,
    once for each model; the latency ratio is the model's time over the teacher's, in onnxruntime.
    """
    output.mkdir(parents=True, exist_ok=True)
    where: dict[str, Any] = {"force": force, "resume": not force}
    say("1/4  train a teacher on the digits")
    first = teacher(**TEACHER, output=output / "teacher.pt", **where)
    say("2/4  halve and distil it four times")
    student = distill(first, **STUDENTS, output=output / "student.pt", **where)
    say("3/4  prune the last student")
    pruned = prune(student, **PRUNER, output=output / "student-pruned.pt", **where)
    say("4/4  export all of them and measure")
    rows = [_row(f"M{i}", output / "student.run" / f"M{i}.pt", output) for i in range(STUDENTS["iters"] + 1)]
    assert pruned.path is not None
    rows.append(_row(f"{rows[-1]['model']} pruned", pruned.path, output))
    write_text(output / "table.json", json.dumps(rows, indent=1) + "\n")
    return rows


def _row(model: str, path: Path, output: Path) -> dict[str, Any]:
    checkpoint = load(path)
    entry = checkpoint.history[-1]
    taught = {row["model"]: row["taught_by"] for row in entry["rows"]}
    target = output / f"{model.replace(' ', '-')}.onnx"
    measure_it = model != "M0"  # the teacher against itself says nothing
    measured = export(checkpoint, output=target, force=True, against=output / "teacher.pt", latency=measure_it)
    return {
        "model": model,
        "taught_by": taught.get(model, f"M{STUDENTS['iters']}"),
        "test_error": checkpoint.metric("test", "error"),
        "parameters": measured["parameters"],
        "nonzero": measured["nonzero"],
        "compression": measured["compression"],
        "macs": measured["macs"],
        "file_bytes": measured["file_bytes"],
        "gzip_bytes": measured["gzip_bytes"],
        "latency_ratio": measured["latency"]["ratio"] if measure_it else None,
    }
