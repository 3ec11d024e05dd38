"""``kdtool prune``: prune one network or several and retrain each."""

from __future__ import annotations

from typing import Any

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import (
    DATA,
    TIME,
    TRAINING,
    checkpoints,
    output_options,
    run_options,
    track_option,
    training_step,
)
from kdtool.cli.output import MODELS, print_notes, print_result, show, table
from kdtool.cli.several_processes import processes_option
from kdtool.cli.work import Work
from kdtool.utils.files import beside, slug

EXAMPLES = """
\b
Examples:
  kdtool prune student.pt --ratio 0.8
  kdtool prune student.pt --ratio 0.9 --steps 4 --epochs 5 --no-teacher
  kdtool prune student.pt --method taylor --ratio 0.5 --of macs
  kdtool prune teacher-ikd.run/M?.pt --ratio 0.5
  kdtool distill --method ikd teacher.pt | kdtool prune --ratio 0.8 | kdtool export --onnx
"""

COLUMNS = {**MODELS, "file_bytes": "file bytes", "gzip_bytes": "gzip bytes"}


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""

    def run(work: Work) -> str | None:
        from kdtool import api

        rows = []
        for path, target in zip(work.checkpoints, work.outputs, strict=True):
            pruned = api.prune(path, parsed.method, **{**run_options(parsed, work), "output": target})
            if work.dry_run:
                print_result(pruned, work)
            elif pruned.history:
                print_notes(pruned.history[-1], f"{target.name}: " if len(work.outputs) > 1 else "")
                # It takes seconds for a large file, and tells nothing of a network that is only smaller.
                repeats = pruned.masked or "shared_values" in pruned.history[-1]
                rows += [_row(api.load(path), gzip=repeats), _row(pruned, gzip=True)]
        if rows:
            show(table(COLUMNS, rows))
        return work.result

    return training_step(
        parsed,
        "prune",
        run,
        lambda source: beside(source, f"-{slug(parsed.method)}.pt"),
        checkpoints=tuple(parsed.params["checkpoints"]),
        each=True,
    )


def _row(checkpoint: Any, *, gzip: bool) -> dict[str, Any]:
    from kdtool.models.size import measure
    from kdtool.utils.files import gzip_bytes
    from kdtool.utils.kinds import weights_file

    size, path = measure(checkpoint.network), checkpoint.path
    scores = checkpoint.metrics[-1] if checkpoint.metrics else {}
    return {
        "model": path.name,
        **{key: scores.get(key) for key in ("split", "error")},
        **size,
        "compression": checkpoint.compression(size["parameters"]),
        "file_bytes": weights_file(path).stat().st_size,
        "gzip_bytes": gzip_bytes(weights_file(path)) if gzip else None,
    }


command = StepCommand(
    "prune",
    plan,
    kind="pruners",
    default="magnitude",
    params=[checkpoints(), *output_options("CHECKPOINT-METHOD.pt"), track_option(), processes_option()],
    groups=[DATA, TRAINING, TIME],
    help="Prune a trained network and retrain it. Several checkpoints are pruned one after another.",
    epilog=EXAMPLES,
)
