"""``kdtool distill``: train a student with a teacher."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kdtool.cli.chain import ChainStep, Work, check_file
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import DATA, TRAINING, check_network, checkpoints, output_options
from kdtool.cli.method_options import Section
from kdtool.cli.output import print_result
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


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    student, method, paths = parsed.options.get("student"), parsed.method_class, parsed.params["checkpoints"]
    assert method is not None
    assert issubclass(method, Distiller)
    # A strategy may have its own option ``refiner``, which then does not define the student.
    own = method.describe()
    refined = "refiner" in parsed.options and "refiner" not in [info.name for info in own]
    method.check_student(named=student is not None, refined=refined)
    if len(paths) > 1:
        for path in paths:
            check_file(path)
        method.check_teachers(len(paths))
    if (search := parsed.options.get("search")) is not None:
        search.settings(method, {info.name: parsed.options[info.name] for info in own if info.name in parsed.options})
    # A student with a colon is SOURCE:NAME, unless a file of that name exists; without a colon it is a file.
    is_file = student is not None and (":" not in student or Path(student).exists())
    if student is not None and not is_file:
        method_class("teachers", student.partition(":")[0])

    def run(work: Work) -> str | None:
        from kdtool import api

        run_options: dict[str, Any] = {"output": work.output, "force": work.force, "resume": work.resume}
        teachers = work.checkpoints if len(work.checkpoints) > 1 else work.checkpoints[0]
        print_result(api.distill(teachers, parsed.method, **run_options, **parsed.options))
        return work.result

    return ChainStep(
        "distill",
        run,
        checkpoints=paths,
        min_checkpoints=2 if method.several_teachers else 1,
        max_checkpoints=None if method.several_teachers else 1,
        output=lambda source: parsed.params["output"] or beside(source, f"-{slug(parsed.method)}.pt"),
        makes_checkpoint=True,
        force=parsed.params["force"],
        resume=parsed.params["resume"],
        resumable=True,
        files=(Path(student),) if student is not None and is_file else (),
        slow_check=partial(check_network, student) if student is not None and not is_file else None,
    )


command = StepCommand(
    "distill",
    plan,
    kind="distillers",
    default="kd",
    params=[checkpoints("[TEACHER]..."), *output_options("TEACHER-METHOD.pt")],
    groups=[
        Section("Student", StudentOptions),
        Section("Student", NetworkOptions, only=("stem",)),
        DATA,
        TRAINING,
        Section("Training", SearchOptions),
    ],
    help="Train a student with a teacher, on the data of the teacher unless --data is given.",
    epilog=EXAMPLES,
)
