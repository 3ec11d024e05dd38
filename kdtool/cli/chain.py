"""The steps of a command line: checked together before the first one runs, then run in order."""

from __future__ import annotations

import contextlib
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from kdtool.cli.stdin import piped_paths
from kdtool.errors import Error, UsageError, nearest


@dataclass(frozen=True)
class Work:
    """What a step works on, known when all steps are planned."""

    checkpoints: tuple[Path, ...]
    outputs: tuple[Path, ...]
    """What it writes: a file, or none, or one for each of the checkpoints."""
    force: bool
    resume: bool
    last: bool
    """Whether no step follows, so that the result goes to stdout."""

    @property
    def output(self) -> Path | None:
        """The file that it writes, the first where there are several."""
        return self.outputs[0] if self.outputs else None

    @property
    def result(self) -> str | None:
        """What a producing step prints: the path of its file, when it is the last."""
        return "\n".join(map(str, self.outputs)) if self.last else None


@dataclass(frozen=True)
class ChainStep:
    """One command with its options checked, ready to run.

    ``run`` returns what goes to stdout; all else that is printed goes to stderr.
    """

    name: str
    run: Callable[[Work], str | None]
    checkpoints: tuple[Path, ...] = ()
    """Those given as arguments."""
    least: int = 1
    most: int | None = 1
    """How many checkpoints it takes; None is any number."""
    each: bool = False
    """It takes more of them where no step stands beside it, and does the same to each."""
    output: Callable[[Path], Path] | None = None
    """The file that it writes, by the checkpoint it works on (of no meaning to a first step that works on none)."""
    suffix: str = ".pt"
    hands_on: bool = False
    """The next step takes its output, and not the checkpoint that it took itself."""
    force: bool = False
    resume: bool = False
    resumable: bool = False
    """It has a run that goes on where it was cut; another step is done again."""
    directories: bool = False
    """It takes the directories of runs and studies too."""
    files: tuple[Path, ...] = ()
    """More files that it reads."""
    slow_check: Callable[[], None] | None = None
    """A check that may import a library, for a step that others come before."""


class InterruptedStep(Error):
    """Ctrl-C while a step ran."""

    exit_code = 130


class PartlyDone(Error):
    """A step that failed in part: what it has goes to stdout all the same."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


def run_chain(steps: Sequence[ChainStep], *, debug: bool = False) -> None:
    """Plan all steps, then run them; ``debug`` shows the warnings that libraries have for developers.

    Raises:
        Error: something is wrong with a step; none has run where that can be seen beforehand.
    """
    works = plan(steps)
    for step, work in zip(steps, works, strict=True):
        try:
            with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")
                text = _run(step, work)
        except PartlyDone as error:
            click.echo(error.text)
            raise
        if text is not None:
            click.echo(text)
        if step.hands_on and not work.last:
            click.echo(f"{step.name}: {work.output}", err=True)


def _run(step: ChainStep, work: Work) -> str | None:
    try:
        return step.run(work)
    except KeyboardInterrupt as interrupt:
        way_out = "; the same command with --resume goes on where it was cut" if step.resumable else ""
        raise InterruptedStep(f"{step.name} was interrupted{way_out}") from interrupt


def plan(steps: Sequence[ChainStep]) -> list[Work]:
    """Return what every step works on and writes; nothing is written yet.

    Raises:
        Error: a checkpoint is missing, an output is in the way, or a step stands where it cannot.
    """
    _check_order(steps)
    resume = any(step.resume for step in steps)
    previous: Path | None = None
    works: list[Work] = []
    for step in steps:
        first, last = not works, len(works) == len(steps) - 1
        given = _inputs(steps) if first else (*step.checkpoints, *([previous] if previous else []))
        for path in (*step.checkpoints, *step.files):
            _check_given(step, path)
        # In a chain that is resumed, what cannot be cut is made again.
        force = step.force or (resume and not step.resumable and len(steps) > 1)
        outputs = _outputs(step, given)
        for output in outputs:
            if output in [one for work in works for one in work.outputs]:
                raise UsageError(f"{output}: two steps would write it; name another with -o")
            check_target(output, step.suffix, force=force, resume=resume and step.resumable)
        if len(outputs) > 1 and not last:
            raise UsageError(f"{step.name} makes {len(outputs)} checkpoints of these, and no step can follow")
        works.append(Work(given, outputs, force, resume, last))
        previous = outputs[0] if step.hands_on else given[-1] if given else None
    # Only now, since these may take seconds; the first step's own come at once when it runs.
    for step in steps[1:]:
        if step.slow_check is not None:
            step.slow_check()
    return works


def _outputs(step: ChainStep, given: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files that a step writes."""
    if step.output is None:
        return ()
    if not step.each or len(given) < 2:
        return (step.output(given[0] if given else Path()),)
    outputs = tuple(map(step.output, given))
    if len({*outputs}) < len(outputs):
        raise UsageError(f"{step.name}: of {len(given)} checkpoints two would become one file; leave out -o")
    return outputs


