"""The hooks of plugins that are always on: those in the group ``kdtool`` of entry points.

A method needs no hook. Its entry point is in the group of its kind, such as ``kdtool.distillers``, and names its class.
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
    """Called after every epoch; ``metrics`` are the content of its line in metrics.jsonl."""


@hookspec
def phase_ended(run: Any, phase: str, metrics: dict[str, float]) -> None:
    """Called after every phase; ``metrics`` are those of the epoch whose weights are kept."""


@hookspec
def checkpoint_saved(path: str, metrics: list[dict[str, Any]]) -> None:
    """Called after a command has written a checkpoint; ``metrics`` are its scores, by split."""
