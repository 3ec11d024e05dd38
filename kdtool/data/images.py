"""The images of a split before normalisation: where they are stored, and how a view augments them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from kdtool.data.augmentation import shifted, shifts
from kdtool.data.changes import Changes
from kdtool.data.image_files import FileImages
from kdtool.data.pixels import resized, with_channels
from kdtool.data.preparation import SMALL, Preparation
from kdtool.data.raw import RawSplit
from kdtool.errors import Error
from kdtool.utils.progress import progress

# A data set is kept in memory if all of its resized images together take no more bytes than this.
IN_MEMORY_BYTES = 2**30

# How many files are read in one chunk when a whole split is loaded into memory.
READ_AT_ONCE = 256

# As many batches are changed together as take at most about this many bytes: the more images there are, the more of
# them go through the same operation.
TOGETHER_BYTES = 2**24


class Images(Protocol):
    """Images that are read in batches; view None leaves them plain, view k is their k-th augmentation."""

    def __len__(self) -> int:
        """Return the number of images."""

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""


class MemoryImages:
    """Plain images in one uint8 tensor, which is created at its first use."""

    def __init__(
        self, source: Tensor | FileImages, *, size: int, channels: int, interpolation: str = "bilinear"
    ) -> None:
        """Remember ``source``: uint8 images [images, channels, height, width], or files to read."""
        self.source, self.size, self.channels, self.interpolation = source, size, channels, interpolation
        self.copies: dict[torch.device, Tensor] = {}
        """The same pixels on other devices."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process, which has other devices."""
        return {**vars(self), "copies": {}}

    def __len__(self) -> int:
        return len(self.source)

    @property
    def bytes(self) -> int:
        """The memory that all images take."""
        return len(self) * self.channels * self.size**2

    @cached_property
    def pixels(self) -> Tensor:
        """All images, uint8 [images, channels, size, size]."""
        if isinstance(self.source, Tensor):
            return resized(with_channels(self.source, self.channels), self.size, self.interpolation)
        chunks = torch.arange(len(self)).split(READ_AT_ONCE)
        pixels = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        with progress("reading images", len(chunks)) as advance:
            for chunk, images in zip(chunks, self.source.batches(chunks, None), strict=True):
                pixels[chunk] = images
                advance()
        return pixels

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        for chunk in chunks:
            yield self.pixels.index_select(0, chunk)


