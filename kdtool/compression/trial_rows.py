"""The rows that `Trials` writes down, and what follows from them for later trainings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.compression.candidates import Candidate
from kdtool.compression.epoch_times import LEARNING, SEARCHED
from kdtool.data.splits import Data
from kdtool.training.phase import LOG

Row = dict[str, Any]

FULL = "full {}"
"""The name of the full training of a candidate."""


def last_row(rows: Sequence[Row], name: str) -> Row | None:
    """Return the row of the last training of the candidate ``name``, or None."""
    return next((row for row in reversed(rows) if row["setting"] == name), None)


def known_row(rows: Sequence[Row], candidate: Candidate) -> Row | None:
    """Return the row of the last trial of a candidate, or else of the one that it was cut from, or None.

    A resumed run may have the row of its full training already, which an unbroken one has not when that begins.
    """
    tried = [row for row in rows if not row["full"]]
    return last_row(tried, candidate.name) or last_row(tried, candidate.cut_from)


def row_of(rows: Sequence[Row], name: str, epochs: float, *, full: bool = False) -> Row | None:
    """Return the row of one training, or None."""
    wanted = (name, epochs, full)
    return next((row for row in rows if (row["setting"], row["epochs"], row["full"]) == wanted), None)


def epoch_seconds(rows: Sequence[Row], candidate: Candidate, teacher_macs: float) -> float:
    """Return how long an epoch of a candidate takes, in seconds: by its last training, or by the last one of all.

    The training in which a method makes its student also searches, in the teacher with ``teacher_macs``. Before it the
    search is estimated by the slowest of the others, and where it is the only one of the candidate, that one counts. 0
    for a candidate that is not trained, and while nothing is known.
    """
    if not candidate.trains:
        return 0.0
    trained = [row for row in rows if row["epochs"]]
    names = (candidate.name, candidate.cut_from)
    own = [row for row in trained if row["setting"] in names]
    others = [_seconds(row) for row in trained if row["setting"] not in names]
    if candidate.made_by_training and others and len(own) < 2:
        macs = max((row["cost"]["macs"] for row in trained if row["cost"] is not None), default=teacher_macs)
        return min(max(others), _seconds(own[0])) if own else max(others) * (1 + SEARCHED * teacher_macs / macs)
    known = own or trained
    return _seconds(known[-1]) if known else 0.0


def work_of(epochs: int, part: float, data: Data) -> float:
    """Return how many epochs over the whole train split take as long as some over a part, which validate as often."""
    if part == 1:
        return epochs
    images, validation = len(data.train), len(data.val) / LEARNING
    return epochs * (part * images + validation) / (images + validation)


def logged_seconds(directory: Path) -> float:
    """Return the time of the epochs that were logged in a directory and below: of a training that was interrupted."""
    lines = [line for file in directory.rglob(LOG) for line in file.read_text(encoding="utf-8").splitlines()]
    total = 0.0
    for line in lines:
        with contextlib.suppress(ValueError):  # the process was killed while it wrote the last one
            total += float(json.loads(line).get("seconds", 0.0))
    return total


def _seconds(row: Mapping[str, Any]) -> float:
    """Return the seconds of an epoch over the whole train split; runs of earlier releases had no others."""
    return (float(row["seconds"]) - float(row.get("scoring_seconds", 0.0))) / max(
        float(row.get("work", row["epochs"])), 1e-9
    )
