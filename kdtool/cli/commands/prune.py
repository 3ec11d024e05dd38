"""``kdtool prune``: what is left over in a network removed, and the rest retrained; or in several, one by one."""

from __future__ import annotations

from typing import Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import DATA, TRAINING, checkpoints, output
from kdtool.cli.output import MODELS, table, tell_notes
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


def plan(given: Given) -> ChainStep:
    """Plan the step."""

    def run(work: Work) -> str | None:
        from kdtool import api

        rows = []
        for path, target in zip(work.checkpoints, work.outputs, strict=True):
            told: dict[str, Any] = {"output": target, "force": work.force, "resume": work.resume}
            made = api.prune(path, given.method, **told, **given.options)
            if made.history:
                tell_notes(made.history[-1], f"{target.name}: " if len(work.outputs) > 1 else "")
                rows += [_row(api.load(path)), _row(made, gzip=True)]
        if rows:
            click.echo(table(COLUMNS, rows), err=True)
        return work.result

    return ChainStep(
        "prune",
        run,
        checkpoints=tuple(given.params["checkpoints"]),
        each=True,
        output=lambda source: given.params["output"] or beside(source, f"-{slug(given.method)}.pt"),
        hands_on=True,
        force=given.params["force"],
        resume=given.params["resume"],
        resumable=True,
    )


def _row(checkpoint: Any, *, gzip: bool = False) -> dict[str, Any]:
    from kdtool.models.size import measure
    from kdtool.utils.files import gzip_bytes

    size, path = measure(checkpoint.network), checkpoint.path
    scores = checkpoint.metrics[-1] if checkpoint.metrics else {}
    return {
        "model": path.name,
        **{key: scores.get(key) for key in ("split", "error")},
        **size,
        "compression": checkpoint.compression(size["parameters"]),
        "file_bytes": path.stat().st_size,
        # Of what went in nobody asks it, and it takes seconds of a large file.
        "gzip_bytes": gzip_bytes(path) if gzip else None,
    }


command = StepCommand(
    "prune",
    plan,
    kind="pruners",
    default="magnitude",
    params=[checkpoints(), *output("CHECKPOINT-METHOD.pt")],
    groups=[DATA, TRAINING],
    help="Remove what is left over in a trained network and retrain the rest; of several checkpoints, in each.",
    epilog=EXAMPLES,
)
