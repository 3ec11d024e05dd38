"""``kdtool inspect``: show what a checkpoint contains and how it was made."""

from __future__ import annotations

from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import SPLIT_DATA, checkpoints, json_option
from kdtool.cli.output import SCORES, as_json, facts, shown_value, table
from kdtool.cli.work import Work
from kdtool.errors import UsageError
from kdtool.utils.formatting import counted, printable

EXAMPLES = """
\b
Examples:
  kdtool inspect student.pt
  kdtool inspect student.pt --json
  kdtool inspect --stages teacher.pt
  kdtool inspect --data digits
"""

STAGES = {"name": "stage", "blocks": "blocks", "parameters": "parameters", "output": "output", "dense": "dense"}

# How many classes a table has, and how many names a line.
CLASSES = 30

SHOWN = 10

NO_STAGES = "no stages with residual or dense blocks that can be dropped; to make it smaller, use refine --method halve"


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""

    def run(work: Work) -> str | None:
        from kdtool import api

        if parsed.options.get("data") is not None:
            results = [api.inspect(path, **parsed.options) for path in work.checkpoints or (None,)]
            if parsed.params["as_json"]:
                return as_json(results[0] if len(results) == 1 else results)
            return "\n\n".join(map(data_as_text, results))
        options: dict[str, Any] = {"stages": True} if parsed.params["stages"] else {}
        results = [api.inspect(path, **options) for path in work.checkpoints]
        if parsed.params["as_json"]:
            return as_json(results[0] if len(results) == 1 else results)
        return "\n\n".join(map(as_text, results))

    of_data = parsed.options.get("data") is not None
    if parsed.options and not of_data:
        raise UsageError(f"--{next(iter(parsed.options)).replace('_', '-')}: names no data set; add --data")
    if of_data and parsed.params["stages"]:
        raise UsageError("--stages: a data set has no stages; leave out --data, which describes a data set alone")
    return ChainStep(
        "inspect",
        run,
        checkpoints=tuple(parsed.params["checkpoints"]),
        min_checkpoints=0 if of_data else 1,
        max_checkpoints=None,
        onnx=True,
    )


def as_text(about: dict[str, Any]) -> str:
    """Return the description of a checkpoint as text."""
    rows = [("checkpoint", about.get("path") or "in memory"), ("network", about.get("source", ""))]
    rows.append(("input", "x".join(map(str, about["input"]))))
    sizes = ("classes", "parameters", "nonzero", "macs", "compression", "file_bytes", "gzip_bytes")
    rows += [(key.replace("_", " "), shown_value(key, about[key])) for key in sizes if about.get(key) is not None]
    if about.get("quantised") is not None:
        rows.append(("trained in", f"{about['quantised']['precision']}, {about['quantised']['layers']} layers"))
    if about.get("early_epoch") is not None:
        rows.append(("early weights", f"of epoch {about['early_epoch']}"))
    data = about.get("data")
    if data:
        rows += _preparation(data)
    parts = [facts(rows)]
    if about["metrics"]:
        parts.append(table(SCORES, about["metrics"]))
    if "stages" in about:
        parts.append(_stages(about["stages"]))
    if about["history"]:
        parts.append("made by\n" + "\n".join(line for entry in about["history"] for line in _made_by(entry)))
    return "\n\n".join(parts)


def _made_by(entry: dict[str, Any]) -> list[str]:
    """Return a command, and below it what its search chose, or what the values that its weights share save."""
    from kdtool.commands.history import chosen_by_search

    chosen, shared = chosen_by_search(entry), entry.get("shared_values")
    lines = [f"  {entry['line']}", *([f"    --search chose {printable(chosen)}"] if chosen else [])]
    if isinstance(shared, dict) and all(isinstance(shared.get(key), int) for key in ("layers", "bytes")):
        few = f"{counted(shared['layers'], 'layer')} with few different values"
        lines.append(f"    {few}, {shared['bytes']:,} bytes by the paper's count")
    return lines


