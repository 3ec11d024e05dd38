"""How a checkpoint was made: one entry of plain data for each command."""

from __future__ import annotations

import datetime
import importlib.metadata
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdtool.models.checkpoint import Checkpoint, fingerprint


def entry(
    command: str,
    arguments: list[str],
    given: Mapping[str, Any],
    *,
    method: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Checkpoint],
    output: Path,
) -> dict[str, Any]:
    """Return the entry of one command.

    ``given`` are the options as the user gave them (they make the command line), ``settings`` all of them with
    their defaults, by group.
    """
    return {
        "command": command,
        "line": line(command, arguments, {**given, "output": output}),
        "method": method,
        **{name: dict(options) for name, options in settings.items()},
        "inputs": [described(role, checkpoint) for role, checkpoint in inputs.items()],
        "output": str(output),
        "versions": {name: importlib.metadata.version(name) for name in ("kdtool", "torch")},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def described(role: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what identifies an input: its role, path, weights and, unless it is the teacher, its own history."""
    found: dict[str, Any] = {
        "role": role,
        "path": str(checkpoint.path) if checkpoint.path else "",
        "weights": fingerprint(checkpoint.module.state_dict()),
    }
    if role != "checkpoint":
        found["lines"] = [made["line"] for made in checkpoint.history]
    return found


def line(command: str, arguments: list[str], given: Mapping[str, Any]) -> str:
    """Return the command as it would be typed, quoted for a shell."""
    words = ["kdtool", command, *arguments]
    for name, value in given.items():
        if value is not None:
            words += _words(name, value)
    return shlex.join(words)


def _words(name: str, value: Any) -> list[str]:
    flag = "-o" if name == "output" else "--" + name.replace("_", "-")
    if hasattr(value, "as_data"):
        value = {"name": value.name, **value.as_data()}
    if isinstance(value, Mapping):  # a method in a role: --refiner depth --refiner-keep 1,1,1,1
        inner = {f"{name}_{key}": one for key, one in value.items() if key != "name" and one is not None}
        return [flag, str(value["name"]), *(word for key, one in inner.items() for word in _words(key, one))]
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, list | tuple):
        return [flag, ",".join(str(one) for one in value)]
    return [flag, str(value)]


def public_line(text: str) -> str:
    """Return a recorded command with file names in place of absolute paths, fit to hand to others."""
    return shlex.join(map(public_word, shlex.split(text)))


def public_word(word: str) -> str:
    """Return a word with a file name in place of an absolute path, also in ``folder:PATH``."""
    kind, colon, path = word.rpartition(":")
    return kind + colon + Path(path).name if path.startswith(("/", "~")) else word
