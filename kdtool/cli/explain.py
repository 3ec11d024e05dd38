"""Find out what a user meant by a word that kdtool does not know; these functions are called for error messages only.

A wrong suggestion is worse than none: a misspelling needs similar letters (`kdtool.errors.similar`), a word of another
tool is looked up in ``meanings.toml``, and a word that names something else is said to be that.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from kdtool.data.dataset import path_datasets
from kdtool.errors import bare, nearest
from kdtool.plugins.entry_points import installed, names

OF_KIND = {"distillers": "distill", "pruners": "prune", "refiners": "refine", "exporters": "export"}
"""The command that takes the methods of a kind with ``--method``."""


def unknown_command(word: str, commands: Iterable[str]) -> str:
    """Return the message for the name of a command that does not exist."""
    commands = list(commands)
    text = f"there is no command {word!r}"
    if Path(word).exists() or Path(word).suffix:
        kind = "it is a file" if Path(word).exists() else "files stand behind a command"
        return f"{text}; {kind}: write kdtool COMMAND {word}, such as kdtool inspect {word}"
    source, colon, _ = word.partition(":")
    if colon and source in names("teachers"):
        return f"{text}; a network stands behind a command, such as kdtool teacher {word}"
    for entry in _meanings()["command"]:
        if bare(word) in entry["words"]:
            return f"{text}; {entry['say']}" if "say" in entry else f"{text}; did you mean {entry['means']}?"
    hint = nearest(word, commands)
    if not hint and (usage := _usage(word)):
        return f"{text}; {word} is a method: write {usage}"
    return text + (hint or f"; the commands are {', '.join(commands)}")


def _usage(word: str) -> str:
    """Return how a method of this name is used, or an empty text if there is none."""
    for plugin in installed():
        if plugin.name == word and plugin.kind in OF_KIND:
            return f"kdtool {OF_KIND[plugin.kind]} --method {word}"
    return ""


def meant_by(command: str, flag: str, known: Collection[str], value: str = "") -> str:
    """Return the end of the message for an option of another tool, or an empty text for one that is not known.

    ``known`` are the options of the command, and ``value`` is what was typed behind the unknown one.
    """
    word = bare(flag)
    for entry in _meanings()["option"]:
        if word not in entry["words"] or command not in entry.get("for", command).split():
            continue
        means = entry.get("means", "").split()
        found = [option for option in means if option in known]
        if "say" in entry and (found or not means):
            text = re.sub(r"\{(.*?)\}", lambda match: value or match[1], entry["say"])
            return f"; {text.replace('COMMAND', command)}"
        if found:
            return f"; did you mean {found[0]}?"
    return ""


def unknown_option(command: str, flag: str, known: Collection[str], value: str = "", kind: str | None = None) -> str:
    """Return the end of the message for an option that a command does not have; it may be empty.

    ``known`` are its options, ``value`` is what was typed behind the unknown one, and ``kind`` is that of its methods.
    """
    if meant := meant_by(command, flag, known, value):
        return meant
    word = bare(flag)
    if kind is not None and "--method" in known:
        named = named_methods(kind, word)
        if named:
            return f"; did you mean --method {' or '.join(named)}?"
    if hint := nearest(flag, known, count=1):
        return hint
    owners = _commands_with(flag, command)
    return f"; it is an option of kdtool {' and '.join(owners)}" if owners else ""


def unexpected_word(word: str, others: Iterable[Any], steps: Iterable[str], flags: Collection[str]) -> str:
    """Return the end of the message for a word too many, which may be empty; ``others`` are the command's values."""
    sources = [value for value in others if isinstance(value, str) and value.rstrip(":") in names("teachers")]
    if sources:
        return f"; write {sources[0].rstrip(':')}:{word}"
    if "--data" in flags:
        if word.partition(":")[0] in names("datasets"):
            return f"; a data set is named with --data {word}"
        if Path(word).is_dir() and (sources := path_datasets(word)):
            return f"; a folder of images is named with --data {sources[0]}:{word}"
    if "--weights" in flags and Path(word).is_file():
        return f"; weights are loaded with --weights {word}"
    if "--output" in flags and Path(word).suffix in (".onnx", ".pt", ".html", ".png"):
        return f"; the file to write is named with -o {word}"
    if "--method" not in flags and (usage := _usage(word)):
        return f"; {usage} --help explains it"
    return "" if Path(word).suffix or Path(word).exists() else nearest(word, steps, count=1)


def directory(path: Path) -> str:
    """Return the message for a directory in the place of a file; it may be a folder of images."""
    folders = path_datasets(path)
    if any(path.glob("*.pt")) or path.suffix in (".run", ".study") or not folders:
        return f"{path}: is a directory; name a file in it"
    return f"{path}: is a directory without a checkpoint; images in it are named with --data {folders[0]}:{path}"


def missing_file(path: Path) -> str:
    """Return the message for a file that does not exist.

    A word without a suffix may be a misspelt command, or the name of a network; one with a suffix is a file's name.
    """
    text, word = f"{path}: there is no such file", str(path)
    source, colon, network = word.partition(":")
    if word[:1] in "\u2013\u2014\u2212":
        return f"{text}; it begins with a dash: an option begins with two hyphens, --{word[1:]}"
    if colon and source in names("teachers"):
        return f"{text}; {network} is a network: kdtool teacher {word} makes a checkpoint of it"
    if colon and source in ("http", "https", "ftp", "s3", "gs"):
        return f"{text}; kdtool reads files of this machine: download it first"
    if re.fullmatch(r"0?\.\d+", word):
        return f"{text}; a number stands behind its option, such as --ratio {word}"
    files = [file.name for file in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
    if hint := nearest(path.name, files, count=1):
        return text + hint
    if path.name != word or path.suffix:
        return text
    named = [f"{file}" for file in sorted(path.parent.glob(f"{word}.pt"))]
    root = click.get_current_context().find_root() if click.get_current_context(silent=True) else None
    commands = root.command.list_commands(root) if root and isinstance(root.command, click.Group) else []
    return text + nearest(word, [*named, *commands], count=1)


def named_methods(kind: str, word: str) -> list[str]:
    """Return the methods of a kind that have this name, or are also called so, without case and hyphens."""
    from kdtool.plugins.registry import also_called

    exact = [name for name in names(kind) if bare(name) == bare(word)]
    return exact or also_called(kind, word)


def needs_value(option: click.Option, typed: str) -> str:
    """Return the message for an option without its value; ``typed`` is the one of its names that was written."""
    info = getattr(option, "info", None)
    about = info.help if info is not None else option.help or ""
    choices = getattr(info, "choices", ())
    what = f"one of {', '.join(choices)}" if choices else about.partition("  [")[0]
    return f"{typed}: needs a value: {what}"


def _commands_with(flag: str, command: str) -> list[str]:
    """Return the other commands that have an option, whatever their method."""
    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    found = []
    for name in root.command.list_commands(root):
        other = root.command.get_command(root, name)
        if name == command or other is None:
            continue
        own = {opt for param in other.params for opt in (*param.opts, *param.secondary_opts) if opt.startswith("-")}
        of_groups = {info.flag for section in getattr(other, "groups", ()) for info in section.infos()}
        if flag in own | of_groups:
            found.append(name)
    return found if len(found) < 4 else []


@functools.cache
def _meanings() -> Mapping[str, list[dict[str, Any]]]:
    content = tomllib.loads(Path(__file__).with_name("meanings.toml").read_text(encoding="utf-8"))
    for entries in content.values():
        for entry in entries:
            entry["words"] = {bare(word) for word in entry["words"].split()}
    return content
