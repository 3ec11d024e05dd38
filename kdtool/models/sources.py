"""Build the network that a user names, such as ``timm:resnet18``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from kdtool.data.splits import Data
from kdtool.errors import FAILURES, Error, UsageError, first_line
from kdtool.models.architecture import Architecture, Network
from kdtool.models.names import known, named, remember
from kdtool.models.options import NetworkOptions
from kdtool.models.source import Source, built
from kdtool.models.stem import small_stem
from kdtool.models.weight_files import read_weights
from kdtool.models.weights import fit_weights
from kdtool.plugins.method_code import returned
from kdtool.plugins.network_spec import forms, qualified, source_of
from kdtool.plugins.registry import make, method_class
from kdtool.utils.keywords import read_keywords
from kdtool.utils.progress import say
from kdtool.utils.seeds import seeded


def parse(spec: str, options: dict[str, Any] | None = None) -> tuple[Source, str]:
    """Return the source and the network's name in ``SOURCE:NAME`` or ``SOURCE:NAME,option=value,...``.

    ``options`` are further options of the source.

    Raises:
        UsageError: the text is not of that form, or there is no such source or option.
    """
    _, colon, network = qualified(spec).partition(":")
    network, _, assigned = network.partition(",")
    if not colon or not network:
        raise UsageError(f"{spec!r}: a network is written as {forms()}")
    source = source_of(spec)
    try:
        own = {**(options or {}), **read_keywords(assigned)}
    except UsageError as error:
        raise UsageError(f"{spec!r}: {error}") from error
    if network not in (known(source) or [network]) and (elsewhere := named(network)):
        raise UsageError(f"{source} has no network {network!r}; write {' or '.join(elsewhere)}")
    return make("teachers", source, **method_class("teachers", source).collected(own)), network


def expected_images(spec: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return how the pretrained weights of ``SOURCE:NAME`` expect their images: mean, std, crop and interpolation.

    What the source does not know is left out.
    """
    source, network = parse(spec, options)
    defaults = source.defaults(network)
    return {key: defaults[key] for key in ("mean", "std", "crop", "interpolation") if key in defaults}


def create(
    spec: str,
    *,
    options: NetworkOptions,
    data: Data | None,
    own: dict[str, Any] | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    trains: bool = False,
    record: Callable[[dict[str, Any]], None] = lambda about: None,
    seed: int = 0,
) -> Network:
    """Build a network for a data set, or without one for the classes and images that it was designed for.

    ``own`` are options of the source. ``weights`` is a file of weights to load. Where the network is trained on the
    data set (``trains``), a classifier of the file for another number of classes is left out, and ``record`` gets the
    names of the weights that stay fresh. The initialisation depends on ``seed`` alone, and torch's global random state
    does not change.

    Raises:
        Error: there is no such network, it cannot be built with these options, or the weights do not fit.
    """
    spec = qualified(spec)
    source, name = parse(spec, own)
    source, recorded = source.pinned(name)
    defaults = returned(source, source.defaults(name), Mapping, "sizes by name")
    if data:
        classes = len(data.spec.classes)
        if options.classes not in (None, classes):
            raise UsageError(f"--classes {options.classes}: the data set {data.spec.name} has {classes}; leave it out")
        defaults = {"classes": classes, "in_channels": data.spec.in_channels, "image_size": data.spec.image_size}
    wanted = ("classes", "in_channels", "image_size")
    shape = {key: int(value) for key in wanted if (value := getattr(options, key) or defaults.get(key))}
    if missing := [f"--{key.replace('_', '-')}" for key in wanted if key not in shape]:
        raise UsageError(f"{spec}: does not say what it is for; give {' and '.join(missing)}, or --data")
    stem = options.stem or "default"
    architecture = Architecture(source.name, recorded, {**shape, "stem": stem, **source.as_data()})
    architecture.origin()  # checks the bounds before a network is built that does not fit in memory
    source.prepare(name)
    with seeded(seed, "init", spec):
        module = built(source, name, **shape, pretrained=pretrained)
        if stem == "small":
            module = small_stem(module)
    if weights is not None:
        fresh = fit_weights(
            module, read_weights(weights), weights, classes=shape["classes"] if data else None, trains=trains
        )
        if fresh:
            record({"fresh": fresh})
    with contextlib.suppress(Exception):  # a plugin may fail in any way, and its list is only for completion
        remember(source)  # the source's library is imported by now
    network = Network(architecture, module.eval())
    check_forward(network)
    return network


def check_name(spec: str) -> None:
    """Check that there is a network ``SOURCE:NAME``, without building it.

    Raises:
        UsageError: the text is not of that form, or there is no such source, option or network; the message lists the
            nearest names.
    """
    source, name = parse(spec)
    source.defaults(name)


def create_like(spec: str, network: Network, *, stem: str | None = None, seed: int | None = None) -> Network:
    """Build ``SOURCE:NAME`` for the images and classes of another network.

    It gets that network's stem by default, or keeps its own if that cannot be made small. Its weights depend on
    ``seed``; without one, a seed is drawn under the current random state.

    Raises:
        Error: there is no such network, or it cannot be built for these images and classes.
    """
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    other = network.architecture
    shape = NetworkOptions(
        classes=other.classes,
        in_channels=other.input[0],
        image_size=other.input[1],
        stem=stem or other.options.get("stem"),
    )
    try:
        return create(spec, options=shape, data=None, seed=seed)
    except UsageError:  # there is no such network
        raise
    except Error:
        if stem is not None or shape.stem != "small":
            raise
    # The other network has a small stem by default, but this network's stem cannot be made small.
    say(f"{spec}: keeps its own stem (it has none that --stem small knows)")
    return create(spec, options=dataclasses.replace(shape, stem="default"), data=None, seed=seed)


def check_forward(network: Network) -> None:
    """Check with one image of zeros that a network takes its input shape and returns class logits.

    Raises:
        Error: it does not.
    """
    architecture = network.architecture
    shape = "x".join(str(size) for size in architecture.input)
    try:
        with torch.no_grad():
            output = network.module(torch.zeros(1, *architecture.input))
    except FAILURES as error:
        raise Error(
            f"{architecture.spec}: cannot take an image of {shape} ({first_line(error)}); try another --image-size; "
            "all images are square, and a network that takes only others has to be changed"
        ) from error
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != (1, architecture.classes):
        is_tensor = isinstance(output, torch.Tensor)
        actual = tuple(output.shape) if is_tensor else type(output).__name__
        way_out = "" if is_tensor else "; name a subclass of it whose forward returns the logits alone"
        raise Error(
            f"{architecture.spec}: is no classifier of {architecture.classes} classes: its output is {actual}{way_out}"
        )
