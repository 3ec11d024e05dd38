"""A complete run on real data without a download: train, distil four times, prune, export and measure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kdtool.api import export, load
from kdtool.commands.distill import distill
from kdtool.commands.prune import prune
from kdtool.commands.teacher import teacher
from kdtool.utils.files import write_text
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

# The table is the same every time; the number of threads that is fastest depends on what else runs.
SAME_BITS = {"threads": 1}

TEACHER: dict[str, Any] = {
    "name": "torchvision:resnet18",
    "stem": "small",
    "data": "digits",
    "epochs": 8,
    **SAME_BITS,
}

STUDENTS: dict[str, Any] = {"method": "ikd", "iters": 4, "epochs": 25, "lr": 1e-2, **SAME_BITS}

PRUNER: dict[str, Any] = {"method": "magnitude", "ratio": 0.5, "epochs": 15, "lr": 5e-3, **SAME_BITS}


def run(output: Path, *, force: bool = False) -> list[dict[str, Any]]:
    """Run the demo in the directory ``output`` and return the rows of its table, also written to ``table.json``.

    Steps that are already done there are not repeated, unless ``force`` is true. ``test_error`` is the error on the
    test split, measured once for each model. ``latency_ratio`` is the model's time divided by the teacher's, both
    measured in onnxruntime.
    """
    output.mkdir(parents=True, exist_ok=True)
    run_options: dict[str, Any] = {"force": force, "resume": not force}
    say("1/4  train a teacher on the digits")
    teacher_checkpoint = teacher(**TEACHER, output=output / "teacher.pt", **run_options)
    say("2/4  halve the network and distil, four times")
    student = distill(teacher_checkpoint, **STUDENTS, output=output / "student.pt", **run_options)
    say("3/4  prune the last student")
    pruned = prune(student, **PRUNER, output=output / "student-pruned.pt", **run_options)
    say("4/4  export all models and measure them")
    rows = [_row(f"M{i}", output / "student.run" / f"M{i}.pt", output) for i in range(STUDENTS["iters"] + 1)]
    assert pruned.path is not None
    rows.append(_row(f"{rows[-1]['model']} pruned", pruned.path, output))
    write_text(output / "table.json", dumps(rows, indent=1) + "\n")
    return rows


def dry_run() -> None:
    """Say what each step of the demo would train and cost; nothing is trained, and nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        made = teacher(**TEACHER, output=output / "teacher.pt", dry_run=True)
        student = distill(made, **STUDENTS, output=output / "student.pt", dry_run=True)
        prune(student, **PRUNER, output=output / "student-pruned.pt", dry_run=True)


def _row(model: str, path: Path, output: Path) -> dict[str, Any]:
    checkpoint = load(path)
    entry = checkpoint.history[-1]
    teachers = {row["model"]: row["taught_by"] for row in entry["rows"]}
    target = output / f"{model.replace(' ', '-')}.onnx"
    with_latency = model != "M0"  # M0 is the teacher: comparing it with itself is pointless
    measured = export(checkpoint, output=target, force=True, against=output / "teacher.pt", latency=with_latency)
    return {
        "model": model,
        "taught_by": teachers.get(model, f"M{STUDENTS['iters']}"),
        "test_error": checkpoint.metric("test", "error"),
        "parameters": measured["parameters"],
        "nonzero": measured["nonzero"],
        "compression": measured["compression"],
        "macs": measured["macs"],
        "file_bytes": measured["file_bytes"],
        "gzip_bytes": measured["gzip_bytes"],
        "latency_ratio": measured["latency"]["ratio"] if with_latency else None,
    }
