"""How far a run or a study is, read from its files while another process works there."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.errors import UsageError
from kdtool.reporting.sources import RESULTS
from kdtool.study.record import FILE as STUDY_FILE, read_study
from kdtool.training.foresight.forecast import Forecast, read_forecast
from kdtool.training.phase import LOG, read_epochs
from kdtool.training.run_directory import LOCK, directory_of, read_run
from kdtool.utils.forms import misfit
from kdtool.utils.strict_json import load

RUNNING, FINISHED, STOPPED, UNKNOWN = "running", "finished", "stopped", "unknown"

UNFINISHED = {True: RUNNING, False: STOPPED, None: UNKNOWN}
"""The state of what is not finished, by whether a process works there."""


def watch(path: str | Path) -> dict[str, Any]:
    """Return how far a run or a study is now, as plain data; nothing is changed.

    ``path`` is the directory of a run (``student.run``) or of a study, or the checkpoint that a run makes.

    Returns:
        ``name`` (of the directory) and ``state`` (``running``, ``finished``, ``stopped`` before the end, or ``unknown``
        where it cannot be seen whether a process works there). Of a run ``phase`` and ``epoch`` (the last that ended),
        ``epochs`` (of the phase), ``phases`` (their number), ``val_accuracy`` or ``val_loss`` (of the epoch),
        ``best_accuracy`` (of the phase), ``fraction`` (of the work, 0 to 1) and ``seconds_left``; each None where it is
        not known. Of a study ``planned`` (the number of its commands, or None), ``done``, ``failed`` and ``begun``
        (their names) and ``runs`` (the states of those that are begun).

    Raises:
        UsageError: there is no run or study, or its files are damaged.
    """
    given = Path(path)
    directory = given if given.is_dir() else directory_of(given)
    if (directory / STUDY_FILE).is_file():
        return _study(directory)
    if not directory.is_dir():
        raise UsageError(f"{given}: there is no such run; name the directory of a run (student.run) or of a study")
    return _run(directory)


def _run(directory: Path) -> dict[str, Any]:
    works = _works(directory)  # before its files are read, so that one that ends now is not taken for stopped
    about = read_run(directory)
    if about is None:
        raise UsageError(f"{directory}: is not the directory of a run or a study")
    logs = [rows for log in _logs(directory) if (rows := read_epochs(log.parent))]
    state = FINISHED if about["finished"] else UNFINISHED[works]
    return {"name": directory.name, "state": state, **_progress(logs, about, read_forecast(directory), state)}


def _logs(directory: Path) -> list[Path]:
    """Return the logs of a run and of those inside it, such as the trials of a search, the latest last."""
    logs = [directory / LOG, *directory.glob(f"phases/**/{LOG}")]
    return sorted((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime)


def _works(directory: Path) -> bool | None:
    """Return whether a process works in a directory, which need not be writable; None where this cannot be seen."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody who writes to it.
        descriptor = os.open(directory / LOCK, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        import fcntl  # there is none on Windows

        # The process that works there has an exclusive lock of this kind; those who look on do not exclude each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        return True if getattr(error, "errno", None) in (errno.EAGAIN, errno.EACCES) else None
    finally:
        os.close(descriptor)
    return False


def _progress(
    logs: Sequence[Sequence[Mapping[str, Any]]], about: Mapping[str, Any], forecast: Forecast | None, state: str
) -> dict[str, Any]:
    rows = [row for log in logs for row in log]
    last: Mapping[str, Any] = rows[-1] if rows else {}
    phase = last.get("phase")
    # Trials of a search, which have logs of their own, have phases of the same name.
    of_phase = [row for row in logs[-1] if row["phase"] == phase] if logs else []
    planned = _epochs_by_name(forecast)
    training = about.get("training") or {}
    accuracies = [row["val_accuracy"] for row in of_phase if row.get("val_accuracy") is not None]
    fraction, left = _left(rows, forecast, planned)
    if left is None and phase is not None and training.get("epochs"):
        rest = max(0, training["epochs"] - last["epoch"])
        left = rest * sum(row.get("seconds", 0.0) for row in of_phase) / len(of_phase)
    return {
        "phase": phase,
        "epoch": last.get("epoch"),
        "epochs": _epochs_of(phase, last.get("epoch"), forecast) or training.get("epochs"),
        "phases": None if forecast is None else len(forecast.phases),
        "val_accuracy": last.get("val_accuracy"),
        "val_loss": last.get("val_loss"),
        "best_accuracy": max(accuracies, default=None),
        "fraction": 1.0 if state == FINISHED else fraction,
        "seconds_left": 0.0 if state == FINISHED else left,
    }


def _epochs_by_name(forecast: Forecast | None) -> dict[str, int]:
    epochs: dict[str, int] = {}
    for phase in forecast.phases if forecast is not None else ():
        epochs[phase.name] = epochs.get(phase.name, 0) + phase.epochs
    return epochs


def _epochs_of(name: str | None, epoch: int | None, forecast: Forecast | None) -> int | None:
    """Return the epochs of the phase in which an epoch ended; the trials of a search have the name of the phase."""
    epochs = [phase.epochs for phase in (forecast.phases if forecast is not None else ()) if phase.name == name]
    return next((count for count in epochs if epoch is not None and count >= epoch), max(epochs, default=None))


def _left(
    rows: Sequence[Mapping[str, Any]], forecast: Forecast | None, planned: Mapping[str, int]
) -> tuple[float | None, float | None]:
    """Return the part of the work that is done, by the seconds that were foreseen, and the seconds that are left."""
    if forecast is None or not forecast.cost.seconds:
        return None, None
    cost: dict[str, float] = {}
    for phase in forecast.phases:
        cost[phase.name] = cost.get(phase.name, 0.0) + phase.cost.seconds
    counts = Counter(row["phase"] for row in rows)
    begun = [name for name in planned if counts[name]]
    done = 0.0
    for name in begun:
        ended = name != begun[-1]  # a phase may end before its last epoch
        done += cost[name] * (1.0 if ended or not planned[name] else min(1.0, counts[name] / planned[name]))
    total = sum(cost.values())
    spent = sum(row.get("seconds", 0.0) for row in rows)
    speed = spent / done if done else 1.0
    rest = forecast.cost.seconds - total
    return max(0.0, min(1.0, done / forecast.cost.seconds)), max(0.0, (total - done) * speed + rest)


def _study(directory: Path) -> dict[str, Any]:
    works = _works(directory)
    commands, planned = read_study(directory)["commands"], _planned(directory)
    by_status = {
        status: [
            name
            for name, entry in commands.items()
            if entry.get("status") == status and (planned is None or name in planned)
        ]
        for status in ("done", "failed", "begun")
    }
    state = FINISHED if works is False and commands and not by_status["begun"] else UNFINISHED[works]
    return {
        "name": directory.name,
        "state": state,
        "planned": None if planned is None else len(planned),
        **by_status,
        "runs": list(_runs(directory, by_status["begun"])),
    }


def _planned(directory: Path) -> set[str] | None:
    """Return the names of the commands of a study's recipe, since the record keeps those of earlier ones too.

    None if that is not known: the results are missing, damaged or of a release that did not write them at the start.
    """
    try:
        results = load(directory / "results.json")
    except (OSError, ValueError):
        return None
    if misfit(results, RESULTS) is not None or "not_run" not in results:
        return None
    return {*(str(row.get("name")) for row in (*results["rows"], *results["failed"])), *results["not_run"]}


def _runs(directory: Path, names: Iterable[str]) -> Iterable[dict[str, Any]]:
    # By what lies there, since the record may name other places.
    runs = {run.stem: run for run in directory.glob("*.run") if run.is_dir()}
    for name in names:
        if name in runs and read_run(runs[name]) is not None:
            yield _run(runs[name])
