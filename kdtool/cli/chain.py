"""Check all steps of a command line before the first one runs, then run them in order."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtool.cli import several_processes
from kdtool.cli.dry_run import dry_works, is_dry
from kdtool.cli.early import check_early
from kdtool.cli.files import check_file, check_target, has_begun
from kdtool.cli.launcher import by_first, check, repeats
from kdtool.cli.process import exit_code_of, print_result
from kdtool.cli.stdin import piped_paths
from kdtool.cli.work import Work
from kdtool.errors import Error, UsageError
from kdtool.plugins.containment import contained
from kdtool.plugins.trust import remember_typed
from kdtool.utils.kinds import check_checkpoint
from kdtool.utils.processes import is_first
from kdtool.utils.progress import say
from kdtool.utils.verbosity import announcing


@dataclass(frozen=True)
class ChainStep:
    """One command with its options checked, ready to run.

    The text that ``run`` returns is printed on stdout; everything else that is printed while it runs goes to stderr.
    """

    name: str
    run: Callable[[Work], str | None]
    checkpoints: tuple[Path, ...] = ()
    """The checkpoints among the arguments."""
    min_checkpoints: int = 1
    max_checkpoints: int | None = 1
    """The largest number of checkpoints that it takes; None means any number."""
    each: bool = False
    """It can take more checkpoints than that if no step follows, and handles each of them separately."""
    output: Callable[[Path], Path] | None = None
    """Return the file that it writes for a checkpoint; a step without a checkpoint ignores the argument."""
    suffix: str = ".pt"
    without_files: str = ""
    """The message for a step that got no file, in place of the usual one."""
    endings: tuple[str, ...] = ()
    """How files end that it may write beside its output."""
    check_target: Callable[[Path, bool, Path], None] | None = None
    """Checks a path that it writes, and whether it may replace it, for a checkpoint that may not be there yet; in place
    of the check of a single file."""
    makes_checkpoint: bool = False
    """Its output is a checkpoint, which the next step takes; after any other step, the next one takes its input."""
    force: bool = False
    resume: bool = False
    resumable: bool = False
    """An interrupted run can be continued; other steps are repeated."""
    recognises: bool = False
    """With ``--resume`` it leaves a file as it is that the same command made, and refuses any other."""
    onnx: bool = False
    """It also takes ONNX files."""
    directories: bool = False
    """It also takes the directories of runs and studies."""
    files: tuple[Path, ...] = ()
    """Other files that it reads."""
    dry_run: bool = False
    """Train nothing in the whole chain, and say what it would do and cost."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was typed for options that are not a method's own, by name; `check_early` looks at these of all steps."""
    early_check: Callable[[], None] | None = None
    """A further check that needs no library; all steps are checked before the first one imports any."""
    slow_check: Callable[[], None] | None = None
    """A check that may import a library; it is made in advance only if the step is not the first."""
    processes: several_processes.Wanted | None = None
    """The processes in which the whole chain runs; None: in this one."""


class InterruptedStep(Error):
    """The user interrupted a step with Ctrl-C, or another program with a signal."""

    def __init__(self, message: str, interrupt: BaseException) -> None:
        super().__init__(message)
        self.exit_code = exit_code_of(interrupt)


