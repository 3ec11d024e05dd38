"""Replace the network's architecture, for example by a smaller one of the same family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Refiner, Source, UsageError, make, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdtool import Network


SIZE_WORDS = ("atto", "femto", "pico", "nano", "tiny", "mini", "small", "medium", "base", "large", "xlarge", "huge")

SIZES = re.compile(r"\d+|(?<![a-z])(?:" + "|".join(SIZE_WORDS) + r"|[xsmlt]+)(?![a-z])")
"""What tells the members of a family apart in their names: numbers, words and letters for sizes."""

MOST_MEMBERS = 12


class Like(Refiner):
    """Build another architecture for the same images and classes, with fresh weights."""

    also_called: ClassVar[tuple[str, ...]] = ("arch", "model", "network", "student")

    must_shrink: ClassVar[bool] = False

    arch: str = option(help="the architecture: SOURCE:NAME, such as timm:resnet18")
    init: str = option(
        "fresh", choices=("fresh", "inherit"), help="only fresh: another architecture has no weights to inherit"
    )

    def __post_init__(self) -> None:
        """Check that the architecture exists."""
        from kdtool.models import check_name

        super().__post_init__()
        if self.init == "inherit":
            raise UsageError("--init inherit: another architecture has no weights to inherit; leave it out")
        try:
            check_name(self.arch)
        except UsageError as error:
            raise UsageError(f"--arch {self.arch}: {error}") from error

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return the smaller members of the network's own family, by their MACs."""
        import torch

        from kdtool.models import create_like, macs

        own = network.architecture
        source: Source = make("teachers", own.source)
        smaller: dict[str, int] = {}
        for name in family(own.name, source.networks())[:MOST_MEMBERS]:
            spec = f"{own.source}:{name}"
            try:
                with torch.device("meta"):  # shapes alone
                    member = create_like(spec, network, seed=0)
                smaller[spec] = macs(member.module, own.input)
            except (Error, RuntimeError, NotImplementedError):  # not for these images, or it computes while it is built
                continue
        limit = macs(network.module, own.input)
        order = sorted(smaller, key=smaller.__getitem__, reverse=True)
        return [[{"arch": spec} for spec in order if smaller[spec] < limit]]

    def refine(self, network: Network) -> Network:
        """Return a network of the architecture ``arch`` for the images and classes of ``network``."""
        from kdtool.models import create_like

        return create_like(self.arch, network)


def family(name: str, names: Sequence[str]) -> list[str]:
    """Return the members of a network's family that may be smaller, by their names.

    Their names differ in numbers and sizes alone, and none of their numbers is larger: resnet10t for resnet18.
    """
    numbers = _numbers(name)
    members = [other for other in names if other != name and SIZES.sub("", other) == SIZES.sub("", name)]
    return [
        other
        for other in members
        if len(_numbers(other)) == len(numbers) and all(a <= b for a, b in zip(_numbers(other), numbers, strict=True))
    ]


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]
