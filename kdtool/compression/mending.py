"""Correct the weights of candidates that were cut from the teacher, before any of them is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kdtool.compression.candidates import Candidate
from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.size import macs
from kdtool.surgery.repair.options import RepairOptions
from kdtool.surgery.slicing.inherited import InheritedNetwork
from kdtool.training.run import Run
from kdtool.utils.progress import progress, say
from kdtool.utils.verbosity import QUIET, verbosity

METHOD = "least-squares"

PART = 0.1
"""The part of --hours after which no further candidate is corrected."""


MOST_MACS = 5e10
"""Multiply-accumulates of all images of a repair; where the teacher needs more, one repair takes minutes."""


def mend(run: Run, network: Network, candidates: Sequence[Candidate], hours: float | None = None) -> None:
    """Give candidates that were cut from ``network`` the weights that come closest to its outputs, in place.

    The images are those of ``--repair least-squares``. What it cannot correct stays as it is, and so do all candidates
    of a large network (`MOST_MACS`).
    """
    cut = [one for one in candidates if one.inherits and isinstance(one.network, InheritedNetwork)]
    started, most = time.perf_counter(), float("inf") if hours is None else PART * hours * 3600
    repair = RepairOptions(repair=METHOD)
    if not cut or macs(network.module, network.architecture.input) * repair.repair_images > MOST_MACS:
        return
    with progress("repairing", len(cut)) as advance:
        for candidate in cut:
            if time.perf_counter() - started < most:
                try:
                    assert candidate.network is not None
                    with verbosity(QUIET):
                        candidate.network = repair.repaired(candidate.network, network, run.data, run.training.seed)
                    candidate.repair = METHOD
                except Error:  # its layers cannot be compared with the teacher's
                    pass
            advance(note=candidate.method)
    mended = sum(bool(candidate.repair) for candidate in cut)
    if mended:
        who = "1 candidate that was" if mended == 1 else f"{mended} candidates that were"
        others = "" if mended == len(cut) else f"; {len(cut) - mended} stay as they were cut"
        say(f"compress: the weights of {who} cut from the teacher are corrected by least squares{others}")
