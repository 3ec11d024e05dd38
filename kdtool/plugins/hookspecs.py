"""The hooks of plugins that are always on, which stand in the group ``kdtool`` of entry points.

A method needs no hook: its entry point names its class and stands in the group of its kind, such as
``kdtool.distillers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("kdtool")

hookimpl = pluggy.HookimplMarker("kdtool")


@hookspec
def commands(cli: click.Group) -> None:
    """Add subcommands to the command line."""


@hookspec
def epoch_ended(run: Any, phase: str, epoch: int, metrics: dict[str, float]) -> None:
    """Listen to every epoch; ``metrics`` is what the line in metrics.jsonl holds."""


@hookspec
def phase_ended(run: Any, phase: str, metrics: dict[str, float]) -> None:
    """Listen to the end of every phase; ``metrics`` are those of the epoch that is kept."""


@hookspec
def checkpoint_saved(path: str) -> None:
    """Listen to every checkpoint that a command writes."""
