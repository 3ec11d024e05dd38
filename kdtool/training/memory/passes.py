"""In how many passes a step fits into the memory of a device, found by taking a few steps."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import nn

from kdtool.errors import Error, first_line
from kdtool.training.callback import Callback
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH
from kdtool.training.loop import Loop
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan
from kdtool.training.sharing.shares import FEWEST
from kdtool.utils.files import read_text, write_text
from kdtool.utils.processes import count
from kdtool.utils.strict_json import dumps

if TYPE_CHECKING:
    from kdtool.data.splits import Data
    from kdtool.training.history_entry import HistoryEntry
    from kdtool.training.step import Step

Result = TypeVar("Result")

PASSES = "passes.json"
"""The file of a phase with the number of passes that was found, so that a resumed phase takes as many."""

# The second step has the state that the first one gave the optimiser; the third is one more.
TRIED = 3


class Trains(Protocol):
    """What is needed of a run."""

    training: Training
    entry: HistoryEntry

    @property
    def data(self) -> Data:
        """The data set."""

    def record(self, **facts: Any) -> None:
        """Add facts to the history."""

    def tell_once(self, line: str) -> None:
        """Print a line unless it was printed before."""


class _Few(Callback):
    """Ends a phase after a few steps."""

    reads_step = False
    recordable = True

    def __init__(self) -> None:
        self.count = 0

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Count the step."""
        self.count += 1
        self.over = self.count >= TRIED


class _NoStore:
    """Keeps nothing of a phase."""

    def load(self) -> None:
        """Return no state."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save nothing."""

    def log(self, row: dict[str, Any]) -> None:
        """Log nothing."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device has too little memory; MPS has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


def more_passes(batch_size: int, passes: int) -> int | None:
    """Return the next number of passes: at least twice as many, of equal size; None if there is none.

    Each pass has at least `FEWEST` images.
    """
    larger = range(2 * passes, batch_size // FEWEST + 1)
    return next((number for number in larger if batch_size % number == 0), None)


def try_steps(plan: FitPlan, module: nn.Module, data: Data, callbacks: Sequence[Callback]) -> None:
    """Take a few steps of a phase and validate, on copies of the student's module, the objective and the callbacks."""
    training = plan.training
    tried = copy.copy(plan)
    # Copied together, what they share (a memory that the loss reads and a callback fills) stays one object.
    module, tried.objective, copies = copy.deepcopy((module, plan.objective, list(callbacks)))
    short = dataclasses.replace(data, val=data.val.first(VALIDATION_BATCH))
    engine = engine_for(training, training.batch_size, *plan.networks)
    train, val = tried.batches(short, engine, None)
    student = tried.student_module(module)
    Loop(student, tried, train, val, engine, _NoStore(), [*copies, _Few()]).run()


def in_passes(plan: FitPlan, passes: int) -> FitPlan:
    """Return the plan of a phase with a number of passes; it keeps its key, which is that of what was asked for."""
    changed = copy.copy(plan)
    vars(changed)["key"] = plan.key
    changed.training = dataclasses.replace(plan.training, accumulate=passes)
    return changed


def first_that_fits(plan: FitPlan, attempt: Callable[[FitPlan], Result]) -> tuple[FitPlan, Result]:
    """Return the plan with as many passes as ``attempt`` needs to have enough memory, and what it returns.

    ``attempt`` is called again, with more passes of fewer images, for as long as the memory does not suffice.

    Raises:
        Error: the memory does not even suffice for the smallest passes.
    """
    while True:
        try:
            return plan, attempt(plan)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        # The exception is gone by now, and with it the frames that held the batch.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        training = plan.training
        passes = more_passes(training.batch_size, training.accumulate)
        if passes is None:
            raise Error(
                f"{plan.name}: the memory does not suffice for {training.batch_size // training.accumulate} images at "
                f"once ({reason}); try --checkpoint-activations, smaller images or a smaller network"
            )
        plan = in_passes(plan, passes)


@contextlib.contextmanager
def memory_explained(plan: FitPlan) -> Iterator[None]:
    """Tell in a line what to do if a training in the block runs out of memory.

    Raises:
        Error: it did.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        training = plan.training
        images, passes = int(training.batch_size), more_passes(training.batch_size, training.accumulate)
        fewer = f"--accumulate {passes}, " if passes else ""
        auto = "" if training.batch_size.auto or count() > 1 else f"--batch-size auto:{images}, "
        raise Error(
            f"{plan.name}: the memory does not suffice for {images // training.accumulate} images at once "
            f"({first_line(error)}); try {auto}{fewer}--checkpoint-activations or smaller images"
        ) from error


def fitted(
    run: Trains, plan: FitPlan, module: nn.Module, callbacks: Sequence[Callback], kept: Path, device: torch.device
) -> FitPlan:
    """Return the plan with the passes that ``--batch-size auto`` finds; they are kept in the directory ``kept``.

    A phase that is resumed takes what was kept, whatever the memory is now. It is for one process alone.

    Raises:
        Error: the memory does not even suffice for the smallest passes.
    """
    training = plan.training
    if not training.batch_size.auto:
        return plan
    images, passes = int(training.batch_size), kept_passes(kept)
    if passes is not None:
        plan = in_passes(plan, passes)
    elif not is_limited(device):
        run.tell_once(f"--batch-size auto: {images} images per step; on the CPU they are not divided")
    else:
        plan, _ = first_that_fits(plan, lambda tried: try_steps(tried, module, run.data, callbacks))
        passes = plan.training.accumulate
        if passes > training.accumulate:
            run.tell_once(
                f"--batch-size auto: {device.type} has no memory for {images} images at once; {plan.name} takes a step "
                f"in {passes} passes of {images // passes}, as with --accumulate {passes}"
            )
        kept.mkdir(parents=True, exist_ok=True)
        write_text(kept / PASSES, dumps({"accumulate": passes}) + "\n")
    record_passes(run, plan.name, passes)
    return plan


def record_passes(run: Trains, name: str, passes: int | None) -> None:
    """Record in the history in how many passes a phase takes its steps, where this was found and not asked for."""
    if run.training.batch_size.auto and passes is not None and passes > run.training.accumulate:
        run.record(passes={**run.entry.facts.get("passes", {}), name: passes})


def is_limited(device: torch.device) -> bool:
    """Return whether a device has a memory of its own, which a batch may not fit into."""
    return device.type != "cpu"


def kept_passes(directory: Path) -> int | None:
    """Return the number of passes that was found for the phase of a directory; None if none was, or it is damaged."""
    try:
        passes = json.loads(read_text(directory / PASSES))["accumulate"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return passes if isinstance(passes, int) and passes > 0 else None
