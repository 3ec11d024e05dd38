"""The contract of a refiner, and the function that runs a refiner and checks its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.errors import Error, UsageError
from kdtool.plugins.method import Method
from kdtool.plugins.method_code import not_overridden, returned, running_method
from kdtool.plugins.options import option
from kdtool.surgery.repair.options import RepairOptions
from kdtool.utils.progress import say
from kdtool.utils.seeds import derive, seeded

if TYPE_CHECKING:
    from kdtool.data.splits import Data
    from kdtool.models.architecture import Network


EVEN = 4
"""For numbers of channels that are no multiples of this onnxruntime has slower code: a ResNet-18 without 63 % of its
multiply-accumulates takes 0.83 of the time with widths of 38 and 151, 0.33 with 40 and 152 (docs/guides/budget.md)."""


class Refiner(Method):
    """Make a smaller structure of a network."""

    kind: ClassVar[str] = "refiners"
    must_shrink: ClassVar[bool] = True
    """Whether a result that is not smaller is an error. False for refiners whose user names the result."""

    init: str = option(
        "fresh",
        choices=("fresh", "inherit"),
        help="start from fresh weights, or from the kept part of the old ones",
    )

    def refine(self, network: Network) -> Network:
        """Return a smaller network; the given network is not changed.

        Raises:
            kdtool.Error: this network cannot be made smaller in this way.
        """
        raise not_overridden(self, "refine")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return how this method is sized to a cost: lists of options, each from the largest result to the smallest.

        ``kdtool compress`` takes that step of a list which just meets a budget, found by bisection, so that each list
        gives a candidate. Options are plain data; where neighbours differ by a few per cent, a budget is met closely.
        The default is one list with one step, the method's default options, or none if an option is required.
        """
        return [] if any(info.required for info in cls.describe()) else [[{}]]


class InheritingRefiner(RepairOptions, Refiner):
    """Make a smaller structure, whose inherited weights are repaired if ``repair`` says so.

    With ``init="inherit"``, `refine` returns a network that says which channels its layers kept, as those of
    `kdtool.surgery.halve_widths`, `drop_blocks` and `reach_budget` do.
    """

    def __post_init__(self) -> None:
        """Check that there are weights to repair."""
        super().__post_init__()
        if self.repairs and self.init != "inherit":
            raise UsageError(f"--repair {self.repair}: fresh weights have nothing to repair; add --init inherit")


def refined(
    refiner: Refiner,
    network: Network,
    *seed: object,
    data: Data | None = None,
    record: Callable[[dict[str, Any]], None] = lambda about: None,
) -> Network:
    """Return the refiner's network; its fresh weights depend only on ``seed``.

    If the refiner repairs what it made, images of ``data`` are used, which are normalised for ``network``. What was
    repaired is given to ``record`` as plain data.

    Raises:
        UsageError: there are no images to repair with.
        Error: the network cannot be made smaller in this way.
    """
    from kdtool.models.architecture import Network
    from kdtool.models.conversion import plain
    from kdtool.models.modules import check_transparent
    from kdtool.models.size import measure

    check_transparent(network.module, "no smaller network can be made from it")
    if isinstance(refiner, InheritingRefiner):
        refiner.check_images(data)
    before = plain(network)
    with seeded("refine", *seed), running_method(refiner):
        smaller = returned(refiner, refiner.refine(before), Network, "a network")
    if refiner.must_shrink and measure(smaller)["parameters"] >= measure(before)["parameters"]:
        raise Error(
            f"{network.architecture.spec}: {refiner.name} makes it no smaller (every width is at its minimum"
            ", or there is nothing left to drop); use another refiner or fewer iterations"
        )
    _tell_uneven(refiner, before, smaller)
    if isinstance(refiner, InheritingRefiner):
        smaller = refiner.repaired(smaller, network, data, derive("repair", *seed), record)
    return smaller


def _tell_uneven(refiner: Refiner, before: Network, after: Network) -> None:
    """Say if a refiner has made widths with which a network is slow, where its options could have avoided it."""
    rounded = getattr(refiner, "round_to", None)
    if not isinstance(rounded, int) or rounded % EVEN == 0:
        return
    now, of = _uneven(after)
    if now > of / 2 and _uneven(before)[0] < now:
        say(
            f"{refiner.name}: {now} of {of} convolutions have numbers of channels that are no multiples of {EVEN}, "
            f"which onnxruntime computes slowly on many processors; --round-to {2 * EVEN} avoids them"
        )


def _uneven(network: Network) -> tuple[int, int]:
    """Return how many convolutions have more outputs than `EVEN` and no multiple of it, and how many there are."""
    from torch import nn

    widths = [layer.out_channels for layer in network.module.modules() if isinstance(layer, nn.Conv2d)]
    return sum(width > EVEN and width % EVEN > 0 for width in widths), len(widths)
