"""Start a command line in several processes of this machine, through torch's elastic launcher (``--processes``).

The processes run the same command line, as under torchrun. Each writes its error into a file of its own, and this
process prints the one that caused the others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kdtool.cli import launcher
from kdtool.cli.process import BY_SIGNAL, SIGNALS, ReaderGone
from kdtool.errors import Error, UsageError
from kdtool.training.foresight.trial import VARIABLE, WORTH, Found, Trial, verdict
from kdtool.utils.files import read_text, temporary_folder, write_text
from kdtool.utils.processes import launched, usable_cores
from kdtool.utils.progress import say

AUTO = "auto"

# A command whose trainings are not known before it trains.
UNTIMED = "compress"

# The variables by which a launcher tells its processes about each other.
OF_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE")


class Ended(Error):
    """The processes ended with an error, which one of them said."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


@dataclass(frozen=True)
class Wanted:
    """The processes that a step asks for."""

    number: int | None
    """None: as many as are fastest."""
    device: str
    threads: int | None

    def __str__(self) -> str:
        return f"--processes {self.number or AUTO}"


def processes_option(*, auto: bool = True) -> click.Option:
    """Return the option ``--processes`` of a command that trains; ``auto`` is whether it can be timed beforehand."""

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
        if value is None or value == AUTO or ctx.resilient_parsing:
            return value
        if not value.isdecimal():
            raise UsageError(f"--processes {value}: is neither auto nor a number")
        if int(value) < 1:
            raise UsageError(f"--processes {value}: is out of range: at least 1")
        return int(value)

    return click.Option(
        ["--processes"],
        metavar="N|auto" if auto else "N",
        callback=parse,
        help="train in N processes on this machine, each with its share of the cores or a GPU; "
        + "auto: as many as are fastest, found by timing a few steps; " * auto
        + "applies to the whole chain",
    )


def wanted(params: Mapping[str, Any], options: Mapping[str, Any]) -> Wanted | None:
    """Return what a command asks for by its own parameters and its options; None without ``--processes``.

    Raises:
        UsageError: ``--ray`` was given too.
    """
    number = params.get("processes")
    if number is None:
        return None
    if options.get("ray") is not None:
        raise UsageError("--processes and --ray exclude each other; each task of a cluster is one process")
    return Wanted(None if number == AUTO else number, options.get("device", "auto"), options.get("threads"))


def in_chain(steps: Iterable[tuple[str, Wanted | None]]) -> Wanted | None:
    """Return the processes of a whole chain, which one of its steps may ask for; None for this process alone.

    ``steps`` are the names of the commands, and what each asks for.

    Raises:
        UsageError: two steps ask for different numbers, or another launcher has started this process.
    """
    named = list(steps)
    asked = [step for _, step in named if step is not None]
    if not asked or launcher.started_here():
        return None
    other = [step for step in asked if step.number != asked[0].number]
    if other:
        raise UsageError(f"{asked[0]} holds for the whole chain; leave out {other[0]}")
    if asked[0].number is None and UNTIMED in dict(named):
        raise UsageError(f"{asked[0]}: {UNTIMED} times its trainings itself; give a number")
    if any(name in os.environ for name in OF_LAUNCHERS):
        raise UsageError(
            f"{asked[0]}: another launcher started this process, one of {launched()}; leave out --processes, or "
            "torchrun"
        )
    return asked[0]


def trained(wanted: Wanted, words: Sequence[str], piped: Sequence[Path]) -> bool:
    """Run a command line in as many processes as are wanted; return False if this process is to run it alone.

    ``piped`` are the paths that this process has read from stdin. After a trial the steps that train nothing may have
    written their files; then the caller repeats them (`launcher.repeats`).

    Raises:
        UsageError: the machine does not have what the processes need.
        Error: a process failed, or this one was interrupted.
    """
    if wanted.number == 1:
        return False
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError(f"{wanted}: needs accelerate; pip install 'kdtool[distributed]'")
    most, cores = _most(wanted), usable_cores()
    if wanted.number is not None:
        _run(wanted.number, cores, words, piped)
        return True
    numbers = [2**power for power in range(1, most.bit_length()) if 2**power < most] + [most] * (most > 1)
    if _on_gpu(wanted):
        numbers = numbers[-1:]
    number, best, alone, line = 1, None, None, "trains in one process: there is nothing to share"
    for tried in numbers:
        trial = Trial("", alone, best, tried == numbers[-1], None if _fixed(wanted) else cores)
        found = _run(tried, cores, words, piped, trial, repeats=tried > 2)
        if found is None or found.goes_on:
            return True
        alone = found.alone
        if found.seconds is None:
            line = line if best else f"trains in one process: {found.reason}"
            break
        if (best or alone or 0) <= WORTH * found.seconds:
            if alone is not None and best is None:
                line = f"trains in one process: {tried} processes take {found.seconds / alone:.2f}x as long"
            break
        number, best, line = tried, found.seconds, verdict(tried, found.seconds, alone or 0)
    say(line)
    if number > 1:
        _run(number, cores, words, piped, repeats=True)
    return number > 1


