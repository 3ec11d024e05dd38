"""``kdtool distill``: train a student with a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import (
    DATA,
    TIME,
    TRAINING,
    as_network,
    check_network,
    checkpoints,
    output_options,
    run_options,
    track_option,
    training_step,
)
from kdtool.cli.files import check_file
from kdtool.cli.method_options import Section
from kdtool.cli.output import print_result
from kdtool.cli.several_processes import processes_option
from kdtool.cli.work import Work
from kdtool.distillation.distiller import Distiller
from kdtool.distillation.options import SearchOptions, StudentOptions, check_stem
from kdtool.errors import UsageError
from kdtool.models.options import NetworkOptions
from kdtool.plugins.entry_points import names
from kdtool.plugins.network_spec import source_of
from kdtool.training.side_by_side.placement import Placement
from kdtool.utils.files import beside, slug
from kdtool.utils.kinds import check_checkpoint

EXAMPLES = """
\b
Examples:
  kdtool distill --method ikd --iters 4 teacher.pt
  kdtool distill teacher.pt --student timm:resnet18 --method kd
  kdtool distill teacher.pt --refiner depth --keep 1,1,2,2
  kdtool distill teacher.pt --refiner halve --method kd:0.9+at:1000
  kdtool distill teacher.pt --refiner halve --search temperature=1,2,4,8
  kdtool distill a.pt b.pt c.pt --method ensemble --student timm:resnet18
  kdtool distill teacher.onnx --student timm:resnet18 --method kd --data folder:photos
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
    if student is None:
        _check_words(paths, method)
    if len(paths) > 1:
        for path in paths:
            check_file(path)
        method.check_teachers(len(paths))
    method.check_student(named=student is not None, refined=refined)
    check_stem(parsed.options.get("stem"), made=student is None)
    method.check_precision(parsed.options.get("quantize", "off"))
    if (search := parsed.options.get("search")) is not None:
        search.settings(method, {info.name: parsed.options[info.name] for info in own if info.name in parsed.options})
    # A student with a colon is SOURCE:NAME, unless a file of that name exists; without a colon it is a file.
    is_file = student is not None and (":" not in student or Path(student).exists())
    if student is not None and not is_file:
        source_of(student)
    elif student is not None:
        check_student_file(student)

    def run(work: Work) -> str | None:
        from kdtool import api

        teachers = work.checkpoints if len(work.checkpoints) > 1 else work.checkpoints[0]
        print_result(api.distill(teachers, parsed.method, **run_options(parsed, work)), work)
        return work.result

    return training_step(
        parsed,
        "distill",
        run,
        lambda source: beside(source, f"-{slug(parsed.method)}.pt"),
        checkpoints=paths,
        min_checkpoints=2 if method.several_teachers else 1,
        max_checkpoints=None if method.several_teachers else 1,
        onnx=True,
        files=(Path(student),) if student is not None and is_file else (),
        slow_check=partial(check_network, student) if student is not None and not is_file else None,
    )


def _check_words(paths: Sequence[Path], method: type[Distiller]) -> None:
    """Check that no word that stands for a teacher is meant to be the student.

    Raises:
        UsageError: one is the name of a network; or there are two checkpoints, and the method has one teacher.
    """
    for path in paths:
        if str(path).partition(":")[0] in names("teachers") and not path.exists() and len(paths) > 1:
            raise UsageError(f"distill: {path} is a network; if it is the student, write --student {path}")
    if len(paths) == 2 and all(path.exists() for path in paths):
        try:
            method.check_teachers(2)
        except UsageError as error:
            raise UsageError(f"{error}; if {paths[1]} is the student, write --student {paths[1]}") from error


def check_student_file(student: str) -> None:
    """Check that a student without a colon is a file.

    Raises:
        UsageError: it is an ONNX file, a method or the name of a network without its source.
    """
    path = Path(student)
    check_checkpoint(path)
    if path.exists() or path.suffix or path.name != student:
        return
    if student in names("refiners"):
        raise UsageError(f"--student {student}: is a refiner; write --refiner {student}")
    raise UsageError(f"--student {student}: there is no such file; {as_network(student)}")


command = StepCommand(
    "distill",
    plan,
    kind="distillers",
    default="kd",
    params=[checkpoints("[TEACHER]..."), *output_options("TEACHER-METHOD.pt"), track_option(), processes_option()],
    groups=[
        Section("Student", StudentOptions),
        Section("Student", NetworkOptions, only=("stem",)),
        DATA,
        TRAINING,
        TIME,
        Section("Training", SearchOptions),
        Section("Cluster", Placement),
    ],
    help="Train a student with a teacher, on the data of the teacher unless --data is given.",
    epilog=EXAMPLES,
)
