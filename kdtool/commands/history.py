"""The history entry of a command, and the command as it would be typed."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdtool.models.checkpoint import Checkpoint, content_of, fingerprint
from kdtool.models.prediction import COMMENT
from kdtool.plugins.distributions import PluginName, own_versions, versions_of
from kdtool.training.history_entry import HistoryEntry
from kdtool.utils.files import sha256_of
from kdtool.utils.forms import TEXT, misfit


def entry(
    command: str,
    arguments: list[str],
    given: Mapping[str, Any],
    *,
    method: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Checkpoint],
    output: Path,
    plugins: Iterable[PluginName] = (),
) -> HistoryEntry:
    """Return the entry of one command.

    ``given`` are the options as the user gave them (they make the command line), ``settings`` all options with their
    defaults in the groups ``options``, ``training`` and ``data``. ``plugins`` took part beside the data set.
    """
    data_set = str(settings["data"].get("name", "")).partition(":")[0]
    return HistoryEntry(
        command=command,
        line=line(command, arguments, {**given, "output": output}),
        method=method,
        options=dict(settings["options"]),
        training=dict(settings["training"]),
        data=dict(settings["data"]),
        inputs=[described(role, checkpoint) for role, checkpoint in inputs.items()],
        output=str(output),
        versions={**own_versions(), **versions_of([*plugins, ("datasets", data_set)])},
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def described(role: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the role, path and fingerprint of an input and, unless it is the main checkpoint, its own history."""
    about: dict[str, Any] = {
        "role": role,
        "path": str(checkpoint.path) if checkpoint.path else "",
        "weights": fingerprint(checkpoint.module.state_dict()),
    }
    if role != "checkpoint":
        about["lines"] = [made["line"] for made in checkpoint.history]
    return about


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
        inner = {f"{name}_{key}": option for key, option in value.items() if key != "name" and option is not None}
        return [flag, str(value["name"]), *(word for key, option in inner.items() for word in _words(key, option))]
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, list | tuple):
        return [flag, ",".join(str(item) for item in value)]
    return [flag, str(value)]


def chosen_by_search(made: Mapping[str, Any]) -> str | None:
    """Return the setting that ``--search`` chose for an entry, such as ``temperature=1``; None without a search."""
    search = made.get("search")  # that of a structure is a list of its epochs
    chosen = search.get("chosen") if isinstance(search, Mapping) else None
    return chosen if isinstance(chosen, str) else None


def public_line(text: str) -> str:
    """Return a recorded command with file names in place of absolute paths, fit to hand to others."""
    comment = COMMENT if text.startswith(COMMENT) else ""
    text = text.removeprefix(comment)
    try:
        words = shlex.split(text)
    except ValueError:  # no command line; a file may hold any text
        words = text.split()
    return comment + shlex.join(map(public_word, words))


def public_word(word: str) -> str:
    """Return a word with a file name in place of an absolute path, also in ``folder:PATH``."""
    kind, colon, path = word.rpartition(":")
    return kind + colon + Path(path).name if path.startswith(("/", "~")) else word


def public_content(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a file holds of a checkpoint, with file names in place of absolute paths, fit to hand to others.

    The weights from early in its training are left out.
    """
    content = {name: value for name, value in content_of(checkpoint).items() if name != "early"}
    content["fingerprint"] = {"weights": content["fingerprint"]["weights"]}
    if checkpoint.data is not None:
        content["data"] = {**content["data"], "directory": None}
    return {name: _public(value) if name in ("data", "history") else value for name, value in content.items()}


def _public(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return public_line(value) if key in ("line", "lines") else public_word(value)
    if isinstance(value, Mapping):
        return {name: _public(item, str(name)) for name, item in value.items()}
    return [_public(item, key) for item in value] if isinstance(value, list | tuple) else value


def is_of_compression(checkpoint: Checkpoint, target: Path) -> bool:
    """Return whether a file is the one in 8 bits that the compression that made a checkpoint wrote, unchanged."""
    made: dict[str, Any] = checkpoint.history[-1] if checkpoint.history else {}
    if misfit(made, {"budget!": {"measured!": {"onnx_sha256!": TEXT}}}) is not None or not target.is_file():
        return False
    told: str = made["budget"]["measured"]["onnx_sha256"]
    return sha256_of(target) == told
