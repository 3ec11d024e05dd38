"""The contract of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool.plugins.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool.data.raw import RawData


class Dataset(Method):
    """Read a data set."""

    kind: ClassVar[str] = "datasets"

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the data set.

        ``argument`` is what stood behind the colon (``folder:PATH``); ``root`` is the value of
        ``--data-dir`` or ``KDTOOL_DATA``.

        Raises:
            kdtool.Error: the files are not there or hold no images; the message says what to do.
        """
        raise NotImplementedError

    def images(self, argument: str, root: Path | None) -> Tensor | tuple[Path, ...]:
        """Return images to learn from without labels, as a `kdtool.RawSplit` has them: by default those of the train
        split.

        Raises:
            kdtool.Error: there are none; the message says what to do.
        """
        return self.load(argument, root).train.images
