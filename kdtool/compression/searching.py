"""The trial in which a method makes its student by a training."""

from __future__ import annotations

from kdtool.compression.candidates import Candidate
from kdtool.compression.costs import Cost, Meter, device_options, scratch
from kdtool.compression.options import BudgetOptions
from kdtool.compression.proposals import share_of
from kdtool.models.architecture import Network
from kdtool.plugins.registry import method_class
from kdtool.training.run import Run
from kdtool.utils.processes import decided
from kdtool.utils.progress import progress


def searched(
    candidate: Candidate, run: Run, teacher: Network, epochs: int, budget: BudgetOptions, teacher_ms: float | None
) -> Network:
    """Let the method of a candidate make its student, and measure it: both become those of the candidate.

    ``teacher_ms`` is the latency of the teacher, if it was measured.
    """
    cls = method_class("distillers", candidate.method)
    cost, share = share_of(candidate)
    options = cls.options_within(teacher, cost, share, epochs=epochs, exporter=device_options(budget))
    with progress(candidate.method, 1):  # its phases have names of their own; the bar of the command foresees one
        network: Network = cls(**options).distill(run, teacher, None)

    def measured() -> Cost:
        with scratch() as folder:
            return Meter(teacher, budget, folder, teacher_ms=teacher_ms, run=run).exported(network)

    candidate.network, candidate.cost = network, decided(measured)
    return network
