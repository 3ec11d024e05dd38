"""Read a recipe: one that comes with kdtool, by its name, or a file of the user's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.plugins.options import OptionInfo
from kdtool.utils.strict_json import load_toml

FOLDER = Path(__file__).parent

TABLES = ("training", "kept_weights", "muon", "without_batch_norm", "data")

DATA = ("augment", "erase")
"""The options of a data set that a recipe may set."""


@dataclass(frozen=True)
class Recipe:
    """Options of a training under a name.

    ``kept_weights`` are those that replace ``training`` where weights go on, ``muon`` where Muon costs little
    (`kdtool.training.optimization.muon_cost`), and ``without_batch_norm`` for networks without batch-norm, such as
    transformers.
    """

    name: str
    about: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    kept_weights: Mapping[str, Any] = field(default_factory=dict)
    muon: Mapping[str, Any] = field(default_factory=dict)
    without_batch_norm: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Return the recipe of a name (`names`), or of a file whose name ends in ``.toml``.

        Raises:
            UsageError: there is none, or the file is no recipe.
        """
        if text.endswith(".toml"):
            return _read(Path(text), text)
        if text not in names():
            hint = nearest(text, names()) or f"; one of {', '.join(names())}, or a file FILE.toml"
            raise UsageError(f"there is no recipe {text!r}{hint}")
        return _read(FOLDER / f"{text}.toml", text)

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def summary(self) -> str:
        """Return what the recipe is for, and the options that it sets."""
        tables = [
            ("", {**self.training, **self.data}),
            ("where weights go on: ", self.kept_weights),
            ("where Muon costs little: ", self.muon),
            ("without batch-norm: ", self.without_batch_norm),
        ]
        lists = [f"{title}{', '.join(typed(*item) for item in table.items())}" for title, table in tables if table]
        return f"{self.about}: {'; '.join(lists)}"

    def checked(self, training: Sequence[OptionInfo], data: Sequence[OptionInfo]) -> Recipe:
        """Return the recipe with values as the declarations of the options want them.

        Raises:
            UsageError: there is no such option, or it cannot have such a value.
        """
        settings = [info for info in training if info.name != "recipe"]
        prepared = [info for info in data if info.name in DATA]
        tables = {
            "training": _checked(self.name, "training", self.training, settings),
            "kept_weights": _checked(self.name, "kept_weights", self.kept_weights, settings),
            "muon": _checked(self.name, "muon", self.muon, settings),
            "without_batch_norm": _checked(self.name, "without_batch_norm", self.without_batch_norm, settings),
            "data": _checked(self.name, "data", self.data, prepared),
        }
        return Recipe(self.name, self.about, **tables)

    def options(self, *, batch_norm: bool, muon: bool = False, kept: bool = False) -> dict[str, Any]:
        """Return the options of the training of a network with or without batch-norm.

        ``muon`` says whether Muon costs little there, ``kept`` whether weights go on.
        """
        options = {**self.training, **(self.kept_weights if kept else {})}
        if not batch_norm:
            return {**options, **self.without_batch_norm}
        return {**options, **(self.muon if muon else {})}


def typed(name: str, value: Any) -> str:
    """Return an option as it is typed on the command line."""
    flag = name.replace("_", "-")
    return f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}"


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the recipes that come with kdtool, the shortest training first."""
    found = {path.stem for path in FOLDER.glob("*.toml")}
    order = [name for name in ("quick", "standard", "patient") if name in found]
    return (*order, *sorted(found - set(order)))


def _read(path: Path, name: str) -> Recipe:
    try:
        content = load_toml(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no TOML: {error}") from error
    about = content.pop("about", "")
    if not isinstance(about, str):
        raise UsageError(f"{path}: about has to be a text")
    for key, table in content.items():
        if key not in TABLES:
            raise UsageError(f"{path}: a recipe has no entry {key!r}{nearest(key, (*TABLES, 'about'))}")
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {key} has to be a table, [{key}]")
        content[key] = {option.replace("-", "_"): value for option, value in table.items()}
    return Recipe(name, about, **content)


def _checked(recipe: str, table: str, values: Mapping[str, Any], infos: Sequence[OptionInfo]) -> dict[str, Any]:
    known = {info.name: info for info in infos}
    checked = {}
    for name, value in values.items():
        if name not in known:
            few = f"; it has {' and '.join(known)}" if table == "data" else "; kdtool teacher --help lists them"
            hint = nearest(name, known) or few
            raise UsageError(f"recipe {recipe}: [{table}] has no option {name!r}{hint}")
        try:
            checked[name] = known[name].check(value)
        except UsageError as error:
            raise UsageError(f"recipe {recipe}: [{table}] {error}") from error
    return checked
