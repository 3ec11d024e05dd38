"""Measure the best candidates again, and for longer, before one of them gets the full training.

When candidates are proposed each is timed for a part of a second, and a machine that does other work in that moment
lets some pass that are beyond the budget. One that is found to be so here makes room for the next best.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from kdtool.compression.candidates import INT8, Candidate
from kdtool.compression.costs import NEAR, SUFFIX, Meter, scratch
from kdtool.compression.trials import Trials
from kdtool.utils.files import write_text
from kdtool.utils.processes import decided
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

FILE = "finalists.json"
"""The file of a run with the latencies that were measured again, over the budget, by the candidate's name."""

MOST = 3
"""The most candidates that are measured again until one is within the budget."""

SECONDS, PAIRS = 3.0, 100
"""How long, and with how many pairs of samples, each of them is measured."""


def finalist(trials: Trials, ranked: Sequence[Candidate]) -> Candidate:
    """Return the first of the candidates, the best one first, that is within the budget when it is measured again.

    If none of the first ones is, the one that is nearest. Only a limit of latency is measured again: sizes and
    multiply-accumulates are counted.
    """
    limits = trials.proposals.limits
    if not limits.timed or len(ranked) < 2:
        return ranked[0]
    loads: dict[str, float] = {}
    for candidate in ranked[:MOST]:
        load = loads[candidate.name] = decided(lambda candidate=candidate: _load(trials, candidate))  # type: ignore[misc]
        if load <= NEAR:
            return candidate
        say(f"compress: {candidate.name} takes {load:.2f} of the budget when it is measured for longer")
        if candidate.cost is not None:
            ratio, whole = load * limits.latency_ratio, trials.proposals.teacher.latency_ms or 0.0
            candidate.cost = dataclasses.replace(candidate.cost, latency_ratio=ratio, latency_ms=ratio * whole)
        candidate.note = "beyond the budget when it was measured for longer"
    return min(ranked[:MOST], key=lambda candidate: loads[candidate.name])


def _load(trials: Trials, candidate: Candidate) -> float:
    """Return the latency of a candidate's file over the budget, as this run measured it before or measures it now."""
    path = trials.run.directory / FILE
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if candidate.name not in known:
        assert candidate.network is not None
        with scratch() as folder:
            teacher_ms = trials.proposals.teacher.latency_ms
            int8 = candidate.precision == INT8
            meter = Meter(trials.teacher, trials.given.budget, folder, int8=int8, teacher_ms=teacher_ms)
            file = folder / f"finalist{SUFFIX}"
            meter.exporter.draft(candidate.network, file)
            ratio = meter.ratio(file, seconds=SECONDS, pairs=PAIRS)
        known[candidate.name] = ratio / trials.proposals.limits.latency_ratio
        write_text(path, dumps(known, indent=1) + "\n")
    return known[candidate.name]
