"""Open a data set: find its files, split them, check them against what is known, and prepare the images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdtool.data.checks import Files, files_of, tell
from kdtool.data.classes import outputs_of
from kdtool.data.dataset import Dataset, dataset_name, without_path
from kdtool.data.drawing import drawn, naming, opened
from kdtool.data.fingerprint import Fingerprint, fingerprint_of
from kdtool.data.form import LARGE, form_of
from kdtool.data.options import SPLITTING, DataOptions
from kdtool.data.pixels import check_channels, statistics_for
from kdtool.data.preparation import INTERPOLATION, SMALL, default_crop
from kdtool.data.raw import UNLABELLED, FilePart, ImageSource, RawData, RawSplit, file_of
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Data
from kdtool.errors import Error, UsageError
from kdtool.plugins.method_code import returned, running_method
from kdtool.plugins.registry import make


def open_data(
    options: DataOptions,
    *,
    image_size: int | None = None,
    in_channels: int | None = None,
    classes: tuple[str, ...] | None = None,
    like: DataSpec | None = None,
    expects: Mapping[str, Any] | None = None,
    told: Mapping[str, Any] | None = None,
    told_size: int | None = None,
    natural: bool = False,
    typed: Collection[str] = SPLITTING,
) -> Data:
    """Open the data set that the options name.

    ``image_size`` (pixels) and ``in_channels`` are by default those of the data set. ``classes`` are those of a network
    in the order of its outputs: the labels of the data set are mapped to them by name. ``natural`` says in which order
    they are where there are none, see `outputs_of`. ``expects`` is how a network expects its images, unless the options
    say otherwise: ``mean``, ``std``, ``crop``, ``interpolation`` or some of them. ``told`` is how images were prepared
    when its weights were trained, as far as their file tells; this counts more, and so does ``told_size``, the side of
    the images then, if ``image_size`` is not given. ``like`` describes the data set of a checkpoint: its network's
    classes and what it expects; and if it is the same data set, its images are split in the same way, but for the
    options in ``typed``, and what changed is said.

    Raises:
        UsageError: there is no such data set, or its images cannot be converted to that many channels.
        Error: its files are missing or damaged, or its classes are not those of the network.
    """
    if options.data is None:
        raise UsageError("no data set is named; name one with --data")
    root = root_for(options)
    raw = load_raw(options.data, root, download=options.download)
    name = full_name(options.data, raw)
    with naming(name.partition(":")[0]):
        files = files_of(raw)
        files.check()
        form = form_of(files.all(), channels=raw.channels, size=raw.image_size, large=told_size or LARGE)
    size, channels = image_size or told_size or form.size, in_channels or form.channels
    check_channels(form.channels, channels)
    choices = form.choices if image_size is None else ()
    for note in (*raw.notes, *choices, *(form.notes if like is None else ())):
        tell(f"{name}: {note}")
    if like is not None:
        classes = classes or like.classes
        expects = {"mean": like.mean, "std": like.std, "crop": like.crop, "interpolation": like.interpolation}
    else:
        classes = outputs_of(raw.classes, classes, natural=natural)
    expects, told = expects or {}, told or {}
    fits = _fitting(expects, size, channels, recorded=like is not None)
    fits |= _fitting(told, size, channels, recorded=True)
    if "mean" in {**expects, **told} and "mean" not in fits and options.mean is None:
        tell(f"{name}: the mean and std that the network expects are for other channels; those of the data are used")
    wanted = {**_published(raw, channels), **fits}
    for key in wanted:
        value = getattr(options, key)
        if key in ("mean", "std") and value is not None and len(value) != channels:
            raise UsageError(_for_each_channel(key, value, channels))
        wanted[key] = wanted[key] if value is None else value
    same = like is not None and (like.name == name or _is_moved(like, name, raw, files))
    asked = {key: getattr(options, key) for key in SPLITTING}
    kept = {key: getattr(like, key) for key in SPLITTING if same and key not in typed}
    if others := [f"--{key.replace('_', '-')} {value}" for key, value in kept.items() if value != asked[key]]:
        tell(f"{name}: as in the network's training: {', '.join(others)}")
    spec = DataSpec(
        name=name,
        directory=_absolute(root),
        **{**asked, **kept},
        image_size=size,
        in_channels=channels,
        classes=classes,
        mean=wanted["mean"] or (0.0,) * channels,
        std=wanted["std"] or (1.0,) * channels,
        # Images in memory are small: every pixel of them is used.
        crop=1.0 if isinstance(raw.train.images, Tensor) else wanted["crop"] or default_crop(size),
        interpolation=wanted["interpolation"] or "bilinear",
        white=like.white if like is not None and same else _white(form.white, like, name),
        split_by=like.split_by if like is not None and same else raw.train.split_by,
        splits={},
    )
    data = opened(raw, files, form, spec, like, unlabelled_of(options.unlabelled, root))
    if wanted["mean"] is None or wanted["std"] is None:
        mean, std = data.train.labelled().statistics()
        data = data.normalised(wanted["mean"] or mean, wanted["std"] or std)
    return data


def _is_moved(like: DataSpec, name: str, raw: RawData, files: Files) -> bool:
    """Return whether a data set is the one that a network was trained on, at another place."""
    if not like.splits or without_path(like.name) != without_path(name):
        return False
    try:
        parts = drawn(raw, like)
    except Error:  # it has too few images to be split like that
        return False
    prints = {part: fingerprint_of(split, raw.classes, files.of(split)) for part, split in parts.items()}
    return prints == {part: entry for part, entry in like.splits.items() if part != "unlabelled"}


def _white(found: int | None, like: DataSpec | None, name: str) -> int | None:
    """Return the white of images of more than 8 bits: that of a network's training, if no value ``found`` is above it.

    It is said where it is another one. Up to 255 the values may be floating-point numbers, which have a white of
    their own.
    """
    if found is None or like is None or like.white is None or found == like.white:
        return found
    if 255 < found < like.white:
        return like.white
    tell(f"{name}: {found} is read as white, where the network was trained with {like.white}")
    return found


def _for_each_channel(key: str, value: tuple[float, ...], channels: int) -> str:
    """Return the message for a mean or std of another number of channels."""
    given = "1 number" if len(value) == 1 else f"{len(value)} numbers"
    example = f", such as {','.join([f'{value[0]:g}'] * channels)}" if len(value) == 1 else ""
    return f"--{key}: {given} for {channels} channels; give one for each{example}"


def _published(raw: RawData, channels: int) -> dict[str, Any]:
    """Return the normalisation of a data set, as far as it has one; None stands for what has to be found."""
    mean, std = raw.mean, raw.std
    if mean is not None and std is not None:
        mean, std = statistics_for(mean, std, channels)
    return {"mean": mean, "std": std, "crop": None, "interpolation": None}


def _fitting(expects: Mapping[str, Any], size: int, channels: int, *, recorded: bool) -> dict[str, Any]:
    """Return what a network expects as far as it fits images of this size and these channels.

    Small images are used whole, unless a training that was ``recorded`` cropped them. One number is for all channels.
    """
    fits = dict(expects)
    for key in {"mean", "std"} & {*fits}:
        fits[key] = tuple(fits[key]) * (channels if len(fits[key]) == 1 else 1)
    if any(len(fits.get(key, range(channels))) != channels for key in ("mean", "std")):
        fits.pop("mean", None)
        fits.pop("std", None)
    if size <= SMALL and not recorded:
        fits.pop("crop", None)
    if fits.get("interpolation") not in INTERPOLATION:
        fits.pop("interpolation", None)
    return fits


def open_spec(
    spec: DataSpec,
    data_dir: str | Path | None = None,
    unlabelled: str | None = None,
    before: DataSpec | None = None,
) -> Data:
    """Open the data set that a checkpoint describes, with the images of ``unlabelled`` added to its train split.

    Its files are searched in ``data_dir``, else in the recorded directory if that exists, else in KDTOOL_DATA. If the
    images of a split are not those that the checkpoint describes, one line says what changed; ``before`` is that
    description where ``spec`` differs from it.

    Raises:
        Error: its files are missing or damaged, or its classes have changed.
    """
    root = Path(data_dir) if data_dir is not None else root_of(spec)
    raw = load_raw(spec.name, root)
    with naming(spec.name.partition(":")[0]):
        files = files_of(raw)
        files.check()
        form = form_of(files.all(), channels=raw.channels, size=raw.image_size)
    for note in raw.notes:
        tell(f"{spec.name}: {note}")
    if form.white is not None and form.white > (spec.white or form.white):
        tell(f"{spec.name}: pixel values above {spec.white}, the white of the network's training, are read as white")
    more = unlabelled_of(unlabelled, Path(data_dir) if data_dir is not None else root)
    crop = 1.0 if isinstance(raw.train.images, Tensor) else spec.crop  # see `open_data`
    found = dataclasses.replace(spec, directory=_absolute(root) or spec.directory, crop=crop)
    return opened(raw, files, form, found, before or spec, more)


def splits_now(spec: DataSpec) -> dict[str, Fingerprint]:
    """Return the fingerprints of the splits that a description stands for, as their images are now.

    Raises:
        Error: the files are missing.
    """
    raw = load_raw(spec.name, root_of(spec))
    files = files_of(raw)
    return {name: fingerprint_of(part, raw.classes, files.of(part)) for name, part in drawn(raw, spec).items()}


def root_for(options: DataOptions) -> Path | None:
    """Return the directory in which data sets are: the value of ``--data-dir``, else KDTOOL_DATA."""
    return options.data_dir or _from_environment()


def full_name(data: str, raw: RawData) -> str:
    """Return the value of ``--data`` in a form that is valid from any directory."""
    return data if raw.argument is None else f"{data.partition(':')[0]}:{raw.argument}"


def root_of(spec: DataSpec) -> Path | None:
    """Return the directory in which the data sets of a description are: the recorded one, else KDTOOL_DATA."""
    if spec.directory is not None and Path(spec.directory).is_dir():
        return Path(spec.directory)
    return _from_environment()


def unlabelled_of(name: str | None, root: Path | None) -> tuple[str, RawSplit] | None:
    """Return the name and the images of ``--unlabelled``."""
    if name is None:
        return None
    kind, argument = dataset_name(name), name.partition(":")[2]
    dataset: Dataset = make("datasets", kind)
    with naming(f"--unlabelled {kind}"):
        images = dataset.images(argument, None if root is None else root.expanduser())
        keys = None
        if not isinstance(images, Tensor):
            top = os.path.commonpath([file_of(image).parent for image in images])
            keys = tuple(_below(image, top) for image in images)
        return name, RawSplit(images, torch.full((len(images),), UNLABELLED), keys)


def _below(image: ImageSource, top: str) -> str:
    path = os.path.relpath(file_of(image), top)
    return f"{path}#{image.start}" if isinstance(image, FilePart) else path


def _from_environment() -> Path | None:
    directory = os.environ.get("KDTOOL_DATA")
    return Path(directory) if directory else None


def _absolute(root: Path | None) -> str | None:
    return None if root is None else str(root.expanduser().resolve())


def load_raw(spec: str, root: Path | None, *, download: bool = False) -> RawData:
    """Return the data set that a value of ``--data`` names, as its files store it."""
    name, argument = dataset_name(spec), spec.partition(":")[2]
    dataset: Dataset = make("datasets", name, **({"download": True} if download else {}))
    with naming(name), running_method(dataset):
        raw = dataset.load(argument, None if root is None else root.expanduser())
    return returned(dataset, raw, RawData, "RawData")
