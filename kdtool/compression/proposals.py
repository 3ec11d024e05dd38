"""Propose candidates that just meet the budget; everything here is measured before anything is trained."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kdtool.compression.candidates import FLOAT, TEACHER, TRAINED_ON, Candidate, Ladder, Proposals, ladders, making
from kdtool.compression.costs import INT8, Cost, Limits, Meter, can_quantise, device_options
from kdtool.compression.options import BudgetOptions
from kdtool.compression.sizing import POWER, power_of
from kdtool.compression.ways import Found, Way, measure_again, size_as_exported
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.plugins.budget import Budget, short
from kdtool.training.run import Run
from kdtool.utils.formatting import counted, three_digits
from kdtool.utils.progress import progress, say

MOST_SECONDS = 120.0
"""No further ladder is begun after so much computing time of this thread: that of the clock would be less on a busy
machine, and that of the process counts the threads that help."""

AGAIN_SECONDS = 20.0
"""The least computing time for measuring candidates a second time, where the first round took all of the above."""

PART = 0.25
"""The part of --hours after which no further ladder is begun either, by the clock, so that the rest is for training."""

NO_TIME = "no time was left to measure it"

BATCH = 32
"""Images in the batches with which pruners score channels here."""

BELOW = 0.97
"""The share of the budget that is asked of a method that makes its student in a training."""


def propose(run: Run, network: Network, options: BudgetOptions, folder: Path) -> Proposals:
    """Return the candidates that just meet the budget, measured on the device of the options.

    ``folder`` is for temporary files.

    Raises:
        UsageError: the teacher meets the budget already.
        Error: nothing meets the budget; the message has the smallest that can be had.
    """
    started, computed = time.perf_counter(), time.thread_time()
    run = run.with_training(batch_size=min(run.training.batch_size, BATCH))
    meter = Meter(network, options, folder, run=run)
    teacher = dataclasses.replace(meter.cost(network), latency_ratio=1.0, latency_ms=meter.teacher_ms)
    limits = limits_of(teacher, options)
    proposals = Proposals(teacher, limits, meter.device)
    if limits.load(teacher) <= 1:
        raise UsageError(f"{_typed(options)}: the teacher meets it already ({_costs(teacher)}); ask for less")
    found, proposals.refused = ladders(run, network, options.candidates)
    meters = [(FLOAT, meter, teacher)]
    if options.quantised and can_quantise():
        meters += _quantised(run, network, options, folder, proposals)
    work = [
        (ladder, precision, timer, cost)
        for ladder in _alternating(found)
        for precision, timer, cost in meters
        if may_win(ladder, precision, cost, limits)
    ]
    powers: dict[tuple[str, str, int], float] = {}
    ways: list[tuple[Way, Candidate]] = []
    most = math.inf if options.hours is None else PART * options.hours * 3600
    with progress("proposing", len(work)) as advance:
        for ladder, precision, timer, cost in work:
            late = time.thread_time() - computed > MOST_SECONDS or time.perf_counter() - started > most
            if late and proposals.candidates:
                proposals.refused.setdefault(f"{ladder.method} {precision}", NO_TIME)
                continue
            key = (precision, ladder.kind, len(ladder.steps))
            way = Way(ladder, precision, timer, cost, powers.get(key, powers.get((FLOAT, *key[1:]), POWER)))
            sized = way.sized(limits)
            powers[key] = power_of(sized.sizing, limits.load(cost), len(ladder.steps)) or way.power
            for one, found_one in filter(None, [(way, sized), way.between(sized, limits)]):
                candidate = _add(proposals, one, found_one)
                if candidate is not None:
                    ways.append((one, candidate))
                    if not limits.timed and candidate.network is not None:
                        candidate.cost = timer.cost(candidate.network)
            advance(note=ladder.method)
    if limits.timed:
        measure_again(proposals, ways, max(MOST_SECONDS - (time.thread_time() - computed), AGAIN_SECONDS))
    if limits.file_bytes < math.inf:
        size_as_exported(proposals, ways, options.trials)
    if proposals.candidates or not proposals.beyond:
        proposals.candidates += _trained(network, proposals, options)
    proposals.seconds = time.perf_counter() - started
    if not proposals.candidates:
        raise _out_of_reach(proposals, options)
    return proposals


def _alternating(found: Sequence[Ladder]) -> list[Ladder]:
    """Return ladders by turns of their kinds, and within a kind first one of each method, in case time runs out."""
    by_method: dict[tuple[str, str], list[Ladder]] = {}
    for ladder in found:
        by_method.setdefault((ladder.kind, ladder.method), []).append(ladder)
    firsts = sorted(found, key=lambda ladder: by_method[ladder.kind, ladder.method].index(ladder))
    kinds = [[ladder for ladder in firsts if ladder.kind == kind] for kind in ("refiners", "pruners")]
    return [ladder for turn in itertools.zip_longest(*kinds) for ladder in turn if ladder is not None]


def may_win(ladder: Ladder, precision: str, teacher: Cost, limits: Limits) -> bool:
    """Return whether a ladder is worth sizing in a precision, in which the teacher has the cost ``teacher``.

    Where the teacher itself is within the budget, what is cut from it has less to offer; another network may have more.
    """
    return precision == FLOAT or limits.load(teacher) > 1 or not ladder.trims


def _quantised(
    run: Run, network: Network, options: BudgetOptions, folder: Path, proposals: Proposals
) -> list[tuple[str, Meter, Cost]]:
    """Return the meter of files of 8 bits, if they are worth measuring; add the teacher if it fits so.

    A teacher that fits is a candidate twice: as it is, and trained on, since it may not have learned all that it can.
    """
    try:
        meter = Meter(network, options, folder, int8=True, teacher_ms=proposals.teacher.latency_ms, run=run)
        cost = meter.cost(network)
    except Error as error:
        proposals.refused[INT8] = str(error)
        return []
    load = proposals.limits.load(cost)
    teacher = Candidate(TEACHER, TEACHER, {}, INT8, cost, network)
    if load <= 1:
        proposals.candidates.append(teacher)
        if not options.candidates:
            proposals.candidates.append(dataclasses.replace(teacher, method=TRAINED_ON))
        return [(INT8, meter, cost)]
    proposals.beyond.append(teacher)
    # Precision does not change the MACs.
    limits = dataclasses.replace(proposals.limits, macs=math.inf)
    if limits.load(cost) >= limits.load(proposals.teacher):
        timed = f": the teacher takes {cost.latency_ratio:.2f} of its time in float32" if cost.latency_ratio else ""
        proposals.refused[INT8] = f"8 bits save nothing here{timed}"
        return []
    return [(INT8, meter, cost)]


def _add(proposals: Proposals, way: Way, found: Found) -> Candidate | None:
    """Add what was found of a ladder to the proposals; return it if it meets the budget and is new."""
    candidate = way.candidate(found)
    if candidate is None:
        reason = found.sizing.reasons[-1] if found.sizing.reasons else "it has no steps"
        proposals.refused.setdefault(f"{way.ladder.method} {way.precision}", reason)
        return None
    if candidate.name in proposals.names:
        return None
    (proposals.candidates if found.best else proposals.beyond).append(candidate)
    return candidate if found.best else None


def _trained(network: Network, proposals: Proposals, options: BudgetOptions) -> list[Candidate]:
    """Return candidates that a method makes in a training, within the limit that is hardest to meet."""
    limits, teacher = proposals.limits, proposals.teacher
    shares = {
        "latency": limits.latency_ratio,
        "params": limits.file_bytes / (teacher.file_bytes or math.inf),
        "macs": limits.macs / teacher.macs,
    }
    cost = min(shares, key=shares.__getitem__)
    methods = making(network, cost, BELOW * shares[cost], 1, device_options(options), options.candidates)
    return [Candidate("distillers", name, {f"max-{cost}": f"{shares[cost]:.3g}x"}) for name, _ in methods]


def share_of(candidate: Candidate) -> tuple[str, float]:
    """Return the cost and the share of the teacher's that are asked of a method that makes its student."""
    ((flag, text),) = candidate.options.items()
    return flag.removeprefix("max-"), BELOW * float(text.removesuffix("x"))


