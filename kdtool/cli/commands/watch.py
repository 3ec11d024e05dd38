"""``kdtool watch``: follow a run or a study of another process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep, PartlyDone
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json
from kdtool.cli.work import Work
from kdtool.errors import UsageError

EXAMPLES = """
\b
Examples:
  kdtool watch student.run
  kdtool watch recipe.study
  kdtool watch student.run --once
  kdtool watch student.run --once --json
"""

SECONDS = 1.0
"""How often the files are read."""


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    path: Path | None = parsed.params["run"]
    if path is None:
        raise UsageError("watch: no run given; name its directory (kdtool watch student.run), or that of a study")
    if path.is_file() and not path.with_suffix(".run").is_dir():
        raise UsageError(f"{path}: is a file without a run beside it; name the directory of a run or of a study")
    if not path.exists() and not path.with_suffix(".run").is_dir():
        raise UsageError(f"{path}: there is no such run; name the directory of a run (student.run) or of a study")

    def run(work: Work) -> str | None:
        from kdtool import api

        state = api.watch(path)
        if not parsed.params["once"]:
            state = _follow(path, state)
        text = as_json(state) if parsed.params["as_json"] else "\n".join(lines(state))
        if state["state"] == "stopped":
            raise PartlyDone(f"{state['name']}: no process works there, and it is not finished; {_way_on(state)}", text)
        if state["state"] == "unknown":
            raise PartlyDone(
                f"{state['name']}: it cannot be seen whether a process works there; ask its owner for the right to "
                "read its file lock",
                text,
            )
        return text

    return ChainStep("watch", run, min_checkpoints=0, max_checkpoints=0)


def _way_on(state: Mapping[str, Any]) -> str:
    return "run the same command again" + (" to continue" if "runs" in state else " with --resume to continue")


def _follow(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Show how far a run is until it ends, or until the user interrupts, and return its last state."""
    from kdtool import api
    from kdtool.utils.meters import Meter
    from kdtool.utils.screens import opened

    shown: list[str] = []
    with opened(Meter(state["name"], 1.0), []) as screen:
        meter = screen.add("", 1.0)
        try:
            while state["state"] == "running":
                now = lines(state)
                if now != shown:
                    screen.whole_is(_fraction(state), _left(state))
                    title, meter.done, meter.total = _inner(state)
                    if title != meter.title:  # its speed is seen from here on
                        meter.title, meter.begun_at, meter.started = title, meter.done, time.monotonic()
                    meter.note = _numbers(state)
                    screen.epoch_ended("; ".join(now))
                    shown = now
                screen.refresh()
                time.sleep(SECONDS)
                state = api.watch(path)
        except KeyboardInterrupt:
            return state
    return state


def _fraction(state: Mapping[str, Any]) -> float:
    if "runs" not in state:
        return float(state["fraction"] or 0.0)
    if not state["planned"]:
        return 0.0
    ended, begun = len(state["done"]) + len(state["failed"]), sum(_fraction(run) for run in state["runs"])
    return float((ended + begun) / state["planned"])


def _left(state: Mapping[str, Any]) -> float | None:
    return None if "runs" in state else state["seconds_left"]


def _inner(state: Mapping[str, Any]) -> tuple[str, float, float]:
    """Return the title of the inner bar, how much of it is done, and its length."""
    from kdtool.utils.formatting import printable

    if "runs" in state:
        names = ", ".join(state["begun"])
        return printable(names), sum(_fraction(run) for run in state["runs"]), max(1, len(state["runs"]))
    return printable(state["phase"] or ""), state["epoch"] or 0, state["epochs"] or 1


def _numbers(state: Mapping[str, Any]) -> str:
    if "runs" in state:
        return ""
    shown = {"val_accuracy": "validation accuracy", "best_accuracy": "best", "val_loss": "validation loss"}
    if state["val_accuracy"] is not None:
        del shown["val_loss"]
    return ", ".join(f"{title} {state[key]:.4g}" for key, title in shown.items() if state[key] is not None)


def lines(state: Mapping[str, Any]) -> list[str]:
    """Return the state of a run as one line, that of a study as one line and one for each command that is at work."""
    from kdtool.utils.formatting import printable, shown_duration

    parts = [f"{printable(state['name'])}: {state['state']}"]
    if "runs" in state:
        counts = {what: len(state[what]) for what in ("done", "failed", "begun")}
        if state["planned"] is not None:
            parts.append(f"{counts.pop('done'):,} of {state['planned']:,} done")
        parts += [f"{count:,} {what}" for what, count in counts.items() if count]
        return [", ".join(parts), *(f"  {line}" for run in state["runs"] for line in lines(run))]
    if state["phase"] is not None:
        parts.append(f"{printable(state['phase'])} epoch {state['epoch']}/{state['epochs'] or '?'}")
    if numbers := _numbers(state):
        parts.append(numbers)
    if state["seconds_left"] and state["state"] != "finished":
        parts.append(f"about {shown_duration(state['seconds_left'])} left")
    return [", ".join(parts)]


command = StepCommand(
    "watch",
    plan,
    alone=True,
    params=[
        click.Argument(["run"], required=False, type=click.Path(path_type=Path), metavar="RUN"),
        click.Option(["--once"], is_flag=True, help="print the state as it is now, and end"),
        json_option(),
    ],
    help="Follow a run that works in another process (its phase, epoch, accuracy and the time left) or a study (how "
    "many steps are done, and the runs at work). Ends when it ends. RUN is the directory of a run (student.run) or of "
    "a study.",
    epilog=EXAMPLES,
)
