"""How a command of a study starts: what an older command left at its place is removed only then."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtool.compression.options import QUANTISED
from kdtool.training.run_directory import directory_of
from kdtool.utils.files import beside, write_text
from kdtool.utils.forms import SECONDS, TEXT, Each, Either, Named, misfit
from kdtool.utils.strict_json import dumps, load

MARK = ".begun"
"""The suffix of the file by which a worker of a cluster, which does not write the record, says that it started."""

RAY_MARK = ".ray-"
"""How the name of the file begins by which a machine of a Ray cluster recognises a study's directory."""

# The ways out that a command offers where its run cannot go on, whatever the reason; a study takes them by itself.
NOT_RESUMED = re.compile(
    r"(; (finish it with that release|bring them back|name another output with -o))?[;,] (or )?start again with "
    r"--force.*"
    r"|; or remove it, and the same command with --resume trains again"
)

ENTRY = {
    **dict.fromkeys(("status", "error", "made", "content"), Either(None, TEXT)),
    **dict.fromkeys(("seconds", "earlier"), Either(None, SECONDS)),
    **dict.fromkeys(("row", "data", "training"), Either(None, {})),
    "told": {"command!": Each(TEXT), "inputs": Named(TEXT)},
}
"""The form of what the record says of a command, see `misfit`."""


@dataclass(frozen=True)
class Start:
    """How a command starts."""

    name: str
    file: str
    """The name of the file that it makes."""
    resume: bool
    """Whether it goes on with an interrupted run of the same command."""
    entry: dict[str, Any]
    """What the record says of it from its start on."""

    def clear(self, directory: Path) -> None:
        """Remove what an older command left in the study's directory, unless this one goes on with it."""
        if self.resume:
            return
        for path in (*self.outputs(directory), directory / f"{self.name}.log"):
            path.unlink(missing_ok=True)
        shutil.rmtree(directory_of(directory / self.file), ignore_errors=True)

    def outputs(self, directory: Path) -> list[Path]:
        """Return the files that the command may write, which it does not overwrite."""
        target = directory / self.file
        in_8_bits = [beside(target, QUANTISED)] if self.entry["told"]["command"][0] == "compress" else []
        return [target, *in_8_bits]

    def mark(self, directory: Path) -> Path:
        """Return the path of the mark of this command."""
        return directory / f"{self.name}{MARK}"

    def begin_in(self, directory: Path) -> None:
        """Clear the place and leave the mark; a second attempt, which finds the mark, goes on with what is there."""
        if self.has_begun_in(directory):
            return
        self.clear(directory)
        write_text(self.mark(directory), self._text())

    def has_begun_in(self, directory: Path) -> bool:
        """Return whether a worker left the mark of this start."""
        mark = self.mark(directory)
        return mark.is_file() and mark.read_text(encoding="utf-8") == self._text()

    def _text(self) -> str:
        return dumps(self.entry)


def marked(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of the commands that workers began and that the record does not know yet, by name."""
    entries = {}
    for mark in directory.glob(f"*{MARK}"):
        with contextlib.suppress(OSError, ValueError):  # it was removed meanwhile, or is damaged
            entry = load(mark)
            if misfit(entry, ENTRY) is None:
                entries[mark.name.removesuffix(MARK)] = entry
    return entries


def refusal(error: str | None) -> str | None:
    """Return why a run cannot be resumed, if that is the error of a command; None if it has another one, or none."""
    return NOT_RESUMED.sub("", error) if error is not None and NOT_RESUMED.search(error) else None
