"""``kdtool distill``: a student taught by a teacher."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kdtool.cli.chain import ChainStep, Work, check_file
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import DATA, TRAINING, checkpoints, find_network, output
from kdtool.cli.method_options import Section
from kdtool.cli.output import tell_result
from kdtool.distillation.distiller import Distiller
from kdtool.distillation.options import SearchOptions, StudentOptions
from kdtool.models.options import NetworkOptions
from kdtool.plugins.registry import method_class
from kdtool.utils.files import beside, slug

EXAMPLES = """
\b
Examples:
  kdtool distill --method ikd --iters 4 teacher.pt
  kdtool distill teacher.pt --student timm:resnet18 --method kd
  kdtool distill teacher.pt --refiner depth --keep 1,1,2,2
  kdtool distill teacher.pt --refiner halve --method kd:0.9+at:1000
  kdtool distill teacher.pt --refiner halve --search temperature=1,2,4,8
  kdtool distill a.pt b.pt c.pt --method ensemble --student timm:resnet18
  kdtool distill --method ikd --iters 4 teacher.pt prune --ratio 0.8 export --onnx
"""


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    student, method, paths = given.options.get("student"), given.method_class, given.params["checkpoints"]
    assert method is not None
    assert issubclass(method, Distiller)
    # A strategy may have a refiner of its own, which does not make the student.
    own = method.describe()
    refined = "refiner" in given.options and "refiner" not in [info.name for info in own]
    method.check_student(named=student is not None, refined=refined)
    if len(paths) > 1:
        for path in paths:
            check_file(path)
        method.check_teachers(len(paths))
    if (search := given.options.get("search")) is not None:
        search.settings(method, {info.name: given.options[info.name] for info in own if info.name in given.options})
    # A student is a file unless it is written as SOURCE:NAME.
    file = student is not None and (":" not in student or Path(student).exists())
    if student is not None and not file:
        method_class("teachers", student.partition(":")[0])

    def run(work: Work) -> str | None:
        from kdtool import api

        told: dict[str, Any] = {"output": work.output, "force": work.force, "resume": work.resume}
        teachers = work.checkpoints if len(work.checkpoints) > 1 else work.checkpoints[0]
        tell_result(api.distill(teachers, given.method, **told, **given.options))
        return work.result

    return ChainStep(
        "distill",
        run,
        checkpoints=paths,
        least=2 if method.several_teachers else 1,
        most=None if method.several_teachers else 1,
        output=lambda source: given.params["output"] or beside(source, f"-{slug(given.method)}.pt"),
        hands_on=True,
        force=given.params["force"],
        resume=given.params["resume"],
        resumable=True,
        files=(Path(student),) if student is not None and file else (),
        slow_check=partial(find_network, student) if student is not None and not file else None,
    )


command = StepCommand(
    "distill",
    plan,
    kind="distillers",
    default="kd",
    params=[checkpoints("[TEACHER]..."), *output("TEACHER-METHOD.pt")],
    groups=[
        Section("Student", StudentOptions),
        Section("Student", NetworkOptions, only=("stem",)),
        DATA,
        TRAINING,
        Section("Training", SearchOptions),
    ],
    help="Teach a student. Its data is the teacher's, unless --data says otherwise.",
    epilog=EXAMPLES,
)
