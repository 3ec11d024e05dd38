"""What a report says of several networks together: their numbers, a student beside its teacher, the frontier."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdtool.errors import Error
from kdtool.models.prediction import CHANGED
from kdtool.plotting.frontier import Axis, Tried, draw_frontier
from kdtool.reporting.blocks import Block, Figure, Heading, Paragraph, Table
from kdtool.reporting.sources import CheckpointSource
from kdtool.utils.formatting import shown_value

SIZES = ("classes", "parameters", "nonzero", "macs", "compression", "file_bytes")
"""The keys of `kdtool.inspect` that are shown as the size of a network."""

MEASURES = (
    "test_accuracy",
    "val_accuracy",
    "balanced_accuracy",
    "top5",
    "parameters",
    "nonzero",
    "macs",
    "file_bytes",
    "latency_ms",
)
"""What a student and its teacher are compared in."""

COSTS = {
    "latency": "latency, as a fraction of the {}",
    "macs": "MACs in millions",
    "parameters": "parameters in millions",
}
"""The axes of the frontier; a latency is relative to one network."""

Measured = Mapping[str, Mapping[str, Any]]
"""What was measured for the report, by the path of the checkpoint: `latencies` and `class_scores`."""

SCORES = ("balanced_accuracy", "top5")
"""What `class_scores` adds to the numbers of a network."""

MOST_POINTS = 256
"""How many networks of one checkpoint the frontier shows; each is compared with each."""

SHOWN = (*SCORES, "latency_ms", "latency_ratio")
"""The keys of `Measured` that are numbers of a network."""


def row_of(name: str, about: Mapping[str, Any], measured: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the numbers of a network as one row; ``about`` is what `kdtool.inspect` returned."""
    scores = {f"{score['split']}_accuracy": score.get("accuracy") for score in about["metrics"]}
    sizes = {key: about[key] for key in SIZES}
    measured = {key: value for key, value in (measured or {}).items() if key in SHOWN}
    more = {key: measured.pop(key) for key in SCORES if key in measured}
    return {"checkpoint": name, "network": about["source"], **scores, **more, **sizes, **measured}


def rows_of(sources: Sequence[CheckpointSource], measured: Measured) -> list[dict[str, Any]]:
    """Return a row for each network that is finished."""
    return [row_of(source.name, source.about, measured.get(source.about["path"])) for source in sources if source.about]


def overview(sources: Sequence[CheckpointSource], measured: Measured) -> Iterator[Block]:
    """Yield the networks side by side if there are several, each student beside its teacher, and the frontier."""
    rows = rows_of(sources, measured)
    if len(rows) > 1:
        yield Heading("Networks")
        yield Table(rows, leave_out=("classes", *(["nonzero"] if all(map(_is_dense, rows)) else [])))
    for source in sources:
        yield from _beside_teacher(source, sources, measured)
    yield from _frontier(sources, measured)


def _is_dense(row: Mapping[str, Any]) -> bool:
    """Return whether no weights were removed; after a training one or another is 0 by chance."""
    return bool(row["nonzero"] >= 0.999 * row["parameters"])


def _beside_teacher(
    source: CheckpointSource, sources: Sequence[CheckpointSource], measured: Measured
) -> Iterator[Block]:
    made_from = _teacher_of(source, sources)
    if source.about is None or made_from is None or made_from.about is None:
        return
    of_teacher, of_student = (measured.get(about["path"]) or {} for about in (made_from.about, source.about))
    teacher = row_of(made_from.name, made_from.about, of_teacher)
    student = row_of(source.name, source.about, of_student)
    rows, apart = [], set()
    for key in MEASURES:
        before, after = teacher.get(key), student.get(key)
        if not isinstance(before, int | float) or not isinstance(after, int | float):
            continue
        if key == "nonzero" and _is_dense(teacher) and _is_dense(student):
            continue
        accuracy = key.endswith("accuracy") or key == "top5"
        split, of = (
            "val" if key == "val_accuracy" else about.get("split", "test") for about in (of_student, of_teacher)
        )
        if accuracy and not (split == of and _same_images(source.about, made_from.about, split)):
            apart.add(split)
            continue
        change = f"{100 * (after - before):+.2f} points" if accuracy else _factor(before, after)
        shown = [f"{value:.2%}" if accuracy else shown_value(key, value) for value in (before, after)]
        rows.append({"measure": _measure(key), "teacher": shown[0], "student": shown[1], "change": change})
    if rows:
        yield Heading(f"{source.name} beside its teacher {teacher['checkpoint']}")
        yield Table(rows, titles={"measure": " "})
        for split in sorted(apart):
            yield Paragraph(f"They remember different {split} images; their accuracies on these cannot be compared.")
        ratio = of_student.get("latency_ratio")
        if ratio is not None:
            yield Paragraph(f"In paired samples it takes {ratio:.2f} of the time of the first network of this report.")


def _same_images(a: Mapping[str, Any], b: Mapping[str, Any], split: str) -> bool:
    """Return whether two networks remember the same images; checkpoints before 0.2 remember their data's name alone."""
    own, others = (about["data"] or {} for about in (a, b))
    prints = [(data.get("splits") or {}).get(split) for data in (own, others)]
    return bool(own.get("name") == others.get("name") if None in prints else prints[0] == prints[1])


def _measure(key: str) -> str:
    return {
        "macs": "MACs",
        "file_bytes": "bytes of the checkpoint",
        "val_accuracy": "validation accuracy",
        "top5": "top-5 accuracy",
    }.get(key, key.replace("_ms", " in ms").replace("_", " "))


