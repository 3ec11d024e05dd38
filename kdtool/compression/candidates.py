"""What may become the student: how it is made, in which precision, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kdtool.compression.costs import Cost, Limits
from kdtool.compression.sizing import Sized
from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.size import measure
from kdtool.plugins.entry_points import BrokenPlugin, installed
from kdtool.plugins.registry import method_class
from kdtool.surgery.refiner import InheritingRefiner, refined
from kdtool.training.run import Run
from kdtool.utils.progress import say
from kdtool.utils.verbosity import QUIET, verbosity

FLOAT = "float32"
"""The precision of a candidate that is not quantised."""

KEPT = {"init": "inherit"}
"""The option of a refiner that keeps weights."""

TEACHER = "teacher"
"""The kind of a candidate that is the teacher in a lower precision, and the method of one that stays as it is."""

TRAINED_ON = "trained teacher"
"""The method of a candidate that is the teacher and goes on learning: from its own outputs, and with the labels."""

UNTRIED = "not among those that were trained"

Make = Callable[[Mapping[str, Any]], Network]


@dataclass
class Candidate:
    """A network that may be trained, and how it was made."""

    kind: str
    method: str
    options: Mapping[str, Any]
    precision: str = FLOAT
    cost: Cost | None = None
    """None until it is made, if a training makes it."""
    network: Network | None = None
    inherits: bool = True
    """Whether it begins with weights of the teacher."""
    note: str = ""
    """Why it is not trained, for the table."""
    shown: Sequence[str] | None = None
    """The options in its name; None: all of them."""
    trimmed: float = 0.0
    """The part of the MACs that went after the method was done, see `trimming`."""
    repair: str = ""
    """How the weights that it inherited were corrected, see `mending`."""
    cut_from: str = ""
    """The name of the candidate whose trials stand for it, if it was trimmed after them, see `finalists`."""

    @property
    def name(self) -> str:
        """The method with its options, such as ``halve ratio=0.594, scope=inner int8``."""
        shown = {key: value for key, value in self.options.items() if self.shown is None or key in self.shown}
        shown |= {"trimmed": round(self.trimmed, 4)} if self.trimmed else {}
        options = ", ".join(f"{key.replace('_', '-')}={_short(value)}" for key, value in shown.items())
        return " ".join(
            part for part in (self.method, options, "" if self.precision == FLOAT else self.precision) if part
        )

    @property
    def made_by_training(self) -> bool:
        """Whether its method makes it in a training."""
        return self.kind == "distillers"

    @property
    def trains(self) -> bool:
        """Whether it is trained at all."""
        return self.method != TEACHER

    @property
    def may_shrink(self) -> bool:
        """Whether channels may be removed from it; a network that has a name keeps them, as long as it has them all."""
        return (
            self.trimmed > 0
            or self.kind == TEACHER
            or getattr(method_class(self.kind, self.method), "must_shrink", True)
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass
class Proposals:
    """The candidates within the budget, those beyond it, and what all are compared with."""

    teacher: Cost
    limits: Limits
    device: str
    candidates: list[Candidate] = field(default_factory=list)
    beyond: list[Candidate] = field(default_factory=list)
    """The smallest of each ladder of which nothing meets the budget."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why methods made no network, by name."""
    seconds: float = 0.0

    @property
    def names(self) -> set[str]:
        """The names of all candidates."""
        return {candidate.name for candidate in (*self.candidates, *self.beyond)}

    def chosen(self, most: int) -> list[Candidate]:
        """Return up to ``most`` candidates: by turns of each kind and precision the one with the most MACs.

        Of networks that cost the same the one that computes more is likely to learn more.
        """
        groups: dict[tuple[int, str], list[Candidate]] = {}
        for candidate in self.candidates:
            kinds = (TEACHER, "pruners", "refiners", "distillers")
            groups.setdefault((kinds.index(candidate.kind), candidate.precision), []).append(candidate)
        for group in groups.values():
            group.sort(key=lambda candidate: -(candidate.cost.macs if candidate.cost else 0))
        turns = itertools.zip_longest(*(groups[key] for key in sorted(groups)))
        ordered = [candidate for turn in turns for candidate in turn if candidate is not None]
        for candidate in ordered[most:]:
            candidate.note = UNTRIED
        return ordered[:most]


