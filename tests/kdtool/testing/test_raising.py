"""Whatever the code of a method raises or returns, its check ends in an AssertionError that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdtool import Dataset, Distiller, LossDistiller, Network, Pruner, Refiner, option
from kdtool.data import RawData
from kdtool.plugins.method import Method
from kdtool.plugins.registry import make
from kdtool.testing.checks import check_dataset, check_distiller, check_pruner, check_refiner


class Beyond(LossDistiller):
    """Copy the teacher."""

    part: float = option(3.0, maximum=1, help="part")


class Needy(LossDistiller):
    """Copy the teacher."""

    part: float = option(help="part")


class Bare(LossDistiller):
    """Forget the loss."""


class Picky(LossDistiller):
    """Copy the teacher."""

    def watch(self, student: Network, teacher: Network) -> Any:
        raise KeyError("layer3")


class Forgetful(Distiller):
    """Return nothing."""

    def distill(self, run: Any, teacher: Network, student: Network | None) -> Network:
        return None  # type: ignore[return-value]


class Broken(Distiller):
    """Raise."""

    def distill(self, run: Any, teacher: Network, student: Network | None) -> Network:
        raise ValueError("boom")


class Swapped(Refiner):
    """Mix up arguments."""

    def refine(self, network: Network) -> Network:
        return Network(network.module, network.architecture)  # type: ignore[arg-type]


class Flat(Refiner):
    """Halve."""

    ratio: float = option(0.5, above=0, below=1, help="part of the widths")

    def refine(self, network: Network) -> Network:
        return make("refiners", "halve", ratio=self.ratio).refine(network)  # type: ignore[no-any-return]

    @classmethod
    def ladders(cls, network: Network) -> Any:
        return [{"ratio": 0.75}, {"ratio": 0.5}]


class Unread(Dataset):
    """Raise."""

    def load(self, argument: str, root: Path | None) -> RawData:
        raise KeyError("boom")


class Without(Pruner):
    """Forget to prune."""


@pytest.mark.parametrize(
    ("check", "method", "message"),
    [
        (check_distiller, Beyond, "Beyond: cannot be made with its default options: .* --part: 3.0 is out of range"),
        (check_distiller, Needy, "Needy: cannot be made .* needs --part: part"),
        (check_distiller, Bare, r"loss\(\) fails: MethodError: Bare.loss\(\) is not implemented"),
        (check_distiller, Picky, r"check\(\), watch\(\) or an adapter fails: KeyError: 'layer3'"),
        (check_distiller, Forgetful, "forgetful: returned NoneType, not a kdtool.Network"),
        (check_distiller, Broken, r"broken: distill\(\) fails: ValueError: boom"),
        (check_refiner, Swapped, r"swapped: refine\(\) fails: MethodError: Network\(architecture, module\) got "),
        (check_refiner, Flat, r"flat: ladders\(\) must return lists of dictionaries of options; ladder 0 is {'ratio'"),
        (check_dataset, Unread, r"unread: load\(\) fails: KeyError: 'boom'"),
        (check_pruner, Without, r"without: prune\(\) fails: MethodError: Without.prune\(\) is not implemented"),
    ],
)
def test_whatever_a_method_raises_is_told(check: Callable[[Any], None], method: type[Method], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(method)
