"""What `kdtool teacher` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.commands import history
from kdtool.commands.foresight import dry_run as rehearsed
from kdtool.commands.hours import with_epochs
from kdtool.commands.inputs import say_expected, say_not_held_out
from kdtool.commands.outputs import (
    begins_with,
    early_weights,
    finish,
    finish_untrained,
    finished_untrained,
    running,
    target_of,
)
from kdtool.commands.recipes import settled, with_recipe
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Data
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, Early, fingerprint, weights_of
from kdtool.models.options import NetworkOptions
from kdtool.models.source import Source
from kdtool.models.sources import create, expected_images, parse
from kdtool.models.weight_files import Told, fitting_names, told_in
from kdtool.plugins.calls import public
from kdtool.plugins.distributions import plugins_in
from kdtool.plugins.network_spec import named, stem_of
from kdtool.plugins.places import split
from kdtool.training.callback import KeepEpoch
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.optimization.whitening import whitened
from kdtool.training.options import EarlyOptions, InitialOptions, Training
from kdtool.training.run import Run
from kdtool.utils.files import slug
from kdtool.utils.progress import say

if TYPE_CHECKING:
    from torch import nn


@public
def teacher(
    name: str | Callable[..., nn.Module],
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    track: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Build the network ``SOURCE:NAME`` and, if a data set is named, train it on the labels.

    ``name`` may also be a function or class of a module that builds a network, with arguments by `functools.partial`.
    ``options`` are those of `NetworkOptions`, `DataOptions`, `Training`, `TimeOptions`, `EarlyOptions`,
    `InitialOptions` and of the source itself. ``dry_run`` and ``track`` are as in `distill`.

    Raises:
        Error: the network cannot be built, the weights do not fit, or the training fails.
    """
    name, trains = named(name), options.get("data") is not None
    target = target_of(output, Path(f"{slug(stem_of(name))}.pt"), force=force, resume=resume, untrained=not trains)
    for option, value in (("hours", options.get("hours")), ("track", track)):
        if value is not None and not trains:
            raise UsageError(f"--{option}: nothing is trained without --data")
    same = partial(teacher, name, pretrained=pretrained, weights=weights, output=output, force=True)

    def tried(**rest: Any) -> Checkpoint:
        # The epochs that are tried are not those of the training, so the epoch to keep may lie behind them.
        return same(**{key: value for key, value in rest.items() if key != "keep_epoch"})

    options = with_epochs(options, tried, target, resume=resume)
    source, network_name = parse(name)
    network_options, given_data, given, own, early, initial_options = split(
        options, NetworkOptions, DataOptions, Training, type(source), EarlyOptions, InitialOptions
    )
    training_options, data_options = with_recipe(given, given_data)
    shape, training = NetworkOptions(**network_options), Training(**training_options)
    keep, initial = EarlyOptions(**early), InitialOptions(**initial_options)
    if keep.keep_epoch is not None and keep.keep_epoch > training.epochs:
        raise UsageError(f"--keep-epoch {keep.keep_epoch}: the training has {training.epochs} epochs")
    origin = _Origin.of(source, network_name, pretrained=pretrained, weights=weights)
    if not trains and shape.image_size is None:
        shape = NetworkOptions(**{**network_options, "image_size": origin.told.size})
    if data_options.get("unlabelled") is not None:
        raise UsageError("--unlabelled: without a teacher a network learns from the labels alone; leave it out")
    if not trains and (idle := [*given_data, *(given.keys() - {"seed"}), *early, *initial_options]):
        raise UsageError(f"--{idle[0].replace('_', '-')}: nothing is trained without --data")
    expects = expected_images(name, own) if trains and origin.elsewhere else None
    data = _opened(origin, shape, data_options, expects, replaces=training.epochs > 0) if trains else None
    begun: dict[str, Any] = {}
    network = create(
        name, options=shape, data=data, own=own, pretrained=origin.pretrained, weights=origin.file,
        trains=training.epochs > 0, record=begun.update, seed=training.seed,
    )  # fmt: skip
    if data is not None:
        typed = {**data_options, "image_size": shape.image_size}
        _say_origin(origin, name, data.spec, typed, replaced=bool(begun))
        network = whitened(network, data.train) if initial.whiten else network
        elsewhere = origin.elsewhere
        training, data = settled(training, given, data, given_data, network, automatic=not elsewhere, kept=elsewhere)
    entry = history.entry(
        "teacher", [name], {**options, **({"pretrained": True} if origin.pretrained else {}), "weights": weights},
        method=network.architecture.source,
        settings={
            "options": network.architecture.options,
            "training": training.as_data() if data else {},
            "data": data.spec.as_data() if data else {},
        },
        inputs={}, output=target, plugins=plugins_in(source),
    )  # fmt: skip
    entry.record(
        architecture=network.architecture.as_data(),
        keep=keep.as_data(),
        **({"initial": initial.as_data()} if initial.whiten else {}),
        trained_elsewhere=origin.elsewhere,
        **begun,
        **({"held_out": False} if data and origin.elsewhere else {}),
    )
    if data is None:
        return _untrained(network, origin, entry, target, force=force, resume=resume, dry_run=dry_run)
    kept: list[KeepEpoch] = []

    def work(run: Run) -> Network:
        kept[:] = [KeepEpoch(keep.epoch)] if keep.epoch is not None else []
        return run.fit("teacher", network, callbacks=kept).network

    if dry_run:
        untrained = rehearsed(work, target, data=data, training=training, parent=None, entry=entry)
        untrained.early = Early(keep.epoch, weights_of(untrained.module)) if keep.epoch is not None else None
        return untrained
    # Fresh weights follow from the seed.
    begins = begins_with(network, weights=fingerprint(network.module.state_dict()) if origin.elsewhere else None)
    with running(
        target, entry, data, training, None, force=force, resume=resume, work=work, track=track, begins=begins
    ) as run:
        if isinstance(run, Checkpoint):
            return run
        with entry.timed():
            trained = work(run)
        trained.module.requires_grad_(True)
        return finish(run, trained, target, early_weights(kept[0]) if kept else None)


