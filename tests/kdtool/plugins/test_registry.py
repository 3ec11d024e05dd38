from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest

from kdtool.distillation.distiller import Distiller, LossDistiller
from kdtool.errors import UsageError
from kdtool.models.source import Source
from kdtool.plugins import entry_points, registry
from kdtool.plugins.method import Method
from kdtool.plugins.options import option
from kdtool.plugins.registry import make, nested
from kdtool.pruning.pruner import Pruner
from kdtool.surgery.refiner import Refiner


class Shrink(Refiner):
    """Keep a part."""

    factor: float = option(0.5, above=0, below=1, help="how much to keep")


class Soft(LossDistiller):
    """Match softened outputs."""

    temperature: float = option(4.0, above=0, help="softness")
    alpha: float = option(0.9, minimum=0, maximum=1, help="weight")

    def loss(self, step: Any) -> Any:
        return self.alpha * step.cross_entropy()


class Needy(LossDistiller):
    """Need a number."""

    weight: float = option(help="weight of the teacher's term")

    def loss(self, step: Any) -> Any:
        return self.weight * step.cross_entropy()


class Strategy(Distiller):
    """Shrink and teach."""

    refiner: Any = nested("refiners", "shrink", help="the refiner")
    objective: Any = nested("distillers", "soft", help="the loss", temperature=20.0)
    pruner: Any = nested("pruners", help="the pruner")


CLASSES: dict[str, type[Method]] = {cls.name: cls for cls in (Shrink, Soft, Needy, Strategy)}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the methods of this file, as if each had an entry point."""

    class Installed:
        metadata: ClassVar[dict[str, str]] = {"Name": "kdtool-here"}
        version = "1.0"
        entry_points = tuple(EntryPoint(name, name, f"kdtool.{cls.kind}") for name, cls in CLASSES.items())

    monkeypatch.setattr("importlib.metadata.distributions", lambda: [Installed])
    monkeypatch.setattr(registry, "load", lambda plugin: CLASSES[plugin.name])
    entry_points.installed.cache_clear()
    yield
    entry_points.installed.cache_clear()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("KD", "kd"),
        ("IKD", "ikd"),
        ("LogitMSE", "logit-mse"),
        ("BornAgain", "born-again"),
        ("Conv4Fc2", "conv4-fc2"),
    ],
)
def test_a_method_is_named_after_its_class(title: str, name: str) -> None:
    assert type(title, (Distiller,), {"__doc__": "Do it."}).name == name


def test_a_name_of_its_own_wins_and_is_not_inherited() -> None:
    class Base(Source):
        name: ClassVar[str] = "timm"

    class Other(Base):
        pass

    assert (Base.name, Other.name) == ("timm", "other")
    assert Base.kind == Other.kind == "teachers"


def test_the_summary_is_the_first_paragraph_on_one_line() -> None:
    class Long(Pruner):
        """Set the smallest weights to zero,
        then retrain.

        More of it.
        """

    class Bare(Pruner):
        ratio: float = option(0.5, help="x")

    assert Long.summary() == "Set the smallest weights to zero, then retrain."
    assert Bare.summary() == "bare"


def test_make_gives_the_method_its_options() -> None:
    assert make("distillers", "soft", alpha=0.5) == Soft(alpha=0.5)


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("distillers", "sofd", {}, "no distiller is called 'sofd'; did you mean soft?"),
        ("distillers", "q", {}, "no distiller is called 'q'; there are needy, soft, strategy"),
        ("refiners", "soft", {}, "no refiner is called 'soft'; there are shrink"),
        (
            "distillers",
            "soft",
            {"temprature": 2},
            "soft has no option 'temprature'; did you mean temperature?",
        ),
        ("distillers", "soft", {"zzz": 2}, "soft has no option 'zzz'"),
        ("distillers", "soft", {"alpha": 1.5}, "--alpha: 1.5 is out of range (0 <= x <= 1)"),
        ("distillers", "needy", {}, "needy needs --weight: weight of the teacher's term"),
    ],
)
def test_make_refuses_what_is_not_there(kind: str, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(kind, name, **options)

    assert str(caught.value) == message


def test_a_nested_method_is_made_with_the_defaults_its_owner_declares() -> None:
    strategy = Strategy()

    assert strategy.refiner == Shrink(factor=0.5)
    assert strategy.objective == Soft(temperature=20.0, alpha=0.9)
    assert strategy.pruner is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("soft", Soft(temperature=20.0)),
        ({"name": "soft", "alpha": 0.5}, Soft(temperature=20.0, alpha=0.5)),
        ({"alpha": 0.5}, Soft(temperature=20.0, alpha=0.5)),
        ({"name": "soft", "temperature": 2}, Soft(temperature=2.0)),
        (Soft(), Soft(temperature=4.0)),
        ({"name": "needy", "weight": 1.0}, Needy(weight=1.0)),
    ],
)
def test_a_nested_method_is_given_by_name_by_data_or_as_it_is(value: Any, expected: Distiller) -> None:
    assert Strategy(objective=value).objective == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sofd", "no distiller is called 'sofd'; did you mean soft?"),
        ("shrink", "no distiller is called 'shrink'; there are needy, soft, strategy"),
        (None, "--objective: expected the name of one of the distillers, got None"),
        (3, "--objective: expected the name of one of the distillers, got 3"),
        ({"name": 3}, "--objective: expected the name of one of the distillers, got {'name': 3}"),
        (Shrink(), "--objective: shrink is one of the refiners, not of the distillers"),
    ],
)
def test_a_nested_method_of_another_kind_or_name_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Strategy(objective=value)

    assert str(caught.value) == message


def test_a_strategy_survives_the_way_through_json() -> None:
    strategy = Strategy(objective={"alpha": 0.25}, refiner={"factor": 0.75, "init": "inherit"})

    data = json.loads(json.dumps(strategy.as_data()))

    assert data["objective"] == {"name": "soft", "temperature": 20.0, "alpha": 0.25}
    assert make("distillers", "strategy", **data) == strategy


def test_what_a_method_does_not_implement_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="--method soft needs a student"):
        Soft().distill(None, None, None)  # type: ignore[arg-type]


def test_a_strategy_is_no_objective():
    with pytest.raises(UsageError, match="--objective strategy: is a strategy and has no loss; use it as --method"):
        make("distillers", "strategy", objective="strategy")


def test_a_sum_with_spaces_is_written_without_them():
    with pytest.raises(UsageError, match=r"^no distiller is called 'kd \+ at'; did you mean kd\+at\?$"):
        registry.method_class("distillers", "kd + at")


def test_what_is_no_name_is_refused() -> None:
    for thing, got in ((None, "NoneType"), (Shrink, "Shrink"), (Shrink(), "Shrink"), (3, "int")):
        with pytest.raises(UsageError, match=f"expected the name of one of the refiners, got {got}; give its options"):
            registry.method_class("refiners", thing)
    with pytest.raises(UsageError, match="there is no kind of methods 'distiller'; did you mean distillers"):
        make("distiller", "kd")