class DeviceImages:
    """Plain images in the memory of a device, which are copied there at their first use."""

    def __init__(self, memory: MemoryImages, device: torch.device) -> None:
        """Copy ``memory`` to ``device``; all who ask for the same images there share one copy."""
        self.memory, self.device = memory, device

    def __len__(self) -> int:
        return len(self.memory)

    @property
    def bytes(self) -> int:
        """The memory of the device that the images are going to take; 0 if they are there."""
        return 0 if self.device in self.memory.copies else self.memory.bytes

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] on the device for each tensor of indices on the CPU."""
        copies = self.memory.copies
        if self.device not in copies:
            copies[self.device] = self.memory.pixels.to(self.device)
        for chunk in chunks:
            yield copies[self.device].index_select(0, chunk.to(self.device, non_blocking=True))


class ShiftedImages:
    """Images that a view pads, crops at a random place and mirrors."""

    def __init__(self, plain: Images, *, seed: int, padding: int, flip: bool) -> None:
        """Augment ``plain``; ``padding`` is in pixels."""
        self.plain, self.seed, self.padding, self.flip = plain, seed, padding, flip

    def __len__(self) -> int:
        return len(self.plain)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        plain = self.plain.batches(chunks, None)
        if view is None:
            yield from plain
            return
        view_shifts = shifts(len(self), self.seed, view, padding=self.padding, flip=self.flip)
        for chunk, images in zip(chunks, plain, strict=True):
            yield shifted(images, chunk, view_shifts, self.padding)


class GrownImages:
    """Small images enlarged batch by batch, because all of them together would not fit in memory at that size."""

    def __init__(self, small: Images, size: int, interpolation: str = "bilinear") -> None:
        """Resize the images of ``small`` to ``size`` pixels, after they were augmented at their own size."""
        self.small, self.size, self.interpolation = small, size, interpolation

    def __len__(self) -> int:
        return len(self.small)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        for images in self.small.batches(chunks, view):
            yield resized(images, self.size, self.interpolation)


class ChangedImages:
    """Images that are changed in every view, after all else."""

    def __init__(self, images: Images, changes: Changes) -> None:
        """Change the views of ``images``."""
        self.images, self.changes = images, changes

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        batches = self.images.batches(chunks, view)
        if view is None:
            yield from batches
            return
        # At first few, so that who wants a single batch does not wait for many.
        waiting, together = iter(chunks), 1
        while indices := list(islice(waiting, together)):
            images = torch.cat(list(islice(batches, together)))
            yield from self.changes(images, torch.cat(indices), view).split([len(chunk) for chunk in indices])
            if images.nbytes <= TOGETHER_BYTES // 2:
                together *= 2


class JoinedImages:
    """The images of one source, followed by those of another."""

    def __init__(self, first: Images, second: Images) -> None:
        """Concatenate ``first`` and ``second``."""
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        border = len(self.first)
        first_chunks = [chunk[chunk < border] for chunk in chunks]
        second_chunks = [chunk[chunk >= border] - border for chunk in chunks]
        # A source is not asked for the chunks that hold none of its images.
        first = self.first.batches([indices for indices in first_chunks if len(indices)], view)
        second = self.second.batches([indices for indices in second_chunks if len(indices)], view)
        for chunk, of_first, of_second in zip(chunks, first_chunks, second_chunks, strict=True):
            parts = [next(batches) for batches, indices in ((first, of_first), (second, of_second)) if len(indices)]
            pixels = torch.cat(parts)
            # Those of the first source come first now; a stable sort of the two kinds says which is where.
            places = (chunk >= border).to(torch.uint8).argsort(stable=True).argsort()
            yield pixels.index_select(0, places.to(pixels.device, non_blocking=True))


class SelectedImages:
    """Some of the images of a source, in the order of their indices."""

    def __init__(self, images: Images, indices: Tensor) -> None:
        """Select ``indices``, int64 [selected], from ``images``."""
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        yield from self.images.batches([self.indices[chunk] for chunk in chunks], view)


class HostOnlyError(Error):
    """The views of some images are made in the memory of the host alone."""


def images_on(images: Images, device: torch.device) -> tuple[Images, int]:
    """Return the same images with views that are made on ``device``, and how many bytes of its memory they will take.

    Their pixels are the same to the bit: random numbers are drawn on the CPU, and what is done with an image moves
    pixels and computes nothing. So images that are resized, or changed by operations of torchvision, stay where they
    are, since each kind of device rounds in its own way.

    Raises:
        HostOnlyError: they are such images, or they are not in memory.
    """
    match images:
        case MemoryImages():
            copy = DeviceImages(images, device)
            return copy, copy.bytes
        case ShiftedImages():
            plain, taken = images_on(images.plain, device)
            return ShiftedImages(plain, seed=images.seed, padding=images.padding, flip=images.flip), taken
        case JoinedImages():
            (first, of_first), (second, of_second) = images_on(images.first, device), images_on(images.second, device)
            return JoinedImages(first, second), of_first + of_second
        case SelectedImages():
            source, taken = images_on(images.images, device)
            return SelectedImages(source, images.indices), taken
        case ChangedImages():
            raise HostOnlyError("--augment trivial and rand, and --erase, change images on the CPU")
        case GrownImages():
            raise HostOnlyError(f"the images are enlarged to {images.size} pixels batch by batch, on the CPU")
        case _:
            raise HostOnlyError("the images are read from their files in each epoch")


def fits_in_memory(images: int, channels: int, size: int) -> bool:
    """Return whether ``images`` images [channels, size, size] are kept in memory."""
    return images * channels * size**2 <= IN_MEMORY_BYTES


_decoded: dict[str, MemoryImages] = {}
"""Images that were read from files, by the fingerprint of their split. The steps of a chain read them once."""


def _memory_of(files: FileImages, fingerprint: str) -> MemoryImages:
    """Return the images of files in memory: those of an earlier call if it was the same split, prepared alike.

    The latest splits are kept, as many as fit into what one data set may take.
    """
    memory = _decoded.pop(fingerprint, None)
    source = None if memory is None else memory.source
    # The fingerprint knows nothing of the order of the images.
    same = isinstance(source, FileImages) and source.prepared == files.prepared and source.paths == files.paths
    if memory is None or not same:
        memory = MemoryImages(files, size=files.prepared.size, channels=files.prepared.channels)
    _decoded[fingerprint] = memory
    while len(_decoded) > 1 and sum(images.bytes for images in _decoded.values()) > IN_MEMORY_BYTES:
        del _decoded[next(iter(_decoded))]
    return memory


def plain_images(split: RawSplit, prepared: Preparation, fingerprint: str, *, in_memory: bool) -> Images:
    """Return the images of a split as ``prepared`` says, or smaller ones that are enlarged later.

    ``fingerprint`` is the hash of the split's. They are read, or resized, at their first use.
    """
    size, channels = prepared.size, prepared.channels
    if isinstance(split.images, Tensor):
        kept = size if in_memory else min(split.images.shape[2:])
        return MemoryImages(split.images, size=kept, channels=channels, interpolation=prepared.interpolation)
    files = FileImages(split.images, prepared)
    return _memory_of(files, fingerprint) if in_memory and size <= SMALL else files
