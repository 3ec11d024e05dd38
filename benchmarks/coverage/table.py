"""The results as a Markdown page, as JSON and as lines for a terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from benchmarks.coverage.networks import CLASSES, EDITS, USED, USES
from benchmarks.coverage.results import Result
from benchmarks.coverage.totals import Total, totals

COMMAND = "make coverage"

_INTRODUCTION = """\
# What kdtool does with {count} networks

One network for each family of timm and torchvision, and several where the members of a family are built differently,
with random weights and {classes} classes. Made by `{command}` from
[the list](../benchmarks/coverage/architectures.txt), in {minutes:.0f} minutes of computing; all numbers are in
[coverage.json](coverage.json).

- **halve** and **halve x4** are `kdtool refine --method halve` with `--times 1` and 4, **depth** is `--method depth`,
  **structured 30 %** is what `kdtool prune --method filter-l1 --ratio 0.3 --round-to 1` removes before it retrains
  (refused if less than that can be removed), **halve, inherited** is `kdtool refine --method halve --init inherit`. The
  number is the parameters of the network divided by those of the result.
- **rebuild**: each result except the inherited one is written as a checkpoint and read by another process, where it
  must give the same outputs bit for bit. **train step**: it then takes a step of training. **ONNX parity**: it is then
  exported, and onnxruntime must give its outputs. Before this, every part of a network gets random values, gains and
  statistics too, so that an error in any part changes the outputs.
- **ok**; **refused**: kdtool gives a reason and writes nothing; **failed**: anything else, such as a crash, a wrong
  output, or more time or memory than allowed; **no stages**: there are no blocks to drop, so it does not count.

"""


def as_data(results: Sequence[Result]) -> str:
    """Return the totals and all results as JSON."""
    counted = [{**dataclasses.asdict(total), "percent": total.percent, "goal": total.goal} for total in totals(results)]
    content = {"command": COMMAND, "totals": counted, "networks": [result.as_data() for result in results]}
    return json.dumps(content, indent=1) + "\n"


def as_page(results: Sequence[Result]) -> str:
    """Return the page, in Markdown."""
    seconds = sum(outcome.get("seconds", 0) for result in results for outcome in result.cells.values())
    parts = [
        _INTRODUCTION.format(count=len(results), classes=CLASSES, command=COMMAND, minutes=seconds / 60),
        as_table(["", "ok", "refused", "failed", "percent ok", "goal"], map(_total_row, totals(results))),
        f"\n{_versions(results)}\n",
    ]
    for group, members in groupby(results, key=lambda result: result.entry.group):
        titles = ["network", "side", *EDITS.values(), *USES.values()]
        parts += [f"\n## {group}\n\n" if group else "\n", as_table(titles, map(_network_row, members))]
    reasons = list(_reasons(results))
    if reasons:
        parts += ["\n## Reasons\n\n", *reasons]
    return "".join(parts)


def summary(results: Sequence[Result]) -> str:
    """Return the totals as lines for a terminal."""
    lines = []
    for total in totals(results):
        goal = f"goal {total.goal} %{'' if total.reached else ', missed'}" if total.goal else ""
        counts = f"{total.ok:5} of {total.tried:<5} {total.percent:5.1f} %"
        lines.append(f"{total.title:16} {counts}   {total.refused} refused, {total.failed} failed   {goal}".rstrip())
    return "\n".join(lines)


def as_table(titles: Sequence[str], rows: Iterable[list[str]]) -> str:
    """Return rows as a table, in Markdown."""
    lines = [list(titles), ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _total_row(total: Total) -> list[str]:
    goal = "" if total.goal is None else f"{total.goal} %{'' if total.reached else ', missed'}"
    counts = [f"{total.ok} of {total.tried}", str(total.refused), str(total.failed)]
    return [total.title, *counts, f"{total.percent:.1f} %", goal]


def _network_row(result: Result) -> list[str]:
    edits = [_edit_cell(result, edit) for edit in EDITS]
    return [result.entry.spec, str(result.entry.side), *edits, *(_use_cell(result, use) for use in USES)]


def _edit_cell(result: Result, edit: str) -> str:
    status = result.status(edit)
    if status == "ok":
        return f"ok {result.cells['build']['parameters'] / result.cells[edit]['parameters']:.3g}x"
    return "no stages" if status == "none" else status


def _use_cell(result: Result, use: str) -> str:
    statuses = [result.status(f"{edit}.{use}") for edit in USED if result.status(edit) == "ok"]
    good = statuses.count("ok")
    return ("ok" if good == len(statuses) else f"{good} of {len(statuses)}") if statuses else ""


def _reasons(results: Sequence[Result]) -> Iterator[str]:
    titles = {"build": "built", **EDITS}
    for result in results:
        for cell, outcome in result.cells.items():
            edit, _, use = cell.partition(".")
            if outcome["status"] in ("refused", "failed"):
                where = f"{titles[edit]}, {USES[use]}" if use else titles[edit]
                reason = outcome["reason"].replace("`", "'")
                yield f"- **{result.entry.spec}**, {where}, {outcome['status']}: `{reason}`\n"


def _versions(results: Sequence[Result]) -> str:
    versions = results[0].about["versions"]
    return f"With {', '.join(f'{name} {version}' for name, version in versions.items())}."
