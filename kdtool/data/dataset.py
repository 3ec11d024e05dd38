"""The contract of a data set plugin."""

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

        ``argument`` is the text after the colon (the PATH of ``folder:PATH``), empty without a colon; ``root`` is the
        value of ``--data-dir`` or ``KDTOOL_DATA``.

        Raises:
            kdtool.Error: the files are missing or hold no images; the message says what to do.
        """
        raise NotImplementedError

    def images(self, argument: str, root: Path | None) -> Tensor | tuple[Path, ...]:
        """Return images for training without labels, in the form of `RawSplit.images`; by default the train split's.

        Raises:
            kdtool.Error: there are no images; the message says what to do.
        """
        return self.load(argument, root).train.images
