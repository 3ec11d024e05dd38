"""Draw the splits of a data set, check them against what is known, and prepare their images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

from kdtool.data.changes import Changes, changes_of
from kdtool.data.checks import Files, check_differ, say_changes, say_duplicates, say_older, tell
from kdtool.data.classes import positions
from kdtool.data.fingerprint import fingerprint_of
from kdtool.data.form import Form, white_of
from kdtool.data.image_files import FileImages
from kdtool.data.images import (
    ChangedImages,
    GrownImages,
    Images,
    JoinedImages,
    MemoryImages,
    ShiftedImages,
    fits_in_memory,
    plain_images,
)
from kdtool.data.preparation import SMALL, Preparation
from kdtool.data.raw import RawData, RawSplit
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Data, Split
from kdtool.errors import Error
from kdtool.utils.seeds import derive

# The test split of a data set without one is drawn with this seed: it does not depend on --split-seed.
TEST_SEED = 0


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of the data set in front of the message of an error that the block raises."""
    try:
        yield
    except Error as error:
        raise type(error)(f"{name}: {error}") from error


def drawn(raw: RawData, spec: DataSpec) -> dict[str, RawSplit]:
    """Return the train, val and test split of a data set, the last one only if there is one.

    Validation is split off before the subset is taken, so that every subset is validated on the same images.
    """
    train, val, test = raw.train, raw.val, raw.test
    with naming(spec.name):
        if test is None and raw.test_fraction is not None:
            train, test = train.hold_out(raw.test_fraction, TEST_SEED, spec.split_by)
        if val is None:
            seed = derive("validation", spec.split_seed)
            train, val = train.hold_out(spec.validation, seed, spec.split_by, "validation")
    train = train.take(spec.subset, derive("subset", spec.split_seed), spec.split_by)
    return {"train": train, "val": val} | ({} if test is None else {"test": test})


def learned_again(raw: RawData, files: Files, before: DataSpec, now: DataSpec) -> dict[str, int]:
    """Return for each split that is drawn from the training images how many of it were in the train split ``before``.

    For that the split is drawn again; without an entry if it is not the one that ``before`` describes, and for splits
    that share no image with it.
    """
    trained = drawn(raw, before)["train"] if before.name == now.name and "train" in before.splits else None
    if trained is None or fingerprint_of(trained, raw.classes, files.of(trained)) != before.splits["train"]:
        return {}
    channels, size = raw.channels or 1, raw.image_size or 8
    # Each image is its own number, in each channel.
    rows = torch.arange(len(raw.train)).view(torch.uint8).reshape(-1, 1, 1, 8).expand(-1, channels, -1, -1)
    train = RawSplit(rows, raw.train.labels, raw.train.keys)
    numbered = dataclasses.replace(raw, train=train, channels=channels, image_size=size, mean=None, std=None)
    seen = _numbers(drawn(numbered, before)["train"])
    fixed = {"train"} | {name for name, split in (("val", raw.val), ("test", raw.test)) if split is not None}
    both = {name: len(seen & _numbers(part)) for name, part in drawn(numbered, now).items() if name not in fixed}
    return {name: images for name, images in both.items() if images}


def _numbers(split: RawSplit) -> set[int]:
    """Return the numbers that the images of a split are."""
    assert isinstance(split.images, Tensor)
    return set(split.images[:, 0].flatten().view(torch.int64).tolist())


