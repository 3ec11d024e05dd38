"""What `kdtool teacher` does."""

from __future__ import annotations

from collections.abc import Callable
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
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, Early, fingerprint, weights_of
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create, expected_images, parse
from kdtool.models.weight_files import Told, fitting_names, told_in
from kdtool.plugins.distributions import plugins_in
from kdtool.plugins.network_spec import named, stem_of
from kdtool.plugins.places import split
from kdtool.training.callback import KeepEpoch
from kdtool.training.optimization.whitening import whitened
from kdtool.training.options import EarlyOptions, InitialOptions, Training
from kdtool.training.run import Run
from kdtool.utils.files import slug
from kdtool.utils.progress import say

if TYPE_CHECKING:
    from torch import nn


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
    if options.get("hours") is not None and not trains:
        raise UsageError("--hours: nothing is trained without --data")
    same = partial(teacher, name, pretrained=pretrained, weights=weights, output=output, force=True)

    def tried(**rest: Any) -> Checkpoint:
        # The epochs that are tried are not those of the training, so the epoch to keep may lie behind them.
        return same(**{key: value for key, value in rest.items() if key != "keep_epoch"})

    options = with_epochs(options, tried, target, resume=resume)
    source, network_name = parse(name)
    groups = split(options, NetworkOptions, DataOptions, Training, type(source), EarlyOptions, InitialOptions)
    given, typed_data = groups[2], groups[1]
    groups[2], groups[1] = with_recipe(given, groups[1])
    shape, training, keep = NetworkOptions(**groups[0]), Training(**groups[2]), EarlyOptions(**groups[4])
    initial = InitialOptions(**groups[5])
    if keep.keep_epoch is not None and keep.keep_epoch > training.epochs:
        raise UsageError(f"--keep-epoch {keep.keep_epoch}: the training has {training.epochs} epochs")
    pretrained = pretrained or (source.brings_weights and weights is None)
    data, elsewhere = None, bool(pretrained or weights)
    weights_file = Path(weights) if weights is not None else None
    told = told_in(weights_file) if weights_file is not None else Told()
    classes = told.classes
    of_source = source.class_names(network_name) if pretrained else None
    if groups[1].get("unlabelled") is not None:
        raise UsageError("--unlabelled: without a teacher a network learns from the labels alone; leave it out")
    if groups[1].get("data") is not None:
        expects = expected_images(name, groups[3]) if elsewhere else None
        opened = partial(
            open_data,
            DataOptions(**groups[1]),
            image_size=shape.image_size,
            in_channels=shape.in_channels,
            expects=expects,
            told=told.images,
        )
        # A training replaces a classifier for another number of classes, so their names are not those of the data.
        data = opened(classes=classes if not training.epochs else None)
        if classes and len(classes) == len(data.spec.classes) and classes != data.spec.classes:
            data = opened(classes=classes)
        if of_source and {*of_source} == {*data.spec.classes}:  # the outputs of the weights are in their own order
            data = opened(classes=of_source)
    elif idle := [*typed_data, *(given.keys() - {"seed"}), *groups[4], *groups[5]]:
        raise UsageError(f"--{idle[0].replace('_', '-')}: nothing is trained without --data")
    begun: dict[str, Any] = {}
    network = create(
        name, options=shape, data=data, own=groups[3], pretrained=pretrained, weights=weights_file,
        trains=training.epochs > 0, record=begun.update, seed=training.seed,
    )  # fmt: skip
    if data is not None and weights:
        if not begun:
            told = told._replace(classes=fitting_names(weights_file, classes, len(data.spec.classes)))
        say_expected(weights, name, data.spec, told, groups[1], ordered=not begun)
    if data is not None and elsewhere:
        say_not_held_out(str(weights or f"{name} --pretrained"), data.spec)
    typed = {**options, **({"pretrained": True} if pretrained else {}), "weights": weights}
    if data is not None:
        network = whitened(network, data.train) if initial.whiten else network
        training, data = settled(training, given, data, typed_data, network, automatic=not elsewhere, kept=elsewhere)
    entry = history.entry(
        "teacher", [name], typed, method=network.architecture.source,
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
        trained_elsewhere=elsewhere,
        **begun,
        **({"held_out": False} if data and elsewhere else {}),
    )
    classes = classes or (of_source if of_source and len(of_source) == network.architecture.classes else None)
    if data is None and (names := fitting_names(weights_file, classes, network.architecture.classes)):
        entry.record(classes=list(names))
    if data is None and told.images:
        entry.record(images=dict(told.images))
    if data is None and resume:
        finished = finished_untrained(target, entry, network.module, force=force)
        if finished is not None:
            return finished
    if data is None and not elsewhere:
        say(f"{target}: is untrained, its weights are random; with --data the network is trained")
    if data is None:
        return finish_untrained(Checkpoint(network), target, entry, dry_run=dry_run)
    kept: list[KeepEpoch] = []

    def work(run: Run) -> Network:
        kept[:] = [KeepEpoch(keep.epoch)] if keep.epoch is not None else []
        return run.fit("teacher", network, callbacks=kept).network

    if dry_run:
        untrained = rehearsed(work, target, data=data, training=training, parent=None, entry=entry)
        untrained.early = Early(keep.epoch, weights_of(untrained.module)) if keep.epoch is not None else None
        return untrained
    # Fresh weights follow from the seed.
    begins = begins_with(network, weights=fingerprint(network.module.state_dict()) if elsewhere else None)
    about: dict[str, Any] = {"work": work, "track": track, "begins": begins}
    with running(target, entry, data, training, None, force=force, resume=resume, **about) as run:
        if isinstance(run, Checkpoint):
            return run
        with entry.timed():
            trained = work(run)
        trained.module.requires_grad_(True)
        return finish(run, trained, target, early_weights(kept[0]) if kept else None)
