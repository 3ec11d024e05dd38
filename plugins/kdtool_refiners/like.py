"""Replace the network's architecture, for example by a smaller one of the same family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Refiner, Source, UsageError, make, option

if TYPE_CHECKING:
    from kdtool import Network


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

    def refine(self, network: Network) -> Network:
        """Return a network of the architecture ``arch`` for the images and classes of ``network``."""
        from kdtool.models import create_like

        return create_like(self.arch, network)
