"""A compression as plain data: what a resumed process takes up again, and the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kdtool.compression.candidates import Candidate, Proposals
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.schedule import Schedule
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.training.run_directory import directory_of

RESULTS = "results.json"
"""The file of a run with everything that was tried."""


def as_data(proposals: Proposals, schedule: Schedule) -> dict[str, Any]:
    """Return what was proposed, and who trains how long, as plain data."""
    return {
        "teacher": proposals.teacher.as_data(),
        "limits": limits_as_data(proposals.limits),
        "device": proposals.device,
        "candidates": [data_of(candidate) for candidate in proposals.candidates],
        "beyond": [data_of(candidate) for candidate in proposals.beyond],
        "refused": proposals.refused,
        "seconds": proposals.seconds,
        "schedule": schedule.as_data(),
    }


def restored(
    about: Mapping[str, Any], network: Callable[[Candidate], Network | None]
) -> tuple[Proposals, list[Candidate], Schedule]:
    """Return what `as_data` described, and the candidates that are trained, with the networks that were kept."""
    schedule = Schedule.from_data(about["schedule"])
    candidates = [candidate_of(row) for row in about["candidates"]]
    by_name = {candidate.name: candidate for candidate in candidates}
    chosen = [by_name[name] for name in schedule.names]
    for candidate in chosen:
        candidate.network = network(candidate)
    proposals = Proposals(
        teacher=Cost(**about["teacher"]),
        limits=Limits(**{name: float("inf") if value is None else value for name, value in about["limits"].items()}),
        device=about["device"],
        candidates=candidates,
        beyond=[candidate_of(row) for row in about["beyond"]],
        refused=about["refused"],
        seconds=about["seconds"],
    )
    return proposals, chosen, schedule


def data_of(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as plain data, without its network."""
    names = ("kind", "method", "options", "precision", "inherits", "note", "shown", "trimmed", "repair", "cut_from")
    cost = candidate.cost.as_data() if candidate.cost else None
    return {**{name: getattr(candidate, name) for name in names}, "cost": cost}


def candidate_of(row: Mapping[str, Any]) -> Candidate:
    """Return the candidate that `data_of` described, without its network."""
    return Candidate(**{**row, "cost": None if row["cost"] is None else Cost(**row["cost"])})


def limits_as_data(limits: Limits) -> dict[str, float | None]:
    """Return limits by name, None where there is none."""
    return {name: None if value == float("inf") else value for name, value in vars(limits).items()}


def results_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the results of a compression that wrote a checkpoint, as its run's directory holds them."""
    assert checkpoint.path is not None
    path = directory_of(checkpoint.path) / RESULTS
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results
