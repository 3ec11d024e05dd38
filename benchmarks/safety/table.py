"""Print the tables of docs/promises.md: ``python -m benchmarks.safety.table kills.json files.json faults.json``.

The files are those that ``--rows`` of `soak`, `fuzz` and `faults` wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.safety.rows import Rows

Row = dict[str, Any]


def grouped(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    """Return the rows with each value of a key."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def total(rows: Sequence[Row], name: str) -> int:
    """Return the sum of a number, or of the lengths of a list."""
    return sum(len(row[name]) if isinstance(row[name], list) else row[name] for row in rows)


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown; the first column is text, and so is one that is called ``each``."""
    marks = ["---" if name in (head[0], "each") else "--:" for name in head]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in [head, marks, *lines])


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def kills(rows: Sequence[Row]) -> str:
    """Return the table of kills, with the number of each command."""
    lines = []
    for kind, group in grouped(rows, "kind").items():
        each = {name: total(same, "kills") for name, same in grouped(group, "name").items()}
        of_each = "; ".join(f"{name} {number}" for name, number in sorted(each.items(), key=lambda item: -item[1]))
        lines.append([kind, total(group, "kills"), total(group, "by_time"), total(group, "lost"), of_each])
    lines.append(["all", *(total(rows, name) for name in ("kills", "by_time", "lost")), ""])
    return table(["command", "kills", "at random times", "lost", "each"], lines)


def files(rows: Sequence[Row]) -> str:
    """Return the table of changed files."""
    lines: list[list[Any]] = []
    for target, group in [*grouped(rows, "target").items(), ("all", rows)]:
        numbers = [total(group, name) for name in ("files", "read", "refused", "broken")]
        most = [max(row["cpu"] for row in group), max(row["megabytes"] for row in group)]
        lines.append([target, *numbers, f"{most[0]:.2f}", most[1]])
    return table(["file", "changed", "read", "refused", "broken", "most CPU s", "most MB"], lines)


def faults(rows: Sequence[Row]) -> str:
    """Return the table of faults."""
    lines = [[row["command"], row["faults"], len(row["broken"])] for row in rows]
    lines.append(["all", total(rows, "faults"), total(rows, "broken")])
    return table(["command", "faults", "broken"], lines)


def made(rows: Sequence[Row]) -> str:
    """Return when rows were made and with which versions."""
    dates = sorted(row["date"][:10] for row in rows)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    versions = {", ".join(f"{name} {value}" for name, value in row["versions"].items()) for row in rows}
    return f"Made on {when} with {'; '.join(sorted(versions))}."


def main() -> None:
    """Print a table for each file."""
    tables: Sequence[Callable[[Sequence[Row]], str]] = (kills, files, faults)
    for path, draw in zip(sys.argv[1:], tables, strict=True):
        rows = Rows(Path(path)).rows
        print(f"{made(rows)}\n\n{draw(rows)}\n")


if __name__ == "__main__":
    main()