@dataclass(frozen=True)
class Ladder:
    """The options of one way of a method to make a network smaller, the largest result first."""

    kind: str
    method: str
    steps: Sequence[Mapping[str, Any]]
    make: Make
    inherits: bool = True
    trims: bool = True
    """Whether a network between two steps may take the place of one, see `trimming`; not of networks that have names,
    beside which it is another candidate (`Way.between`)."""
    shown: Sequence[str] | None = None
    """The options that differ between the steps of all ladders of the method."""
    keeps: bool = False
    """Whether its fresh networks can also be made with the teacher's weights, see `with_weights`."""

    def with_weights(self, one: Sized | None) -> Sized | None:
        """Return a step with weights of the teacher, if its method can keep them and the structure stays the same.

        With corrected weights (`mending`) a candidate is far ahead of one with fresh weights in a short training. The
        sizes are found with fresh ones, since channels are followed anew for each size otherwise.
        """
        if one is None or not self.keeps:
            return one
        options = {**one.options, **KEPT}
        try:
            with verbosity(QUIET):
                network = self.make(options)
        except Error:  # its channels cannot be followed; fresh weights need not be
            return one
        now, before = measure(network), measure(one.network)
        same = all(now[cost] == before[cost] for cost in ("macs", "parameters"))
        return replace(one, options=options, network=network) if same else one


def ladders(run: Run, network: Network, only: Sequence[str]) -> tuple[list[Ladder], dict[str, str]]:
    """Return the ladders of all installed refiners and pruners, and why others have none, by the method's name."""
    found: list[Ladder] = []
    refused: dict[str, str] = {}
    for kind in ("pruners", "refiners"):
        for name, cls in _methods(kind, only):
            try:
                makes = cls.cutter(run, network) if kind == "pruners" else _refining(cls, run, network)
                own = [steps for steps in cls.ladders(network) if steps]
            except Error as error:
                refused[name] = str(error)
                continue
            differing, trims = _differing([step for steps in own for step in steps]), getattr(cls, "must_shrink", True)
            for steps in own:
                fresh = kind == "refiners" and getattr(cls(**steps[0]), "init", "fresh") == "fresh"
                keeps = fresh and issubclass(cls, InheritingRefiner)
                found.append(Ladder(kind, name, list(steps), makes, not fresh, trims, differing, keeps))
    return found, refused


def _differing(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options that have several values."""
    values: dict[str, set[str]] = {}
    for step in steps:
        for key, value in step.items():
            values.setdefault(key, set()).add(repr(value))
    return [key for key, texts in values.items() if len(texts) > 1]


def making(
    teacher: Network, cost: str, share: float, epochs: int, exporter: Mapping[str, Any], only: Sequence[str]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the methods that make their student in a training, with the options that keep it within a budget."""
    found = []
    for name, cls in _methods("distillers", only):
        if cls.makes_student:
            options = cls.options_within(teacher, cost, share, epochs=epochs, exporter=exporter)
            if options is not None:
                found.append((name, options))
    return found


def _refining(cls: type[Any], run: Run, network: Network) -> Make:
    seed = run.training.seed
    return lambda options: refined(cls(**options), network, seed, data=run.data)


def _methods(kind: str, only: Sequence[str]) -> list[tuple[str, type[Any]]]:
    """Return the methods of a kind, without those that are broken, which is said."""
    found = []
    for plugin in installed():
        if plugin.kind != kind or (only and plugin.name not in only):
            continue
        try:
            found.append((plugin.name, method_class(kind, plugin.name)))
        except BrokenPlugin as error:
            say(f"compress: {error}")
    return found