def opened(
    raw: RawData,
    files: Files,
    form: Form,
    spec: DataSpec,
    before: DataSpec | None,
    unlabelled: tuple[str, RawSplit] | None,
) -> Data:
    """Split a data set and prepare its images for ``spec``; the unlabelled images follow those of the train split.

    ``before`` describes the same data set as a checkpoint remembers it.
    """
    # Checked first, since everything else is about the wrong data set if they differ.
    places = positions(
        raw.classes, spec.classes, spec.name, "the network", "name the right data set with --data or --data-dir"
    )
    parts = drawn(raw, spec)
    if unlabelled is not None:
        with naming(f"--unlabelled {unlabelled[0]}"):
            files.add(unlabelled[1])
            files.check()
            white, _ = white_of(files.of(unlabelled[1]) or ())
        if white is not None and spec.white is None:
            spec = dataclasses.replace(spec, white=white)
        elif white not in (None, spec.white):
            tell(f"--unlabelled {unlabelled[0]}: {spec.white} is read as white, as in {spec.name}, not {white}")
        parts["unlabelled"] = unlabelled[1]
    for name, part in parts.items():
        check_differ(spec.name, name, part, spec.preparation)
    prints = {name: fingerprint_of(part, raw.classes, files.of(part)) for name, part in parts.items()}
    spec = dataclasses.replace(spec, splits=prints)
    say_duplicates(spec.name, parts, files)
    if before is not None:
        say_changes(before, spec, partial(learned_again, raw, files, before, spec))
        if (
            before.name == spec.name
            and not before.splits
            and raw.train.keys is not None
            and (raw.val is None or raw.test_fraction is not None)
        ):
            say_older(spec)
    if places is not None:
        order = torch.tensor(places)
        parts = {name: part if name == "unlabelled" else part.labelled_by(order) for name, part in parts.items()}
    # What fits in memory is decided for all splits together.
    in_memory = fits_in_memory(sum(map(len, parts.values())), spec.in_channels, spec.image_size)
    plain = {
        name: plain_images(part, spec.preparation, prints[name]["hash"], in_memory=in_memory)
        for name, part in parts.items()
    }
    labels = {name: part.labels for name, part in parts.items()}
    return _prepared(plain, labels, spec, raw, form, None if unlabelled is None else unlabelled[0])


def _prepared(
    plain: dict[str, Images],
    labels: dict[str, Tensor],
    spec: DataSpec,
    raw: RawData,
    form: Form,
    unlabelled: str | None,
) -> Data:
    """Prepare the views of all splits in the same way, and join images without labels to the train split."""
    side = raw.image_size or form.size
    padding = side // 8 if raw.padding is None else raw.padding
    # A mirrored photograph shows the same class; a gray image may be a letter, which a mirror changes.
    flip = form.channels == 3 if raw.flip is None else raw.flip
    changes = changes_of(spec.split_seed, spec.augment, spec.erase, spec.mean)
    images = {
        name: images_of(
            part,
            spec.preparation,
            padding=Fraction(padding, side),
            flip=flip,
            augment=spec.augment != "none" and name in ("train", "unlabelled"),
            changes=changes if name in ("train", "unlabelled") else None,
            seed=spec.split_seed,
        )
        for name, part in plain.items()
    }
    splits = {name: Split(name, images[name], labels[name], spec) for name in plain}
    train = splits["train"]
    if unlabelled is not None:
        joined = torch.cat([labels["train"], labels["unlabelled"]])
        train = Split("train", JoinedImages(images["train"], images["unlabelled"]), joined, spec)
    again = partial(_prepared, plain, labels, raw=raw, form=form, unlabelled=unlabelled)
    given = {"val": raw.val, "test": raw.test}
    drawn_here = tuple(name for name, split in given.items() if split is None and name in splits)
    return Data(spec, train, splits["val"], splits.get("test"), unlabelled, again, drawn_here)


def images_of(
    plain: Images,
    prepared: Preparation,
    *,
    padding: Fraction,
    flip: bool,
    augment: bool,
    changes: Changes | None,
    seed: int,
) -> Images:
    """Return `plain_images` with their views; without ``augment`` and ``changes`` every view is plain.

    ``padding`` is a fraction of the side of an image; ``flip`` says whether a view may mirror images. ``changes`` are
    made after all else.
    """
    size = prepared.size
    if isinstance(plain, FileImages) and size > SMALL:
        return FileImages(plain.paths, prepared, seed=seed, flip=flip, augment=augment, changes=changes)
    kept = plain.size if isinstance(plain, MemoryImages) else size
    images = _shifted(plain, round(padding * kept), flip, seed) if augment else plain
    return _changed(images if kept == size else GrownImages(images, size, prepared.interpolation), changes)


def _shifted(plain: Images, padding: int, flip: bool, seed: int) -> Images:
    return ShiftedImages(plain, seed=seed, padding=padding, flip=flip) if padding or flip else plain


def _changed(images: Images, changes: Changes | None) -> Images:
    return images if changes is None else ChangedImages(images, changes)
