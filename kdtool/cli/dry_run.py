"""The dry run of a chain: each step says what it would do, on stand-ins for the files of the steps before it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdtool.cli.work import Work
from kdtool.errors import UsageError


def is_dry(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a chain only says what it would do; ``settings`` are those of its steps.

    Raises:
        UsageError: it is also to print its results as JSON.
    """
    dry = any(each.get("dry_run") for each in settings)
    if dry and any(each.get("as_json") for each in settings):
        raise UsageError("--dry-run and --json: a dry run has no results to print; leave one out")
    return dry


@contextlib.contextmanager
def dry_works(works: Sequence[Work], *, dry: bool) -> Iterator[Sequence[Work]]:
    """Yield the work of the steps; in a ``dry`` run outputs go to a directory that is removed in the end.

    There the following steps find networks of the structure that they will have, with weights that are not trained.
    """
    if not dry:
        yield works
        return
    with tempfile.TemporaryDirectory() as folder:
        stand_ins: dict[Path, Path] = {}
        changed = []
        for number, work in enumerate(works):
            place = Path(folder) / str(number)
            place.mkdir()
            outputs = tuple(place / output.name for output in work.outputs)
            checkpoints = tuple(stand_ins.get(path, path) for path in work.checkpoints)
            changed.append(
                replace(work, checkpoints=checkpoints, outputs=outputs, force=False, resume=False, dry_run=True)
            )
            stand_ins |= dict(zip(work.outputs, outputs, strict=True))
        yield changed
