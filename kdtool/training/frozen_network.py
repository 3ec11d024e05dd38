"""A frozen network: what it makes of each image is computed once, kept on disk, and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdtool.features.segments import Segment
from kdtool.features.taps import Tap
from kdtool.training.engine import Engine
from kdtool.training.output_cache import Cache, CachedArray, as_read

LOGITS = "logits"


class FrozenNetwork:
    """A network in eval mode, without gradients, whose logits and maps are cached for each image and view.

    Logits are kept as float32, maps as the bfloat16 that they come in or as float16, in the order in which they lie in
    memory, and rounded alike whether they are computed now or read back, so that a loss cannot tell the difference.
    What is not there yet is computed from the last tap that is, or the images.
    """

    def __init__(
        self,
        module: nn.Module,
        keys: Mapping[str, str],
        engine: Engine,
        cache: Cache | None,
        *,
        cut: Sequence[Segment] = (),
    ) -> None:
        """Freeze ``module``; ``keys`` are fingerprints of the weights that decide the output at a tap (by its path),
        and the logits. ``cut`` are its segments, where it can be run from one tap to the next; without a cache it runs
        in every step."""
        self.module = engine.place(module).eval().requires_grad_(False)
        self.keys, self.engine, self.cache = keys, engine, cache
        self.cut = list(cut) or [Segment()]

    def look(
        self, wanted: Sequence[Tap | str], *, split: str, images: int, view: int | None, keep: bool = True
    ) -> CachedView:
        """Return what the network makes of a view (None: plain) of the ``images`` of a split, to be asked by batch.

        ``wanted`` are taps, and `LOGITS`; ``keep`` False leaves the disk alone (a view that never comes again).
        """
        name = f"{split}-{images}-{'plain' if view is None else view}"
        return CachedView(self, wanted, name, images, keep and self.cache is not None)

    def after(self, tap: Tap) -> Segment | None:
        """Return the segment that begins at a tap, where the network can be cut there."""
        return next((segment for segment in self.cut if segment.begin == tap), None)

    def run(
        self, begin: Tap | None, end: Tap | None, x: Tensor, watch: Sequence[Tap]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output at ``end`` (None: the logits) from images or the output at ``begin``, and the watched."""
        first = self.cut[0] if begin is None else self.after(begin)
        assert first is not None
        segment = Segment(begin, end, first.skipped, first.image)
        with torch.no_grad(), self.engine.autocast():
            return segment.run(self.module, x, watch)


class CachedView:
    """One view of a split as a frozen network sees it: read where it is whole, else computed and written."""

    def __init__(
        self, frozen: FrozenNetwork, wanted: Sequence[Tap | str], view: str, images: int, caching: bool
    ) -> None:
        """Open what there is."""
        self.frozen, self.wanted, self.view, self.images, self.caching = frozen, list(wanted), view, images, caching
        self.arrays: dict[Tap | str, CachedArray | None] = {}
        self.missing = [one for one in self.wanted if not self._open(one)]
        self.start = self._start() if self.missing else None
        self.began = False

    @property
    def needs_images(self) -> bool:
        """Whether something has to be computed from the images themselves."""
        return bool(self.missing) and self.start is None

    def __call__(self, indices: Tensor, images: Tensor | None) -> list[Tensor]:
        """Return what is wanted of a batch, [batch, ...], on the engine's device: bfloat16 where a layer put that out,
        else float32."""
        device = self.frozen.engine.device
        found = {
            one: self._as_map(one, array.read(indices))
            for one, array in self.arrays.items()
            if array and not array.filling
        }
        if self.missing:
            found |= self._compute(indices, images if self.start is None else found[self.start].to(device))
        return [found[one].to(device) for one in self.wanted]

    def close(self) -> None:
        """Make what was filled readable; call it only after every image was seen."""
        for array in self.arrays.values():
            if array is not None:
                array.close()

    def _name(self, one: Tap | str) -> str:
        path, engine = one.path if isinstance(one, Tap) else one, self.frozen.engine
        form = engine.precision + "-nhwc" * self._turned(one)
        return f"{self.frozen.keys[path]}-{self.view}-{form}-{path}"

    def _turned(self, one: Tap | str) -> bool:
        """Whether channels come last on the disk, as they do in memory; anything else would be moved in every step."""
        return self.frozen.engine.channels_last and isinstance(one, Tap) and one.layout == "nchw"

    def _as_map(self, one: Tap | str, rows: Tensor) -> Tensor:
        return rows.permute(0, 3, 1, 2) if self._turned(one) else rows

    def _as_kept(self, one: Tap | str, rows: Tensor) -> Tensor:
        return rows.permute(0, 2, 3, 1) if self._turned(one) else rows

    def _open(self, one: Tap | str) -> bool:
        cache = self.frozen.cache
        if not self.caching or cache is None or not cache.ready(self._name(one)):
            return False
        self.arrays[one] = cache.open(self._name(one))
        return True

    def _start(self) -> Tap | None:
        """Open the last tap before all that is missing that is whole."""
        ends = [segment.end for segment in self.frozen.cut if segment.end is not None]
        first = min(ends.index(one) if isinstance(one, Tap) and one in ends else len(ends) for one in self.missing)
        if any(isinstance(one, Tap) and one not in ends for one in self.missing):
            first = 0  # a tap at which the network cannot be cut, somewhere
        for tap in reversed(ends[:first]):
            if tap in self.arrays or self._open(tap):
                return tap
        return None

    def _compute(self, indices: Tensor, x: Tensor | None) -> dict[Tap | str, Tensor]:
        assert x is not None
        taps = [one for one in self.missing if isinstance(one, Tap)]
        ends = [segment.end for segment in self.frozen.cut if segment.end is not None]
        cuttable = LOGITS not in self.missing and all(tap in ends for tap in taps)
        end = max(taps, key=ends.index) if cuttable else None
        output, maps = self.frozen.run(self.start, end, x, taps)
        found: dict[Tap | str, Tensor] = {tap: as_read(maps[tap.path]) for tap in taps}
        if LOGITS in self.missing:
            found[LOGITS] = output.float()
        if not self.began:
            self._begin(found)
        for one, rows in found.items():
            array = self.arrays.get(one)
            if array is not None:
                found[one] = self._as_map(one, array.write(indices, self._as_kept(one, rows)))
        return found

    def _begin(self, found: dict[Tap | str, Tensor]) -> None:
        """Make room for what is computed."""
        self.began = True
        cache = self.frozen.cache
        if not self.caching or cache is None:
            return
        for one, rows in found.items():
            half = torch.bfloat16 if rows.dtype == torch.bfloat16 else torch.float16
            shape = (self.images, *self._as_kept(one, rows).shape[1:])
            self.arrays[one] = cache.create(self._name(one), shape, torch.float32 if one == LOGITS else half)
