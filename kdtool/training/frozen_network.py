"""A frozen network whose outputs on each image are computed once, kept on disk and read back."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.features.segments import Segment
from kdtool.features.taps import Tap
from kdtool.training.engine import Engine
from kdtool.training.optimization.fast_convolutions import convolutions, fast_convolutions
from kdtool.training.output_cache import Cache, CachedArray, rounded
from kdtool.training.recording.frozen import RecordedForward
from kdtool.training.recording.graph import unknown_code

LOGITS = "logits"


class FrozenNetwork:
    """A network in eval mode, without gradients, whose logits and maps are cached for each image and view.

    Logits are stored as float32, maps as bfloat16 if they are computed so, else as float16, in their order in memory.
    Outputs that are computed now are rounded like those that are read back, with and without a cache: at each cut while
    the network runs, so that what lies behind it is the same from the images as from the cached tap. A missing output
    is computed from the last cached tap before it, else from the images.
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
        """Freeze ``module``.

        ``keys`` are the fingerprints, by the name of a tap and for `LOGITS`, of the weights that decide that output.
        ``cut`` are the segments of the network, if it can be run from one tap to the next. Without a cache it runs in
        every step.
        """
        self.module = engine.place(module).eval().requires_grad_(False)
        self.keys, self.engine, self.cache = keys, engine, cache
        records = engine.records and (engine.records_all or not unknown_code([module]))
        self.recorded = RecordedForward(engine.device, wanted=engine.records_all) if records else None
        self.cut = list(cut) or [Segment()]
        self.ends = [segment.end for segment in self.cut if segment.end is not None]
        self.kernels = convolutions(self.module) if engine.fast_layers else []
        # What lies behind a cut depends on where the network is cut.
        self.way = f"-{zlib.crc32(repr([tap.name for tap in self.ends]).encode()):08x}" if self.ends else ""

    def look(
        self, wanted: Sequence[Tap | str], *, split: str, images: int, view: int | None, keep: bool = True
    ) -> CachedView:
        """Return the network's outputs on one view (None: not augmented) of a split of ``images`` images, by batch.

        ``wanted`` are taps and `LOGITS`. With ``keep=False`` nothing is written, for a view that does not recur.
        """
        name = f"{split}-{images}-{'plain' if view is None else view}"
        return CachedView(self, wanted, name, images, keep and self.cache is not None)

    def after(self, tap: Tap) -> Segment | None:
        """Return the segment that begins at a tap, or None if the network cannot be cut there."""
        return next((segment for segment in self.cut if segment.begin == tap), None)

    def run(
        self, begin: Tap | None, end: Tap | None, x: Tensor, watch: Sequence[Tap]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output at ``end`` (None: the logits) and those at the taps ``watch``, by their names.

        ``x`` is the output at ``begin`` (None: images).
        """
        first = self.cut[0] if begin is None else self.after(begin)
        assert first is not None
        segment = Segment(begin, end, first.skipped, first.image)
        if self.recorded is None:
            return self._forward(segment, x, watch)
        return self.recorded((begin, end, *watch), lambda images: self._forward(segment, images, watch), x)

    def _forward(self, segment: Segment, x: Tensor, watch: Sequence[Tap]) -> tuple[Tensor, dict[str, Tensor]]:
        with contextlib.ExitStack() as stack, torch.no_grad(), self.engine.autocast():
            stack.enter_context(fast_convolutions(self.kernels))
            for tap in self.ends:
                if tap != segment.begin:  # what a segment begins with was rounded before
                    stack.callback(self._rounding(tap).remove)
            return segment.run(self.module, x, watch)

    def turned(self, output: Tap | str) -> bool:
        """Return whether channels come last on disk, as they do in memory; else every step would have to move them."""
        return self.engine.channels_last and isinstance(output, Tap) and output.layout == "nchw"

    def as_map(self, output: Tap | str, rows: Tensor) -> Tensor:
        """Return rows as the array of an output holds them as the output itself."""
        return rows.permute(0, 3, 1, 2) if self.turned(output) else rows

    def as_kept(self, output: Tap | str, rows: Tensor) -> Tensor:
        """Return an output as its array holds it."""
        return rows.permute(0, 2, 3, 1) if self.turned(output) else rows

    def as_read(self, tap: Tap, rows: Tensor) -> Tensor:
        """Return the output of a tap as it is read back: rounded, and in that order in memory."""
        return self.as_map(tap, self.as_kept(tap, rounded(rows)).contiguous())

    def _rounding(self, tap: Tap) -> Any:
        """Let the layers behind a tap read its output as it is read back."""
        layer = self.module.get_submodule(tap.path)
        return layer.register_forward_hook(lambda _, __, output: self.as_read(tap, output))


class CachedView:
    """The outputs of a frozen network on one view of a split: read if they are complete, else computed and written."""

    def __init__(
        self, frozen: FrozenNetwork, wanted: Sequence[Tap | str], view: str, images: int, caching: bool
    ) -> None:
        """Open the complete arrays."""
        self.frozen, self.wanted, self.view, self.images, self.caching = frozen, list(wanted), view, images, caching
        self.arrays: dict[Tap | str, CachedArray | None] = {}
        self.missing = [output for output in self.wanted if not self._open(output)]
        self.start = self._start() if self.missing else None
        self.began = False

    @property
    def needs_images(self) -> bool:
        """Whether an output has to be computed from the images themselves."""
        return bool(self.missing) and self.start is None

    def __call__(self, indices: Tensor, images: Tensor | None) -> list[Tensor]:
        """Return the wanted outputs [batch, ...] of a batch on the engine's device.

        They are bfloat16 where a layer computes in it, else float32.
        """
        device = self.frozen.engine.device
        outputs = {
            output: self.frozen.as_map(output, array.read(indices))
            for output, array in self.arrays.items()
            if array and not array.filling
        }
        if self.missing:
            outputs |= self._compute(indices, images if self.start is None else outputs[self.start].to(device))
        return [outputs[output].to(device) for output in self.wanted]

    def close(self) -> None:
        """Make the filled arrays readable; call this only after every image was seen."""
        for array in self.arrays.values():
            if array is not None:
                array.close()

    def _name(self, output: Tap | str) -> str:
        name, engine = output.name if isinstance(output, Tap) else output, self.frozen.engine
        # Logits are laid out alike, but are computed by other kernels, whose last bits differ.
        last = self.frozen.turned(output) or (output == LOGITS and engine.channels_last)
        form = engine.precision + self.frozen.way + "-nhwc" * last
        return f"{self.frozen.keys[name]}-{self.view}-{form}-{name}"

    def _open(self, output: Tap | str) -> bool:
        cache = self.frozen.cache
        if not self.caching or cache is None or not cache.ready(self._name(output)):
            return False
        self.arrays[output] = cache.open(self._name(output))
        return True

    def _start(self) -> Tap | None:
        """Return the last tap with a complete array in front of all missing outputs, and open its array."""
        ends = self.frozen.ends
        first = min(
            ends.index(output) if isinstance(output, Tap) and output in ends else len(ends) for output in self.missing
        )
        if any(isinstance(output, Tap) and output not in ends for output in self.missing):
            first = 0  # the network cannot be cut at that tap: it may lie anywhere
        for tap in reversed(ends[:first]):
            if tap in self.arrays or self._open(tap):
                return tap
        return None

    def _compute(self, indices: Tensor, x: Tensor | None) -> dict[Tap | str, Tensor]:
        assert x is not None
        taps = [output for output in self.missing if isinstance(output, Tap)]
        ends = self.frozen.ends
        cuttable = LOGITS not in self.missing and all(tap in ends for tap in taps)
        end = max(taps, key=ends.index) if cuttable else None
        logits, maps = self.frozen.run(self.start, end, x, taps)
        outputs: dict[Tap | str, Tensor] = {tap: self.frozen.as_read(tap, maps[tap.name]) for tap in taps}
        if LOGITS in self.missing:
            outputs[LOGITS] = logits.float()
        if not self.began:
            self._begin(outputs)
        for output, rows in outputs.items():
            array = self.arrays.get(output)
            if array is not None:
                array.write(indices, self.frozen.as_kept(output, rows))
        return outputs

    def _begin(self, outputs: dict[Tap | str, Tensor]) -> None:
        """Create the arrays of the outputs that are computed."""
        self.began = True
        cache = self.frozen.cache
        if not self.caching or cache is None:
            return
        for output, rows in outputs.items():
            half = torch.bfloat16 if rows.dtype == torch.bfloat16 else torch.float16
            shape = (self.images, *self.frozen.as_kept(output, rows).shape[1:])
            self.arrays[output] = cache.create(self._name(output), shape, torch.float32 if output == LOGITS else half)
