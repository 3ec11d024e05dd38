"""Name the source of the method here: authors, title, year, arXiv number."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from kdtool import Exporter, Network


class Weights(Exporter):
    """Write the weights alone, as safetensors."""

    suffix: ClassVar[str] = ".safetensors"

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Any = None,
    ) -> dict[str, Any]:
        from safetensors.torch import save_file

        save_file(network.module.state_dict(), output, metadata=dict(metadata))
        return {"file": str(output), "file_bytes": output.stat().st_size}
