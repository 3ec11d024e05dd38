"""The files that a report writes beside its page: which they are, and that they replace no others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdtool.errors import UsageError
from kdtool.plotting.svg import draw_chart
from kdtool.reporting.sources import CheckpointSource, StudySource
from kdtool.study.charts import charts
from kdtool.utils.files import atomic, check_output, slug


def figures_of(sections: Sequence[CheckpointSource | StudySource], directory: Path) -> dict[Path, bytes]:
    """Return the charts of all studies as SVG, by their paths; of several studies each begins with its study's name."""
    studies = [section for section in sections if isinstance(section, StudySource)]
    figures: dict[Path, bytes] = {}
    taken: set[str] = set()
    for study in studies:
        prefix = f"{slug(Path(study.name).stem) or 'study'}-" if len(studies) > 1 else ""
        for chart in charts(study.results):
            name = _free(f"{prefix}{slug(chart.title)}", taken)
            figures[directory / f"{name}.svg"] = f"{draw_chart(chart)}\n".encode(errors="replace")
    return figures


def _free(name: str, taken: set[str]) -> str:
    """Return ``name``, numbered if it is taken, and take it: studies in two directories may have one name."""
    numbered, count = name, 1
    while numbered.casefold() in taken:  # some disks do not tell upper from lower case
        count += 1
        numbered = f"{name}-{count}"
    taken.add(numbered.casefold())
    return numbered


def unwritten(files: Mapping[Path, bytes], *, force: bool) -> dict[Path, bytes]:
    """Return those of the files that are not there yet with the same content; a second report may share its figures.

    Raises:
        UsageError: a file is there with another content and ``force`` is false, or it cannot be written.
    """
    left = {path: content for path, content in files.items() if not _holds(path, content)}
    for path in left:
        if not force and os.path.lexists(path):
            raise UsageError(
                f"{path}: exists already, and the report writes a chart of this name; choose another name or directory "
                "for the report, or overwrite it with --force"
            )
        check_output(path, force=True)
    return left


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write each file atomically."""
    for path, content in files.items():
        with atomic(path) as temporary:
            temporary.write_bytes(content)
