"""The contract of an exporter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.plugins.method import Method

if TYPE_CHECKING:
    from kdtool.models.architecture import Network


class Exporter(Method):
    """Write a network in another format and measure it."""

    kind: ClassVar[str] = "exporters"
    suffix: ClassVar[str] = ""
    """How the name of its file ends, such as ``.onnx``."""

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Any = None,
    ) -> dict[str, Any]:
        """Write ``output`` and return what was measured, as plain data.

        ``metadata`` goes into the file; ``teacher`` is what the latency is compared with; ``test``
        is an iterable of (images, labels) batches of the test split.
        """
        raise NotImplementedError