class PartlyDone(Error):
    """A step failed in part; ``text`` is its result so far, which is still printed on stdout."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


def run_chain(steps: Sequence[ChainStep], words: Sequence[str] = (), *, debug: bool = False) -> None:
    """Plan all steps, then run them; ``debug`` shows the warnings of libraries.

    ``words`` are those of the command line: with ``--processes`` other processes run it.

    Raises:
        Error: a step is wrong or fails; if the plan shows it, no step has run.
    """
    check(step.name for step in steps)
    if not is_first() and _training_device(steps) is None:
        return  # the first process does all, and need not wait; its files are there already if it was faster
    dry = is_dry([step.settings for step in steps])
    processes = several_processes.in_chain((step.name, step.processes) for step in steps)
    works = plan(steps)
    for step in steps:
        check_early(step.settings)
        if step.early_check is not None:
            step.early_check()
    if not dry:
        remember_typed()
    if processes is not None:
        piped = () if steps[0].checkpoints else works[0].checkpoints
        if several_processes.trained(processes, words, piped):
            return
        if processes.number is None:  # a trial may have begun
            works = plan(steps, works[0].checkpoints)
    with announcing(), dry_works(works, dry=any(step.dry_run for step in steps)) as ready:
        _run_all(steps, ready, debug=debug)


def _training_device(steps: Sequence[ChainStep]) -> str | None:
    """Return the ``--device`` of the first of the steps that trains; None if none does."""
    return next((step.settings.get("device", "auto") for step in steps if step.resumable), None)


def _run_all(steps: Sequence[ChainStep], works: Sequence[Work], *, debug: bool) -> None:
    for number, (step, work) in enumerate(zip(steps, works, strict=True), start=1):
        if work.dry_run and not step.makes_checkpoint:
            say(f"{step.name}: is left out of the dry run")
            continue
        try:
            with contained(), warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")
                text = _run(step, work, _training_device(steps[number:]))
        except PartlyDone as error:
            print_result(error.text)
            raise
        if text is not None and not work.dry_run:
            print_result(text)
        if step.makes_checkpoint and not work.last and not work.dry_run:
            say(f"{step.name}: {work.output}")


def _run(step: ChainStep, work: Work, device: str | None) -> str | None:
    """Run a step; ``device`` is that of the next training, None if there is none."""
    try:
        if step.resumable or work.dry_run:  # in a dry run each process has files of its own
            return step.run(work)
        return by_first(lambda: step.run(work), device)
    except KeyboardInterrupt as interrupt:
        raise InterruptedStep(f"{step.name} was interrupted{_way_on(step, work)}", interrupt) from interrupt


def _way_on(step: ChainStep, work: Work) -> str:
    """Return how an interrupted step goes on."""
    from kdtool.training.run_directory import directory_of, has_progress

    if not step.resumable or work.output is None:
        return ""
    # Of several checkpoints the earlier ones may be finished: their runs hold no weights, their results are there.
    if any(has_progress(directory_of(output)) for output in work.outputs) or any(
        has_begun(output, recognised=False) and output.exists() for output in work.outputs[:-1]
    ):
        return "; run the same command with --resume to continue"
    return " before anything was saved"


def plan(steps: Sequence[ChainStep], inputs: Sequence[Path] | None = None) -> list[Work]:
    """Return the inputs and outputs of every step; nothing is written yet.

    ``inputs`` are the checkpoints of the first step if the chain was planned before and has begun.

    Raises:
        Error: a checkpoint is missing, an output exists already, or a step cannot stand at its place.
    """
    _check_order(steps)
    resume = any(step.resume for step in steps)
    previous: Path | None = None
    works: list[Work] = []
    begun = False
    for step in steps:
        first, last = not works, len(works) == len(steps) - 1
        checkpoints = (*step.checkpoints, *([previous] if previous else []))
        if first:
            checkpoints = _inputs(steps) if inputs is None else (*inputs,)
        for path in (*step.checkpoints, *step.files):
            _check_input(step, path)
        # In a chain that was begun, also by a trial, steps that cannot be continued are repeated.
        again = (resume and begun and not step.recognises) or inputs is not None or repeats()
        force = step.force or (again and not step.resumable and len(steps) > 1)
        outputs = _outputs(step, checkpoints)
        later = resume and step.recognises  # it looks at the file when it runs
        for output in outputs:
            if _placed(output) in [_placed(earlier) for work in works for earlier in work.outputs]:
                raise UsageError(f"{output}: two steps would write this file; choose another name with -o")
            if step.check_target is not None:
                step.check_target(output, force or (later and output.exists()), checkpoints[0])
            else:
                check = force or (later and output.is_file())
                may_go_on = resume and step.resumable
                check_target(output, step.suffix, force=check, resume=may_go_on, endings=step.endings)
        begun = begun or any(has_begun(output, recognised=step.recognises) for output in outputs)
        if len(outputs) > 1 and not last:
            raise UsageError(
                f"{step.name} writes {len(outputs)} checkpoints, so no step can follow; run the next command on each"
            )
        works.append(Work(checkpoints, outputs, force, resume, last))
        previous = outputs[0] if step.makes_checkpoint else checkpoints[-1] if checkpoints else None
    # Last, since these may take seconds; the first step makes the same checks when it runs.
    for step in steps[1:]:
        if step.slow_check is not None:
            step.slow_check()
    return works


def _placed(path: Path) -> Path:
    """Return a path in one spelling, since ``s.pt`` and ``../here/s.pt`` are one file; a link itself is replaced."""
    return path.parent.resolve() / path.name


def _outputs(step: ChainStep, checkpoints: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files that a step writes."""
    if step.output is None:
        return ()
    if not step.each or len(checkpoints) < 2:
        return (step.output(checkpoints[0] if checkpoints else Path()),)
    outputs = tuple(map(step.output, checkpoints))
    if len({*map(_placed, outputs)}) < len(outputs):
        raise UsageError(
            f"{step.name}: two of the {len(checkpoints)} outputs would have the same name; "
            "leave out -o, or rename a checkpoint"
        )
    return outputs


