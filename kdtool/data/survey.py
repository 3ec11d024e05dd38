"""Describe a data set as kdtool sees it: classes, splits, the form of its images, what is left out, what is doubled."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor

from kdtool.data.checks import Files, files_of
from kdtool.data.drawing import drawn
from kdtool.data.fingerprint import Fingerprint, changes, duplicates, fingerprint_of, learned_from
from kdtool.data.form import form_of
from kdtool.data.opening import full_name, load_raw, root_for, splits_now
from kdtool.data.options import SPLITTING, DataOptions
from kdtool.data.preparation import default_crop
from kdtool.data.raw import RawData, RawSplit
from kdtool.data.spec import DataSpec
from kdtool.errors import Error, UsageError


def survey(options: DataOptions, before: DataSpec | None = None) -> dict[str, Any]:
    """Return the description of a data set, as plain data; no image is decoded.

    The keys are ``data`` (its name), ``classes`` (their names in order), ``splits`` (by name: ``images``, ``classes``
    with the number of images of each class, ``hash``), ``channels``, ``image_size`` (pixels) and ``crop`` (a fraction
    of the shorter side) as its images are read by default, ``sizes`` (``width`` and ``height``, each the smallest and
    the largest one in pixels), ``modes`` (by Pillow's name of the mode, the number of files), ``white`` (see
    `DataSpec`), ``notes`` (lines about what was left out or chosen), ``unreadable`` (``file`` and ``reason`` of each
    image that cannot be read) and ``duplicates`` (``images`` of the split ``of`` are in the split ``in`` too, byte for
    byte, such as ``first`` and ``second``).
    With ``before``, the description that a checkpoint remembers, ``changes`` lists what changed since.

    Raises:
        Error: the data set cannot be found, or no file of a split can be read.
    """
    if options.data is None:
        raise UsageError("no data set is named; name one with --data")
    raw = load_raw(options.data, root_for(options), download=options.download)
    files = files_of(raw)
    unreadable = [
        {"file": _name(split, index), "reason": info.problem}
        for split in (raw.train, raw.val, raw.test)
        if split is not None
        for index, info in enumerate(files.of(split) or ())
        if info.problem
    ]
    readable = [info for info in files.all() if not info.problem]
    if unreadable and not readable:
        raise Error(f"{full_name(options.data, raw)}: no image can be read: {unreadable[0]['reason']}")
    form = form_of(readable, channels=raw.channels, size=raw.image_size)
    spec = _spec(options, raw, form.channels, form.size)
    parts = drawn(raw, spec)
    prints = {name: fingerprint_of(part, raw.classes, files.of(part)) for name, part in parts.items()}
    return {
        "data": spec.name,
        "classes": list(raw.classes),
        "splits": {name: {**prints[name], "classes": _counts(part, raw.classes)} for name, part in parts.items()},
        "channels": form.channels,
        "image_size": form.size,
        "crop": spec.crop,
        "sizes": _sizes(raw, files),
        "modes": dict(Counter(info.mode for info in readable).most_common()),
        "white": form.white,
        "notes": [*raw.notes, *form.choices, *form.notes],
        "unreadable": unreadable,
        "duplicates": _duplicates(parts, files),
        **({} if before is None else {"changes": _changes(before, spec.name, prints)}),
    }


def _changes(before: DataSpec, name: str, prints: dict[str, Fingerprint]) -> list[str]:
    """Return what changed since a checkpoint was made, whose splits may be drawn in another way than these.

    Of another data set it is only told how many of its held-out images the checkpoint was trained on.
    """
    if before.name == name:
        return changes(before.splits, splits_now(before))
    counts = learned_from(before.splits, prints) or {}
    return [f"{part}: the checkpoint was trained on {count:,} of its images" for part, count in counts.items()]


def _spec(options: DataOptions, raw: RawData, channels: int, size: int) -> DataSpec:
    """Return a description that says how the splits are drawn; mean and std do not matter here."""
    return DataSpec(
        name=full_name(options.data or "", raw),
        directory=None,
        **{key: getattr(options, key) for key in SPLITTING},
        image_size=size,
        in_channels=channels,
        classes=raw.classes,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        crop=1.0 if isinstance(raw.train.images, Tensor) else options.crop or default_crop(size),
        split_by=raw.train.split_by,
    )


def _counts(split: RawSplit, classes: tuple[str, ...]) -> dict[str, int]:
    counts = split.labels.bincount(minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def _sizes(raw: RawData, files: Files) -> dict[str, list[int]]:
    """Return the smallest and the largest width and height, in pixels."""
    if isinstance(raw.train.images, Tensor):
        height, width = raw.train.images.shape[2:]
        return {"width": [width, width], "height": [height, height]}
    readable = [info for info in files.all() if not info.problem]
    return {
        name: [min(values), max(values)]
        for name, values in (("width", [i.width for i in readable]), ("height", [i.height for i in readable]))
    }


def _duplicates(parts: dict[str, RawSplit], files: Files) -> list[dict[str, Any]]:
    infos = {name: (part, of) for name, part in parts.items() if (of := files.of(part)) is not None}
    return duplicates(infos)


def _name(split: RawSplit, index: int) -> str:
    assert not isinstance(split.images, Tensor)
    return split.keys[index] if split.keys is not None else str(split.images[index])
