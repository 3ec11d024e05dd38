"""The check of a source tells what is wrong with the networks that it builds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from kdtool import Error, Source
from kdtool.testing.checks import check_source

COUNT = itertools.count(3)


def _linear(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 7)).eval()


def _scaled() -> nn.Module:
    net = _linear()
    net[1].weight.data.mul_(1 / net[1].weight.abs().max().item())  # type: ignore[index, operator, union-attr]
    return net


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * images


def _made(build: Callable[[], Any], unknown: type[Exception] = Error) -> type[Source]:
    class Made(Source):
        """Build one network."""

        def networks(self) -> list[str]:
            return ["one"]

        def defaults(self, network: str) -> dict[str, Any]:
            return {"classes": 2, "in_channels": 1, "image_size": 4, "mean": (0.5,), "std": (0.5,)}

        def build(self, network: str, **about: Any) -> nn.Module:
            if network != "one":
                raise unknown(network)
            return build()  # type: ignore[no-any-return]

    return Made


def test_a_network_that_reads_its_own_weights_passes() -> None:
    check_source(_made(_scaled))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: [][0], r"made:one: build\(\) fails: IndexError: "),
        (lambda: None, r"made:one: build\(\) returned NoneType, not a torch\.nn\.Module"),
        (lambda: _linear(*[nn.Linear(16, 16)] * next(COUNT)), "could not be read: .*must give the same structure"),
        (
            lambda: _linear(nn.Linear(16, width := next(COUNT)), nn.Linear(width, 16)),
            "its layers have other sizes when it is built again; .*must give the same structure",
        ),
        (lambda: _linear(_Times(next(COUNT))), "a second network with the same weights gives other outputs"),
    ],
    ids=["raises", "nothing", "other layers", "other sizes", "other outputs"],
)
def test_a_build_that_cannot_be_repeated_is_told(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_source(_made(build))


def test_an_unknown_name_must_be_an_error_of_kdtool() -> None:
    with pytest.raises(AssertionError, match=r"an unknown name must raise kdtool\.Error, not KeyError: 'no-network"):
        check_source(_made(_linear, KeyError))
