"""The options of a repair, which pruners of channels and refiners share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.errors import UsageError
from kdtool.plugins.options import Options, option
from kdtool.utils.progress import say

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool.data.splits import Data
    from kdtool.models.architecture import Network
    from kdtool.surgery.repair.network import Repaired

METHODS = ("none", "statistics", "least-squares")


class RepairOptions(Options):
    """How the layers that read removed channels are corrected, before any training."""

    used_with: ClassVar = {"repair_images": "repair"}

    repair: str = option(
        "none",
        choices=METHODS,
        help="correct the layers behind removed channels without labels: mean and variance of outputs, or all weights",
    )
    repair_images: int = option(256, minimum=2, help="images of the train split that --repair uses")

    @property
    def repairs(self) -> bool:
        """Whether there is anything to do."""
        return self.repair != "none"

    def check_images(self, data: Data | None) -> None:
        """Check that there are images to repair with, if they are needed.

        Raises:
            UsageError: there are none.
        """
        if self.repairs and data is None:
            raise UsageError("--repair needs images; name them with --data")

    def repaired(
        self,
        network: Network,
        original: Network,
        data: Data | None,
        seed: int,
        record: Callable[[dict[str, Any]], None] = lambda about: None,
    ) -> Network:
        """Return a network, repaired if the options say so; ``original`` is the one that it was cut from.

        The images are drawn from the train split by the seed, without augmentation. What was done is printed in one
        line and given to ``record`` as plain data.

        Raises:
            UsageError: there are no images.
            Error: the network does not say which channels it kept.
        """
        from kdtool.models.conversion import conversion_of, plain
        from kdtool.surgery.repair.network import repair_network

        self.check_images(data)
        if not self.repairs or data is None:
            return network
        images, conversion = drawn(data, self.repair_images, seed), conversion_of(original.module)
        if conversion is not None:
            images = conversion.images(images)
        done = repair_network(network, plain(original), images, self.repair)
        say(_line(done))
        record(done.as_data())
        return done.network


def drawn(data: Data, count: int, seed: int) -> Tensor:
    """Return images [images, channels, height, width] of the train split, all of them if there are not so many."""
    import torch

    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:count]
    return torch.cat([images for _, images, _ in data.train.batches(256, order=order)])


def _line(done: Repaired) -> str:
    """Return in words what was repaired, and what was left as it is."""
    before, after = done.errors
    text = (
        f"{done.network.architecture.spec}: repaired {len(done.layers)} layers ({done.method}, {done.images} images); "
        f"its logits differ from the whole network's by {after:.2g} of their variance, {before:.2g} before"
    )
    if not done.left:
        return text
    path, reason = next(iter(done.left.items()))
    more = f" and {len(done.left) - 1} more layers" if len(done.left) > 1 else ""
    return f"{text}; left as they are: {path} ({reason}){more}"
