"""What a plugin may implement.

A method's entry point stands in the group of its kind (``kdtool.distillers``, ...): its name is the
method's name, its value the module that implements the hook of that kind. A plugin that is always on
stands in the group ``kdtool``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from kdtool.methods import Dataset, Distiller, Exporter, Pruner, Refiner, Source

hookspec = pluggy.HookspecMarker("kdtool")
hookimpl = pluggy.HookimplMarker("kdtool")


@hookspec
def teachers() -> list[type[Source]]:
    """Return classes that build networks by name (``timm:resnet18``)."""
    raise NotImplementedError


@hookspec
def refiners() -> list[type[Refiner]]:
    """Return classes that make a smaller structure of a network."""
    raise NotImplementedError


@hookspec
def distillers() -> list[type[Distiller]]:
    """Return classes that teach a student."""
    raise NotImplementedError


@hookspec
def pruners() -> list[type[Pruner]]:
    """Return classes that remove what is left over."""
    raise NotImplementedError


@hookspec
def exporters() -> list[type[Exporter]]:
    """Return classes that write a network in another format."""
    raise NotImplementedError


@hookspec
def datasets() -> list[type[Dataset]]:
    """Return classes that read data sets."""
    raise NotImplementedError


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
