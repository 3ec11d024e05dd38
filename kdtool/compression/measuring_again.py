"""Measure the best candidates again, and for longer, before one of them gets the full training.

When candidates are proposed each is timed for a part of a second, and other programs change a latency by a tenth, that
of a small network more than the teacher's. One that is found to be beyond the budget here is trimmed until it fits; if
it cannot be, it makes room for the next best.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool.compression.candidate_files import keep, kept, share_kept
from kdtool.compression.candidates import Candidate
from kdtool.compression.costs import INT8, NEAR, Meter, scratch
from kdtool.compression.record import candidate_of, data_of
from kdtool.compression.sizing import Sized, Sizing
from kdtool.compression.trials import Trials
from kdtool.distillation.successive_halving import Halving, value_of
from kdtool.training.run import Run
from kdtool.utils.files import noted, write_text
from kdtool.utils.processes import decided
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

FILE = "finalists.json"
"""The file of a run with the latencies that were measured again, over the budget, by the candidate's name."""

TRIMMED = "trimmed.json"
"""The file of a run with the candidates that were trimmed, by the name of the one that was beyond the budget."""

MOST = 3
"""The most candidates that are measured again until one is within the budget."""

SECONDS, PAIRS = 3.0, 100
"""How long, and with how many pairs of samples, each of them is measured."""


def ranked(trials: Trials, halving: Halving) -> list[Candidate]:
    """Return the best candidate, then the others that were within the budget, those that went furthest first."""
    rounds = Counter(row["setting"] for row in halving.trainings)
    last = {row["setting"]: row for row in halving.trainings}
    within = {row["setting"] for row in trials.done if row["within"] and not row["full"]}
    names = [name for name in last if name in within or name == halving.best]
    names.sort(key=lambda name: (name == halving.best, rounds[name], value_of(last[name])), reverse=True)
    return [trials.by_name[name] for name in names]


def finalist(trials: Trials, candidates: Sequence[Candidate]) -> Candidate:
    """Return the first of the candidates, the best one first, that is within the budget when it is measured again.

    One that is not may come back trimmed. If none of the first ones is and can be, the one that is nearest. Only a
    limit of latency is measured again: sizes and multiply-accumulates are counted.
    """
    limits = trials.proposals.limits
    if not limits.timed or len(candidates) < 2:
        return candidates[0]
    loads: dict[str, float] = {}
    for candidate in candidates[:MOST]:
        load = loads[candidate.name] = measured_load(trials, candidate)
        if load <= NEAR:
            return candidate
        smaller = _trimmed(trials, candidate)
        if smaller is not None:
            trials.add(smaller)
            return smaller
    return min(candidates[:MOST], key=lambda candidate: loads[candidate.name])


def measured_load(trials: Trials, candidate: Candidate) -> float:
    """Return the latency of a candidate over the budget, measured for longer; if it is too much, say and note it."""
    load: float = decided(lambda: _load(trials, candidate))
    if load > NEAR:
        say(f"compress: {candidate.name} takes {load:.2f} of the budget when it is measured for longer")
        if candidate.cost is not None:
            ratio, whole = load * trials.proposals.limits.latency_ratio, trials.proposals.teacher.latency_ms or 0.0
            candidate.cost = dataclasses.replace(candidate.cost, latency_ratio=ratio, latency_ms=ratio * whole)
        candidate.note = "beyond the budget when it was measured for longer"
    return load


def _load(trials: Trials, candidate: Candidate) -> float:
    """Return the latency of a candidate's file over the budget, as this run measured it before or measures it now."""
    path = trials.run.directory / FILE
    known: dict[str, float] = noted(path)
    if candidate.name not in known:
        assert candidate.network is not None
        with scratch() as folder:
            ratio = _meter(trials, candidate, folder).cost(candidate.network).latency_ratio
        assert ratio is not None
        known[candidate.name] = ratio / trials.proposals.limits.latency_ratio
        write_text(path, dumps(known, indent=1) + "\n")
    return known[candidate.name]


def _meter(trials: Trials, candidate: Candidate, folder: Path, run: Run | None = None) -> Meter:
    """Return what measures for long, in the candidate's precision; with a ``run`` also the bytes as exported."""
    return Meter(
        trials.teacher, trials.given.budget, folder, candidate.precision == INT8, trials.proposals.teacher.latency_ms,
        seconds=SECONDS, pairs=PAIRS, run=run,
    )  # fmt: skip


def _trimmed(trials: Trials, candidate: Candidate) -> Candidate | None:
    """Return a candidate with fewer channels that is within the budget, or None; a resumed run has the same one."""
    if not candidate.trains or not candidate.may_shrink:
        return None
    about = decided(lambda: _made(trials, candidate))
    if about is None:
        return None
    smaller = candidate_of(about)
    share_kept(trials.run, smaller.name)
    smaller.network = kept(trials.run, smaller.name)
    say(f"compress: it is trimmed: {smaller.name}")
    return smaller


def _made(trials: Trials, candidate: Candidate) -> dict[str, Any] | None:
    """Trim a candidate and keep its network, if this run has not done so; return it as plain data."""
    from kdtool.compression.trimming import trim  # the removal of channels imports torch's compiler

    path = trials.run.directory / TRIMMED
    known = noted(path)
    if candidate.name not in known:
        limits, cost, network = trials.proposals.limits, candidate.cost, candidate.network
        assert cost is not None
        assert network is not None
        above = Sized(0, candidate.options, network, cost, limits.load(cost))
        with scratch() as folder:
            found = trim(Sizing(above=above), _meter(trials, candidate, folder, trials.run).cost, limits)
        known[candidate.name] = None
        if found is not None:
            one, part = found
            smaller = dataclasses.replace(
                candidate, network=one.network, cost=one.cost, trimmed=1 - (1 - candidate.trimmed) * (1 - part),
                note="", cut_from=candidate.name,
            )  # fmt: skip
            keep(trials.run, smaller)
            known[candidate.name] = data_of(smaller)
        write_text(path, dumps(known, indent=1) + "\n")
    about: dict[str, Any] | None = known[candidate.name]
    return about