@dataclass(frozen=True)
class _Origin:
    """Where the weights with which a network begins are from, if they are not fresh."""

    pretrained: bool
    """They are those of the network's source."""
    weights: str | Path | None
    """They are in this file."""
    told: Told
    """What the file tells."""
    of_source: tuple[str, ...] | None
    """The classes of pretrained weights."""

    @classmethod
    def of(cls, source: Source, network: str, *, pretrained: bool, weights: str | Path | None) -> _Origin:
        """Return the origin that the options name, or that a source has which brings its weights."""
        pretrained = pretrained or (source.brings_weights and weights is None)
        told = told_in(weights) if weights is not None else Told()
        return cls(pretrained, weights, told, source.class_names(network) if pretrained else None)

    @property
    def elsewhere(self) -> bool:
        """Whether the weights were trained elsewhere."""
        return bool(self.pretrained or self.weights)

    @property
    def file(self) -> Path | None:
        """The file of the weights."""
        return Path(self.weights) if self.weights is not None else None


def _opened(
    origin: _Origin,
    shape: NetworkOptions,
    options: Mapping[str, Any],
    expects: Mapping[str, Any] | None,
    *,
    replaces: bool,
) -> Data:
    """Open the data set; classes that the weights name are in the order of the weights.

    ``expects`` is what the network's source says of images. A training ``replaces`` a classifier for another number of
    classes.
    """
    opened = partial(
        open_data,
        DataOptions(**options),
        image_size=shape.image_size,
        in_channels=shape.in_channels,
        expects=expects,
        told=origin.told.images,
        told_size=origin.told.size,
        natural=origin.told.natural,
    )
    # The names of the classes of a classifier that is replaced are not those of the data.
    classes = origin.told.classes
    data = opened(classes=None if replaces else classes)
    if classes and len(classes) == len(data.spec.classes) and classes != data.spec.classes:
        data = opened(classes=classes)
    if origin.of_source and {*origin.of_source} == {*data.spec.classes}:
        data = opened(classes=origin.of_source)
    return data


def _say_origin(origin: _Origin, name: str, spec: DataSpec, typed: Mapping[str, Any], *, replaced: bool) -> None:
    """Say what is taken for granted of weights from elsewhere; ``replaced``: the network has a new classifier."""
    if origin.weights:
        told = origin.told
        if not replaced:
            told = told._replace(classes=fitting_names(origin.file, told.classes, len(spec.classes)))
        say_expected(origin.weights, name, spec, told, typed, ordered=not replaced)
    if origin.elsewhere:
        say_not_held_out(str(origin.weights or f"{name} --pretrained"), spec)


def _untrained(
    network: Network,
    origin: _Origin,
    entry: HistoryEntry,
    target: Path,
    *,
    force: bool,
    resume: bool,
    dry_run: bool,
) -> Checkpoint:
    """Write a network that is not trained and return its checkpoint, or the one that the same command has made."""
    number = network.architecture.classes
    classes = origin.told.classes or (origin.of_source if len(origin.of_source or ()) == number else None)
    if names := fitting_names(origin.file, classes, number):
        entry.record(classes=list(names))
    if origin.told.images:
        entry.record(images=dict(origin.told.images))
    if origin.told.natural:
        entry.record(natural=True)
    if resume and (finished := finished_untrained(target, entry, network.module, force=force)) is not None:
        return finished
    if not origin.elsewhere:
        say(f"{target}: is untrained, its weights are random; with --data the network is trained")
    return finish_untrained(Checkpoint(network), target, entry, dry_run=dry_run)
