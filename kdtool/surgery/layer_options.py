"""The options that say which layers a pruner or a refiner may change."""

from __future__ import annotations

from collections.abc import Sequence

from kdtool.plugins.options import Options, option
from kdtool.utils.patterns import matching, shown
from kdtool.utils.progress import say_once


class LayerOptions(Options):
    """Which layers are changed; the others stay as they are."""

    only: tuple[str, ...] = option((), help="change these layers alone, such as layer3,layer4.*.conv1")
    skip: tuple[str, ...] = option((), help="leave these layers as they are, such as conv1,fc")

    @property
    def restricts(self) -> bool:
        """Whether some layers are left."""
        return bool(self.only or self.skip)

    def chosen(self, names: Sequence[str], spec: str) -> set[str]:
        """Return those of the layers ``names`` that may be changed; ``spec`` names the network in an error.

        Raises:
            UsageError: a pattern matches no layer.
        """
        only, skip = self.matched(names, spec)
        return only - skip

    def matched(self, names: Sequence[str], spec: str) -> tuple[set[str], set[str]]:
        """Return the layers that match ``only`` (all of them without it), and those that match ``skip``.

        Raises:
            UsageError: a pattern matches no layer.
        """
        only = matching(self.only, names, "--only", spec) if self.only else set(names)
        return only, matching(self.skip, names, "--skip", spec)

    def tell_left(self, left: Sequence[str], what: str = "layers") -> None:
        """Say which layers are left, if any are."""
        if left:
            say_once(f"{len(left)} {what} stay as they are: {shown(left)}")
