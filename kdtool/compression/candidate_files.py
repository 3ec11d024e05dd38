"""What a run keeps of its candidates, and what their files reach on the validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtool.commands.export import batches_of
from kdtool.commands.onnx_input import SessionModule
from kdtool.compression.candidates import FLOAT, Candidate
from kdtool.compression.costs import SUFFIX, exporter_for, scratch
from kdtool.exporting.sessions import open_session
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import read, write
from kdtool.training.evaluate import VALIDATION_BATCH, evaluate
from kdtool.training.run import Run
from kdtool.utils.classification import deciding
from kdtool.utils.files import slug
from kdtool.utils.processes import decided, rank

FOLDER = "candidates"
"""The folder of a run with the candidates as they are before their training."""

MOST_VALIDATION = 5000
"""The most validation images on which a file of 8 bits is tried."""


def keep(run: Run, candidate: Candidate) -> None:
    """Write the network of a candidate as it is before its training, so that a resumed run has the same one."""
    if candidate.network is not None and candidate.trains:
        path = _file(run.directory, candidate.name)
        path.parent.mkdir(exist_ok=True)
        write(path, run.checkpoint(candidate.network, [], note=candidate.name))


def kept(run: Run, name: str) -> Network | None:
    """Return the network of a candidate that an earlier process kept, or None."""
    path = _file(run.directory, name)
    return read(path).network if path.exists() else None


def share(run: Run, name: str) -> None:
    """Write a file of the first process's run, such as ``proposals.json``, in the runs of the others."""
    data = decided((run.directory / name).read_bytes)
    if rank() > 0:
        (run.directory / name).parent.mkdir(exist_ok=True)
        (run.directory / name).write_bytes(data)


def share_kept(run: Run, name: str) -> None:
    """Do so with the network of a candidate."""
    share(run, str(_file(Path(), name)))


def _file(directory: Path, name: str) -> Path:
    return directory / FOLDER / f"{slug(name)}.pt"


def score(run: Run, candidate: Candidate, network: Network) -> dict[str, Any]:
    """Return the metrics on the validation images: of the network, or of its file if that has 8 bits.

    Beside those of a file of 8 bits is the accuracy of the network in float32 that decides, as ``float_accuracy``.
    """
    metrics = run.evaluate(network)
    if candidate.precision == FLOAT:
        return metrics

    def of_file() -> dict[str, Any]:
        with scratch() as folder:
            path, val = folder / f"trial{SUFFIX}", run.data.val
            exporter_for(int8=True).draft(network, path, val=batches_of(val, MOST_VALIDATION))
            return of_quantised(path, run)

    return {**decided(of_file), "float_accuracy": deciding(metrics)}


def of_quantised(path: Path, run: Run) -> dict[str, Any]:
    """Return the metrics of an ONNX file on the validation images."""
    module, select = SessionModule(open_session(path), path.name), run.training.select
    return evaluate(module, run.data.val, batch_size=VALIDATION_BATCH, select=select)
