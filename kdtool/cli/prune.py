"""``kdtool prune``: what is left over in a network removed, and the rest retrained."""

from __future__ import annotations

from typing import Any

from kdtool.cli.chain import Step, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import DATA, TRAINING, checkpoint, output
from kdtool.cli.output import tell_result
from kdtool.files import beside

EXAMPLES = """
\b
Examples:
  kdtool prune student.pt --ratio 0.8
  kdtool prune student.pt --ratio 0.9 --epochs 5 --no-teacher
  kdtool distill --method ikd teacher.pt | kdtool prune --ratio 0.8 | kdtool export --onnx
"""


def plan(given: Given) -> Step:
    """Plan the step."""
    path = given.params["checkpoint"]

    def run(work: Work) -> str | None:
        from kdtool import api

        told: dict[str, Any] = {"output": work.output, "force": work.force, "resume": work.resume}
        tell_result(api.prune(work.checkpoints[0], given.method, **told, **given.options))
        return work.result

    return Step(
        "prune",
        run,
        checkpoints=(path,) if path else (),
        output=lambda source: given.params["output"] or beside(source, f"-{given.method}.pt"),
        hands_on=True,
        force=given.params["force"],
        resume=given.params["resume"],
        resumable=True,
    )


command = StepCommand(
    "prune",
    plan,
    kind="pruners",
    default="magnitude",
    params=[checkpoint(), *output("CHECKPOINT-METHOD.pt")],
    groups=[DATA, TRAINING],
    help="Remove what is left over in a trained network and retrain the rest.",
    epilog=EXAMPLES,
)
