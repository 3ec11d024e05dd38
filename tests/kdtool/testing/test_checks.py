"""The checks pass what is right, among it the code in the guide for plugins, and tell what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from kdtool import Dataset, Distiller, Exporter, LossDistiller, Network, Pruner, Refiner, Source, Step, option
from kdtool.data import RawData, RawSplit
from kdtool.plugins import Tracker
from kdtool.plugins.method import Method
from kdtool.plugins.registry import make
from kdtool.testing.checks import (
    check_dataset,
    check_distiller,
    check_exporter,
    check_options,
    check_pruner,
    check_refiner,
    check_source,
)

CHECKS: dict[str, Callable[[Any], None]] = {
    "datasets": check_dataset,
    "distillers": check_distiller,
    "exporters": check_exporter,
    "pruners": check_pruner,
    "refiners": check_refiner,
    "teachers": check_source,
}
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "own-plugin.md"
EXAMPLES = [
    code
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    if re.search(r"^class|@hookimpl", code, re.M)
]


@pytest.mark.parametrize(
    "code", EXAMPLES, ids=lambda code: "-".join(re.findall(r"^(?:class|def) (\w+)", code, re.MULTILINE))
)
def test_the_code_in_the_plugin_guide_works(code: str) -> None:
    module = ModuleType("example")
    exec(compile(code, GUIDE.name, "exec", dont_inherit=True), module.__dict__)

    methods = methods_of(module)

    trackers = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Tracker)]
    assert methods or hasattr(module, "epoch_ended") or [cls for cls in trackers if cls is not Tracker]
    for cls in methods:
        CHECKS[cls.kind](cls)


def test_the_plugin_guide_has_an_example_of_every_kind() -> None:
    kinds = set()
    for code in EXAMPLES:
        module = ModuleType("example")
        exec(compile(code, GUIDE.name, "exec", dont_inherit=True), module.__dict__)
        kinds |= {cls.kind for cls in methods_of(module)}

    assert kinds == set(CHECKS)
    assert any("def commands(" in code for code in EXAMPLES)


def methods_of(module: ModuleType) -> list[type[Method]]:
    """Return the methods that a module defines itself."""
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Method)]
    return [cls for cls in classes if cls.__module__ == "example"]


def test_a_method_with_options_is_checked_as_it_is() -> None:
    kd = make("distillers", "kd", alpha=0.25)

    assert check_options(kd, Distiller) is kd


class Good(LossDistiller):
    """Copy the teacher."""

    weight: float = option(1.0, help="weight")

    def loss(self, step: Step) -> torch.Tensor:
        return self.weight * (step.student - step.teacher).square().mean()


def test_a_right_distiller_passes_as_class_and_as_method() -> None:
    check_distiller(Good)
    check_distiller(Good(weight=0.5))


class Camel(Good):
    """Copy the teacher."""

    name: ClassVar[str] = "CamelCase"


class Mute(Good):
    pass


class Talkative(Good):
    """Copy the teacher. Then do more."""


class Helpless(Good):
    """Copy the teacher."""

    extra: int = option(1, help="")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Camel, "its name 'CamelCase' must be kebab-case"),
        (Mute, "mute: its docstring must begin with one sentence"),
        (Talkative, "talkative: its docstring must begin with one sentence"),
        (Helpless, "helpless: --extra has no help"),
    ],
)
def test_what_every_method_promises(method: type[Method], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_distiller(method)  # type: ignore[type-var]


def test_a_method_of_another_kind_is_told() -> None:
    with pytest.raises(AssertionError, match="Good is not a Refiner"):
        check_refiner(Good)  # type: ignore[type-var]


def test_a_strategy_that_trains_its_teacher_is_told() -> None:
    class Thief(Distiller):
        """Give the teacher back, changed."""

        def distill(self, run: Any, teacher: Network, student: Network | None) -> Network:
            with torch.no_grad():
                next(teacher.module.parameters()).add_(1)
            return teacher

    with pytest.raises(AssertionError, match="thief: the teacher was changed"):
        check_distiller(Thief)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda before, after: before, "it must be smaller"),
        (lambda before, after: _doubled(after), "rebuilt from its plain data gives different outputs"),
        (lambda before, after: _headless(after), "cannot be rebuilt from its plain data"),
        (lambda before, after: after if after.module.train() else before, "is not in eval mode"),
    ],
    ids=["as large", "rebuilds to another", "does not rebuild", "train mode"],
)
def test_a_wrong_refiner_is_told(spoil: Callable[[Network, Network], Network], message: str) -> None:
    class Wrong(Refiner):
        """Halve wrongly."""

        def refine(self, network: Network) -> Network:
            return spoil(network, make("refiners", "halve").refine(network))

    with pytest.raises(AssertionError, match=message):
        check_refiner(Wrong)


def _doubled(network: Network) -> Network:
    network.module.register_forward_hook(lambda module, inputs, output: 2 * output)
    return network


def _headless(network: Network) -> Network:
    return Network(network.architecture, torch.nn.Sequential(network.module).eval())


def test_a_refiner_with_chance_of_its_own_is_told() -> None:
    class Restless(Refiner):
        """Halve, and draw weights from the clock."""

        def refine(self, network: Network) -> Network:
            torch.seed()
            return make("refiners", "halve").refine(network)  # type: ignore[no-any-return]

    with pytest.raises(AssertionError, match=r"do not repeat after torch\.manual_seed"):
        check_refiner(Restless)


def test_a_pruner_that_leaves_all_is_told() -> None:
    class Idle(Pruner):
        """Do nothing."""

        def prune(self, run: Any, network: Network, teacher: Network | None) -> Network:
            return network

    with pytest.raises(AssertionError, match="idle: its result has 61706 nonzero parameters and the network 61706"):
        check_pruner(Idle)


def test_an_exporter_that_writes_nothing_is_told() -> None:
    class Silent(Exporter):
        """Write nothing."""

        suffix: ClassVar[str] = ".none"

        def export(self, network: Network, output: Path, **about: Any) -> dict[str, Any]:
            return {}

    with pytest.raises(AssertionError, match=r"silent: did not write network\.none"):
        check_exporter(Silent)


def test_a_source_in_train_mode_is_told() -> None:
    class Awake(Source):
        """Build a network that is not in eval mode."""

        def networks(self) -> list[str]:
            return ["one"]

        def defaults(self, network: str) -> dict[str, Any]:
            return {"classes": 2, "in_channels": 1, "image_size": 4, "mean": (0.5,), "std": (0.5,)}

        def build(self, network: str, **about: Any) -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, about["classes"]))

    with pytest.raises(AssertionError, match="awake:one: is not in eval mode"):
        check_source(Awake)


def test_a_data_set_that_changes_is_told() -> None:
    class Restless(Dataset):
        """Draw other images each time."""

        def load(self, argument: str, root: Path | None) -> RawData:
            images = torch.randint(256, (8, 1, 4, 4), dtype=torch.uint8)
            split = RawSplit(images, torch.arange(8) % 2)
            return RawData(split, None, split, ("a", "b"), channels=1, image_size=4)

    with pytest.raises(AssertionError, match="restless: its train split changes when it is loaded again"):
        check_dataset(Restless)