def _check_order(steps: Sequence[ChainStep]) -> None:
    for before, step in itertools.pairwise(steps):
        count = len(step.checkpoints) + 1
        if step.max_checkpoints == 0:
            raise UsageError(f"{step.name} can only be the first step: it takes no checkpoint from {before.name}")
        if step.max_checkpoints is not None and count > step.max_checkpoints:
            others = " ".join(map(str, step.checkpoints))
            raise UsageError(f"{step.name} takes the checkpoint of {before.name}; leave out {others}")
        if count < step.min_checkpoints:
            raise UsageError(
                f"{step.name} takes {_count(step.min_checkpoints)}: the one of {before.name} and one that you name"
            )


def _inputs(steps: Sequence[ChainStep]) -> tuple[Path, ...]:
    """Return the checkpoints of the first step, from its arguments or from stdin."""
    step = steps[0]
    checkpoints = step.checkpoints
    if len(checkpoints) < step.min_checkpoints:
        following = steps[1].name if len(steps) > 1 else ""
        checkpoints = (*checkpoints, *piped_paths(_no_checkpoint(step, following)))
    if step.max_checkpoints is not None and len(checkpoints) > step.max_checkpoints and not step.each:
        names = ", ".join(map(str, checkpoints))
        raise UsageError(f"{step.name} takes {_count(step.max_checkpoints)}, not {len(checkpoints)}: {names}")
    if len(checkpoints) < step.min_checkpoints:
        raise UsageError(_no_checkpoint(step, ""))
    for path in checkpoints:
        _check_input(step, path)
    return checkpoints


def _check_input(step: ChainStep, path: Path) -> None:
    if not (step.directories and path.is_dir()):
        check_file(path)
    if path in step.checkpoints and not step.onnx:
        check_checkpoint(path)


def _count(number: int) -> str:
    return "one checkpoint" if number == 1 else f"{number} checkpoints"


def _no_checkpoint(step: ChainStep, following: str) -> str:
    least = step.min_checkpoints
    if step.checkpoints and least == 2:
        only = step.checkpoints[0]
        return f"{step.name}: takes two files or more, and got one; name another: kdtool {step.name} {only} FILE"
    if step.without_files and not step.checkpoints:
        return step.without_files
    missing = "no checkpoint" if least == 1 else f"{_count(least)}, not {len(step.checkpoints)}"
    # The user may have meant a file with the name of a command.
    hint = f"; for the file {following} write ./{following}" if Path(following).is_file() else ""
    return (
        f"{step.name}: {missing} given. Name it (kdtool {step.name} FILE), put the step that makes it in front "
        f"(kdtool distill FILE {step.name}), or pipe it in (kdtool distill FILE | kdtool {step.name}){hint}"
    )