def _most(wanted: Wanted) -> int:
    """Return how many processes this machine has room for.

    Raises:
        UsageError: it has room for fewer than are wanted.
    """
    if _on_gpu(wanted):
        import torch

        if not torch.cuda.is_available():
            raise UsageError(f"{wanted}: this GPU trains in one process; give --device cpu, or leave it out")
        gpus = torch.cuda.device_count()
        if wanted.number is not None and wanted.number > gpus:
            there = "there is one GPU" if gpus == 1 else f"there are {gpus} GPUs"
            raise UsageError(f"{wanted}: {there}, one for each process; give at most {gpus}, or --device cpu")
        return gpus
    return usable_cores() // (_fixed(wanted) or 1)


def _on_gpu(wanted: Wanted) -> bool:
    if wanted.device == "cpu":
        return False
    import torch

    return wanted.device != "auto" or torch.cuda.is_available() or torch.backends.mps.is_available()


def _fixed(wanted: Wanted) -> int | None:
    from kdtool.training.threads import fixed_threads

    return fixed_threads(wanted.threads)


def _run(
    number: int,
    cores: int,
    words: Sequence[str],
    piped: Sequence[Path],
    trial: Trial | None = None,
    *,
    repeats: bool = False,
) -> Found | None:
    """Run a command line in ``number`` processes, and return what its trial found."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with temporary_folder("kdtool-processes") as place:
        found = place / "found.json"
        if piped:
            write_text(place / launcher.PIPED, "\n".join(map(str, piped)))
        if repeats:
            (place / launcher.REPEATS).touch()
        environment = {launcher.PLACE: str(place), "OMP_NUM_THREADS": str(max(1, cores // number)), **os.environ}
        if trial is not None:
            environment[VARIABLE] = Trial(**{**vars(trial), "file": str(found)}).text()
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            run_id="kdtool",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=str(place / "logs")),
            **_signals(LaunchConfig),
        )
        try:
            with _environment(environment), _as_before():
                elastic_launch(config, sys.executable)("-P", "-m", "kdtool", *words)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            raise _cause(place, codes, number) from None
        except SignalException as interrupt:
            line = next((line for line, _ in _said(place)), "interrupted")
            raise Ended(line, BY_SIGNAL + interrupt.sigval) from None
        return Found.read(found)


def _signals(config: Any) -> dict[str, Any]:
    """Return which signals end the processes: not those that the caller ignores, as ``nohup`` does."""
    heard = [number.name for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {"signals_to_handle": ",".join(heard)} if "signals_to_handle" in config.__dataclass_fields__ else {}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables of the environment while the block runs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Silence torch's launcher while the block runs, and take back its handlers of signals."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _said(place: Path) -> list[tuple[str, int]]:
    """Return the errors of the processes and their exit codes, the earliest first."""
    errors = [json.loads(read_text(path)) for path in place.glob(f"*{launcher.ERROR}")]
    return [(error["line"], error["code"]) for error in sorted(errors, key=lambda error: error["at"])]


def _cause(place: Path, codes: Mapping[int, int], number: int) -> Error:
    """Return the error that ended ``number`` processes; ``codes`` are those of the failed ones, a signal's negative."""
    said = _said(place)
    for line, code in said:
        # The others are interrupted by the launcher, or miss the one that failed.
        if code < BY_SIGNAL and not line.startswith(launcher.LOST):
            return Ended(line, code)
    if ReaderGone.exit_code in codes.values():
        return ReaderGone()
    for rank, code in sorted(codes.items()):
        if code < 0:
            name = signal.Signals(-code).name
            why = ", often for want of memory" if name in ("SIGKILL", "SIGBUS") else ""
            way = "with --resume" + ", or with fewer processes" * bool(why)
            return Error(f"process {rank} of {number} was ended by {name}{why}; run the same command {way}")
    return Ended(*said[0]) if said else Error(f"the processes ended with the exit codes {sorted(codes.values())}")
