"""What the files of a command hold, without the times that differ from one run of it to the next."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch

# Times, what is estimated from them or compared by them, and hashes of files that hold times.
TIMES = re.compile(
    r"(.*_)?(seconds|date|ms|cost|memory_bytes|disk_bytes|timed_steps|at_most|reason|hours)"
    r"|gradient_ratio|latency_ratio|dominated_by|.*seconds_(low|high)|made"
)
HASHES = re.compile(r'"[0-9a-f]{16}"')

# What only tells of the work, or is drawn of times: what dominates what in a frontier follows from latencies.
NOT_RESULTS = re.compile(r"(lock|.*\.log|.*\.lock|forecast\.json|frontier-.*\.svg)")


def contents(folder: Path) -> dict[str, Any]:
    """Return each file below a folder, by its path: plain data where it is read as such, else its hash."""
    return {
        str(path.relative_to(folder)): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not NOT_RESULTS.fullmatch(path.name)
    }


def content(path: Path) -> Any:
    """Return the content of a file."""
    if path.suffix == ".pt":
        return timeless(torch.load(path, weights_only=True))
    if path.name == "study.json":  # what it says of inputs are hashes of files that hold times
        return timeless(json.loads(HASHES.sub('""', path.read_text())))
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return timeless([json.loads(line) for line in path.read_text().splitlines()])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(value: Any) -> Any:
    """Return plain data without times; a tensor becomes its type, shape and hash."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if not TIMES.fullmatch(str(key))}
    if isinstance(value, list | tuple):
        return [timeless(inner) for inner in value]
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().view(-1).view(torch.uint8) if value.numel() else torch.empty(0)
        return [str(value.dtype), list(value.shape), hashlib.sha256(data.numpy().tobytes()).hexdigest()]
    return value


def difference(meant: Any, made: Any, place: str = "") -> str:
    """Return in words the first thing in which two contents differ, or an empty text."""
    if isinstance(meant, dict) and isinstance(made, dict):
        for key in [*meant, *(key for key in made if key not in meant)]:
            inner = f"{place}/{key}" if place else str(key)
            if key not in made:
                return f"{inner} is missing"
            if key not in meant:
                return f"{inner} is left over"
            if found := difference(meant[key], made[key], inner):
                return found
        return ""
    if isinstance(meant, list) and isinstance(made, list) and len(meant) == len(made):
        for number, (one, other) in enumerate(zip(meant, made, strict=True)):
            if found := difference(one, other, f"{place}/{number}"):
                return found
        return ""
    return "" if meant == made or (meant != meant and made != made) else f"{place} is {made!r:.80}, not {meant!r:.80}"