def _factor(before: float, after: float) -> str:
    if not before or not after:
        return ""
    return f"{before / after:.2f}x less" if after < before else "same" if after == before else f"{after / before:.2f}x"


def _teacher_of(source: CheckpointSource, sources: Sequence[CheckpointSource]) -> CheckpointSource | None:
    """Return the network that a student was made from: of this report, else from its file."""
    history = source.about["history"] if source.about else []
    made = next((entry for entry in reversed(history) if entry["command"] != CHANGED), None)
    used = next((used for used in (made or {}).get("inputs", ()) if used["role"] == "checkpoint"), None)
    if made is None or used is None or made["command"] == "export":
        return None
    path = Path(used["path"])
    for other in sources:
        if other is not source and other.about is not None and _same(other.about, path, used["weights"]):
            return other
    if not path.is_file():
        return None
    from kdtool.commands.inspect import inspect
    from kdtool.models.checkpoint import fingerprint, read

    try:
        if fingerprint(read(path).module.state_dict()) != used["weights"]:
            return None  # another network lies there now
        return CheckpointSource(path.name, inspect(path))
    except Error:
        return None


def _same(about: Mapping[str, Any], path: Path, weights: str) -> bool:
    if about["path"] is None or Path(about["path"]).name != path.name:
        return False
    from kdtool.models.checkpoint import fingerprint, read

    try:
        return fingerprint(read(about["path"]).module.state_dict()) == weights
    except Error:
        return False


def _frontier(sources: Sequence[CheckpointSource], measured: Measured) -> Iterator[Block]:
    """Yield the chart of accuracy against the costs, if there are two networks or more on the same images."""
    told = [source.about for source in sources if source.about]
    tried = [point for source in sources for point in _own_points(source, measured)]
    first = "first" if any(_known(point, "latency") for point in tried) else "teacher"
    for source in sources:
        for row in _alike([*_rows(source)], tried):
            # The teacher of a run, and the last model that it kept, may be networks of this report themselves.
            same = [number for number, point in enumerate(tried) if _place(point) == _place(row)]
            if not same:
                tried.append(row)
            for number in same:
                if not _known(tried[number], "latency"):
                    tried[number] = replace(tried[number], costs=row.costs)
    alike = all(_same_images(a, b, "val") for a, b in itertools.combinations(told, 2))
    if len({_place(point) for point in tried}) < 2 or not alike:
        return
    known = [key for key in COSTS if sum(_known(point, key) for point in tried) > 1]
    axes = [Axis(key, COSTS[key].format(first)) for key in known]
    if axes:
        yield Heading("Accuracy and cost")
        settled = [_settled(point, tried, known) for point in tried]
        caption = "Validation accuracy against what a network costs; filled points are beaten by no other one in all"
        yield Figure([draw_frontier(settled, [axis], "validation accuracy") for axis in axes], caption)


def _own_points(source: CheckpointSource, measured: Measured) -> Iterator[Tried]:
    own = row_of(source.name, source.about) if source.about else {}
    if source.about and isinstance(own.get("val_accuracy"), float) and own["macs"]:
        ratio = (measured.get(source.about["path"]) or {}).get("latency_ratio")
        yield _tried(source.name, source.name, own["val_accuracy"], own, ratio)


def _rows(source: CheckpointSource) -> Iterator[Tried]:
    """Yield the networks that the last command of a checkpoint kept."""
    history = source.about["history"] if source.about else ()
    for row in (history[-1].get("rows") or ())[:MOST_POINTS] if history else ():
        if isinstance(row.get("val_accuracy"), float) and row.get("macs") and row.get("parameters"):
            yield _tried(str(row.get("model")), source.name, row["val_accuracy"], row, row.get("latency_ratio"))


def _alike(rows: Sequence[Tried], tried: Sequence[Tried]) -> list[Tried]:
    """Return the networks of a run with latencies that compare with those of ``tried``, or with none.

    The latencies of a run are fractions of its own teacher's. A network that is in both, best the last
    one, the result of the run, tells what that is here.
    """
    here = {_place(point): ratio for point in tried if (ratio := point.costs["latency"])}
    scales = [here[_place(row)] / ratio for row in rows if (ratio := row.costs["latency"]) and _place(row) in here]
    scale = scales[-1] if scales else None if here else 1.0
    ratios = [scale * ratio if scale and (ratio := row.costs["latency"]) else None for row in rows]
    return [replace(row, costs={**row.costs, "latency": ratio}) for row, ratio in zip(rows, ratios, strict=True)]


def _place(point: Tried) -> tuple[object, ...]:
    return point.accuracy, point.costs["macs"], point.costs["parameters"]


def _tried(name: str, group: str, accuracy: float, row: Mapping[str, Any], ratio: float | None) -> Tried:
    costs = {"latency": ratio, "macs": row["macs"] / 1e6, "parameters": row["parameters"] / 1e6}
    return Tried(name, group, accuracy, costs, dominated=False)


def _known(point: Tried, key: str) -> bool:
    return point.costs.get(key) is not None


def _settled(point: Tried, tried: Sequence[Tried], keys: Sequence[str]) -> Tried:
    """Return a point with whether another one is as good in everything and better in something."""
    for other in tried:
        pairs = [(other.costs[key], point.costs[key]) for key in keys if _known(other, key) and _known(point, key)]
        compared = [(a, b) for a, b in pairs if a is not None and b is not None]
        compared.append((-other.accuracy, -point.accuracy))
        if all(a <= b for a, b in compared) and any(a < b for a, b in compared):
            return Tried(point.name, point.group, point.accuracy, point.costs, dominated=True)
    return point