def limits_of(teacher: Cost, options: BudgetOptions) -> Limits:
    """Return the budget in numbers."""

    def limit(budget: Budget | None, of: float | None) -> float:
        return math.inf if budget is None or of is None else budget.limit(of)

    milliseconds = teacher.latency_ms or math.nan
    return Limits(
        limit(options.max_latency, milliseconds / 1e3) * 1e3 / milliseconds,
        limit(options.max_size, teacher.file_bytes),
        limit(options.max_macs, teacher.macs),
    )


def _typed(options: BudgetOptions) -> str:
    return " ".join(f"{flag} {text}" for flag, text in options.texts.items() if flag != "--max-drop")


def _costs(cost: Cost) -> str:
    """Return a cost as text."""
    parts = [f"{short(cost.macs)} MACs"]
    parts += [f"{short(cost.file_bytes)}B"] if cost.file_bytes is not None else []
    parts += [f"{three_digits(cost.latency_ms)} ms ({cost.latency_ratio:.2f}x)"] if cost.latency_ms is not None else []
    return ", ".join(parts)


def _out_of_reach(proposals: Proposals, options: BudgetOptions) -> Error:
    costs = [(candidate, candidate.cost) for candidate in proposals.beyond if candidate.cost is not None]
    if not costs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in proposals.refused.items())
        return Error(f"{_typed(options)}: no method can make this network smaller ({reasons[:300]})")
    smallest, cost = min(costs, key=lambda pair: proposals.limits.load(pair[1]))
    return Error(
        f"{_typed(options)}: nothing meets it on {proposals.device}; the smallest that can be had is {smallest.name} "
        f"with {_costs(cost)}; allow more. Nothing was trained"
    )


def say_proposals(proposals: Proposals, chosen: Sequence[Candidate]) -> None:
    """Say how many candidates there are, and on which device they were measured."""
    methods = ", ".join(_unique(candidate.method for candidate in proposals.candidates))
    say(
        f"compress: {counted(len(proposals.candidates), 'candidate')} within the budget ({methods}), measured in "
        f"{proposals.seconds:.0f} s on {proposals.device}; {counted(len(chosen), 'candidate')} will be trained"
    )
    late = [name.removesuffix(f" {FLOAT}") for name, why in proposals.refused.items() if why == NO_TIME]
    if late:
        say(f"compress: there was no time to measure all sizes of {', '.join(late)}")


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