def _check_order(steps: Sequence[ChainStep]) -> None:
    for before, step in itertools.pairwise(steps):
        given = len(step.checkpoints) + 1
        if step.most == 0:
            raise UsageError(f"{step.name} begins a chain: it takes no checkpoint from {before.name}")
        if step.most is not None and given > step.most:
            others = " ".join(map(str, step.checkpoints))
            raise UsageError(f"{step.name} takes the checkpoint that {before.name} makes; leave out {others}")
        if given < step.least:
            raise UsageError(f"{step.name} takes {_count(step.least)}: that of {before.name}, and one that you name")


def _inputs(steps: Sequence[ChainStep]) -> tuple[Path, ...]:
    """Return the checkpoints of the first step, from its arguments or from a pipe."""
    step = steps[0]
    given = step.checkpoints
    if len(given) < step.least:
        following = steps[1].name if len(steps) > 1 else ""
        given = (*given, *piped_paths(_no_checkpoint(step, following)))
    if step.most is not None and len(given) > step.most and not step.each:
        raise UsageError(f"{step.name} takes {_count(step.most)}, not {len(given)}: {', '.join(map(str, given))}")
    if len(given) < step.least:
        raise UsageError(_no_checkpoint(step, ""))
    for path in given:
        _check_given(step, path)
    return given


def _check_given(step: ChainStep, path: Path) -> None:
    if not (step.directories and path.is_dir()):
        check_file(path)


def _count(number: int) -> str:
    return "one checkpoint" if number == 1 else f"{number} checkpoints"


def _no_checkpoint(step: ChainStep, following: str) -> str:
    some = "no checkpoint" if step.least == 1 else f"{_count(step.least)}, not {len(step.checkpoints)}"
    # The words may have been cut where the user meant a file.
    hint = f"; the file {following} is written ./{following}" if Path(following).is_file() else ""
    return (
        f"{step.name}: {some} given. Name it (kdtool {step.name} FILE), put the step that makes it before this one "
        f"(kdtool distill FILE {step.name}), or pipe it in (kdtool distill FILE | kdtool {step.name}){hint}"
    )


def check_file(path: Path) -> None:
    """Raise `UsageError` where a file that a step reads is missing; names near to it are told."""
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file in it")
    if not path.exists():
        near = [found.name for found in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        if path.name == str(path):  # a word that should have begun the next step
            context = click.get_current_context(silent=True)
            root = context.find_root() if context else None
            near += root.command.list_commands(root) if root and isinstance(root.command, click.Group) else []
        raise UsageError(f"{path}: there is no such file{nearest(path.name, near, count=1)}")


def check_target(output: Path, suffix: str, *, force: bool, resume: bool) -> None:
    """Check that a step can write its file, and that no earlier run of it is in the way.

    Raises:
        UsageError: it cannot.
    """
    from kdtool.training.run_directory import directory_of
    from kdtool.utils.files import check_output

    if output.suffix != suffix:
        raise UsageError(f"-o {output}: the name of this file ends in {suffix}")
    earlier = directory_of(output)
    if resume and earlier.exists():
        return
    check_output(output, force=force)
    if suffix == ".pt" and earlier.exists() and not force:
        raise UsageError(f"{earlier}: holds an earlier run; go on with --resume, or start anew with --force")
