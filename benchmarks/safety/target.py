"""What is attacked: a reader of files, and how its files are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.safety.mutations import changed_data


@dataclass(frozen=True)
class Target:
    """A reader, the name of the file that it is given, and the strategy of the file's content."""

    name: str
    file: str
    content: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    whole: Sequence[bytes]
    """Files that are not changed, which are read."""
    share: float = 1.0
    """How many files are tried, as a multiple of what others have: charts take most of the time of a report."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """What else is in the directory of the file."""


def of_seeds(seeds: list[bytes], change: Callable[[bytes], st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """Return changes of one of several contents."""
    return st.sampled_from(seeds).flatmap(change)


def of_values(values: list[Any]) -> st.SearchStrategy[Any]:
    """Return changes of one of several values."""
    return st.sampled_from(values).flatmap(changed_data)