def _preparation(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the data set of a network and how it sees images."""
    numbers = {name: ", ".join(f"{value:.4g}" for value in data[name]) for name in ("mean", "std")}
    splits = ", ".join(f"{name} {entry['images']:,}" for name, entry in data["splits"].items())
    return [
        ("data", printable(str(data["name"]), 1000)),
        *([("images", splits)] if splits else []),
        ("resize", f"centre {data['crop']:.4g} of the shorter side, {data['interpolation']}"),
        ("normalise", f"mean {numbers['mean']}, std {numbers['std']}, for images in 0..1"),
        ("class names", _few([printable(name, 60) for name in data["classes"]])),
    ]


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", ... {len(names):,} in all" if len(names) > SHOWN else "")


def data_as_text(about: dict[str, Any]) -> str:
    """Return the description of a data set as text."""
    crop = f", centre {about['crop']:.4g} of the shorter side" if about["crop"] < 1 else ""
    sides = [f"{name} {low}" + (f" to {high}" if high > low else "") for name, (low, high) in about["sizes"].items()]
    rows = [
        ("data", printable(about["data"], 1000)),
        ("classes", str(len(about["classes"]))),
        ("sizes", f"{', '.join(sides)} pixels"),
        ("modes", ", ".join(f"{name} {count:,}" for name, count in about["modes"].items())),
        ("read as", f"{about['channels']} channel{'s' * (about['channels'] > 1)}, {about['image_size']} pixels{crop}"),
        ("white", "" if about["white"] is None else f"{about['white']} in images of more than 8 bits"),
    ]
    parts = [facts([row for row in rows if row[1]])]
    splits = about["splits"]
    counts = [
        {"class": printable(name, 60), **{split: entry["classes"][name] for split, entry in splits.items()}}
        for name in about["classes"][:CLASSES]
    ]
    total = {"class": "all", **{split: entry["images"] for split, entry in splits.items()}}
    parts.append(table({"class": "class", **{split: split for split in splits}}, [*counts, total]))
    if len(about["classes"]) > CLASSES:
        parts.append(f"{len(about['classes']) - CLASSES:,} more classes: see --json")
    lines = [f"note: {note}" for note in about["notes"]]
    lines += [f"unreadable: {entry['reason']}" for entry in about["unreadable"][:CLASSES]]
    if len(about["unreadable"]) > CLASSES:
        lines.append(f"{len(about['unreadable']) - CLASSES:,} more files are unreadable: see --json")
    lines += [_doubled(entry) for entry in about["duplicates"]]
    lines += [f"changed since the checkpoint was made: {text}" for text in about.get("changes", ())]
    return "\n\n".join([*parts, *(["\n".join(printable(line, 1000) for line in lines)] if lines else [])])


def _doubled(entry: dict[str, Any]) -> str:
    where = "copies of others there" if entry["in"] == entry["of"] else f"in {entry['in']} too"
    return (
        f"doubled: {entry['images']:,} images of {entry['of']} are {where}, byte for byte (such as {entry['second']} "
        f"and {entry['first']})"
    )


def _stages(stages: list[dict[str, Any]]) -> str:
    rows = [
        {
            **stage,
            "blocks": len(stage["blocks"]),
            "parameters": sum(stage["parameters"]),
            "output": "x".join(map(str, stage["output"] or ())),
            "dense": stage["dense"] or None,
        }
        for stage in stages
    ]
    return table(STAGES, rows) if rows else NO_STAGES


command = StepCommand(
    "inspect",
    plan,
    params=[
        checkpoints(),
        click.Option(["--stages"], is_flag=True, help="show the stages whose blocks refine --method depth can drop"),
        json_option(),
    ],
    groups=[SPLIT_DATA],
    help=(
        "Show a checkpoint: structure, size, data, scores and the commands that made it. With --data, show a data set "
        "as kdtool sees it: classes, splits, sizes, what is left out, what is doubled."
    ),
    epilog=EXAMPLES,
)
