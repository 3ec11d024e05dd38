"""The tables of the README files here, drawn by cog from the results that studies wrote (``make tables``).

A README has a block of Python in a comment; what the block prints stands below it, until the end mark::

    <!-- [[[cog
    from tables import *
    study = Study(cog.inFile, "results-small.json")
    show(["step", "test accuracy in %"], [[f"`{step}`", study.percent(step)] for step in ("kd", "none")])
    ]]] -->
    <!-- [[[end]]] -->

Conclusions with numbers are printed by ``say``, and ``fact`` holds them to the results.

``results-small.json`` is what ``kdtool run recipe-small.toml --json`` printed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from textwrap import fill
from typing import Any

from kdtool.utils.statistics import mean_interval

__all__ = ["Study", "count", "fact", "fmean", "link", "paired", "say", "show", "spread", "study_of", "took"]


class Study:
    """The results of a study, which stand beside a README."""

    def __init__(self, readme: str, name: str) -> None:
        results = json.loads((Path(readme).parent / name).read_text(encoding="utf-8"))
        self.rows: list[dict[str, Any]] = results["rows"]
        # A step without a seed has no mean.
        self.means: list[dict[str, Any]] = [
            *results["means"],
            *(row for row in self.rows if "seed" not in row["values"]),
        ]
        self.comparisons: list[dict[str, Any]] = results["comparisons"]
        self.pairs: list[dict[str, Any]] = results["comparison_means"] or self.comparisons

    def mean(self, step: str, **values: Any) -> dict[str, Any]:
        """Return the only row of means with this step and these values."""
        return _only((row for row in self.means if row["step"] == step and _has(row, values)), step, values)

    def seeds(self, step: str, **values: Any) -> list[dict[str, Any]]:
        """Return the rows with this step and these values, in the order of their seeds."""
        found = [row for row in self.rows if row["step"] == step and _has(row, values)]
        return sorted(found, key=lambda row: int(row["values"].get("seed", 0)))

    def pair(self, a: str, b: str, **values: Any) -> dict[str, Any]:
        """Return the means of a comparison of two steps, in whichever order it was made."""
        return _only((row for row in self.pairs if {row["a"], row["b"]} == {a, b} and _has(row, values)), a, values)

    def mcnemar(self, a: str, b: str) -> float:
        """Return the p of McNemar's test of two steps, in whichever order they were compared, with the first seed."""
        return next(float(row["mcnemar_p"]) for row in self.comparisons if {row["a"], row["b"]} == {a, b})

    def percent(self, step: str, key: str = "accuracy", digits: int = 1, **values: Any) -> str:
        """Return a mean in %, with half of its 95 % interval where there are several seeds."""
        row = self.mean(step, **values)
        return spread(row, key, 100, digits)

    def each(self, step: str, key: str = "accuracy", digits: int = 1, **values: Any) -> str:
        """Return the numbers of the seeds in %, such as ``97.1, 96.2, 98.0``."""
        return ", ".join(f"{100 * row[key]:.{digits}f}" for row in self.seeds(step, **values))

    def wins(self, a: str, b: str, **values: Any) -> int:
        """Return with how many seeds step ``a`` is more accurate than step ``b``."""
        pairs = zip(self.seeds(a, **values), self.seeds(b, **values), strict=True)
        return sum(better["accuracy"] > worse["accuracy"] for better, worse in pairs)

    def typical_seconds(self, step: str, **values: Any) -> str:
        """Return the median of the seconds that the commands of a step took."""
        return f"{median(row['seconds'] for row in self.seeds(step, **values)):.0f} s"

    def seconds(self, *steps: str) -> float:
        """Return how long the commands of these steps took together, of all steps if none is named."""
        return sum(row["seconds"] for row in self.rows if not steps or row["step"] in steps)


def study_of(examples: Path, folder: str, name: str = "results-small.json") -> Study:
    """Return the results of the study in a folder of the directory ``examples``."""
    return Study(str(examples / folder / "README.md"), name)


def link(text: str, target: str) -> str:
    """Return a link in Markdown."""
    return f"[{text}]({target})"


def took(study: Study) -> None:
    """Print how long a study took."""
    minutes = f"{study.seconds() / 60:.0f} minutes in all"
    print(f"The {len(study.rows)} commands took {minutes}, one at a time on one thread of a busy machine.")


def spread(row: dict[str, Any], key: str, scale: float = 1, digits: int = 1) -> str:
    """Return the number of a row of means, with half of its interval if it has one."""
    low = row.get(f"{key}_low")
    half = "" if low is None else f" ± {scale * (row[key] - low):.{digits}f}"
    return f"{scale * row[key]:.{digits}f}{half}"


def paired(
    a: Iterable[dict[str, Any]], b: Iterable[dict[str, Any]], key: str = "accuracy"
) -> tuple[float, float, float]:
    """Return by how many points rows ``a`` are larger, seed for seed, with the ends of the 95 % interval."""
    interval = mean_interval([100 * (one[key] - other[key]) for one, other in zip(a, b, strict=True)])
    if interval is None:
        raise ValueError("an interval needs several seeds")
    return interval


def count(number: float) -> str:
    """Return a count as it is read: 1,234,567."""
    return f"{round(number):,}"


def show(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> None:
    """Print a Markdown table whose first ``left`` columns are text and whose others are numbers."""
    align = ["---"] * left + ["--:"] * (len(head) - left)
    print()
    for row in (head, align, *rows):
        print("|" + "|".join(f" {cell} " if cell not in ("---", "--:") else str(cell) for cell in row) + "|")
    print()


def say(*paragraphs: str) -> None:
    """Print paragraphs of text, wrapped; those that begin with ``- `` are a list."""
    for number, paragraph in enumerate(paragraphs):
        listed = paragraph.startswith("- ")
        if not (number and listed):
            print()
        print(fill(paragraph, 120, subsequent_indent="  " * listed, break_long_words=False, break_on_hyphens=False))
    print()


def fact(text: str, holds: bool) -> str:
    """Return a conclusion, if the results allow it.

    Raises:
        ValueError: they no longer do; the text has to change.
    """
    if not holds:
        raise ValueError(f"no longer so: {text}")
    return text


def _has(row: dict[str, Any], values: dict[str, Any]) -> bool:
    return all(row["values"].get(key) == value for key, value in values.items())


def _only(rows: Iterable[dict[str, Any]], step: str, values: dict[str, Any]) -> dict[str, Any]:
    found = list(rows)
    if len(found) != 1:
        raise ValueError(f"{step} {values}: {len(found)} rows, not one")
    return found[0]
