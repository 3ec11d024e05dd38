"""A method may not have an option of kdtool's, and what is told of kdtool's options is true of its commands."""

from __future__ import annotations

import importlib
from typing import ClassVar

import click
import pytest
import torch

from kdtool import Distiller, Exporter, LossDistiller, Network, Refiner, Run, Step, nested, option
from kdtool.errors import UsageError
from kdtool.exporting.names import option_names
from kdtool.plugins.entry_points import BrokenPlugin, installed, names
from kdtool.plugins.registry import load
from kdtool.plugins.reserved import FLAGS
from kdtool.testing.checks import check_distiller, check_exporter, check_options
from kdtool.testing.names import ELSEWHERE, SETTINGS, check_names

COMMANDS = {
    "teachers": "teacher",
    "refiners": "refine",
    "distillers": "distill",
    "pruners": "prune",
    "exporters": "export",
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_kdtools_own_options_are_those_of_the_command(kind: str) -> None:
    command = importlib.import_module(f"kdtool.cli.commands.{COMMANDS[kind]}").command
    options = [param for param in command.params if isinstance(param, click.Option)]
    flags = {flag[2:] for option in options for flag in option.opts if flag.startswith("--")}

    assert flags | {"help"} == {*FLAGS[kind]}
    assert {section.options for section in command.groups} == {*SETTINGS[kind]}


def test_compress_takes_distillers_too() -> None:
    groups = {section.options for section in importlib.import_module("kdtool.cli.commands.compress").command.groups}

    assert groups - {*SETTINGS["distillers"]} == {*ELSEWHERE["distillers"]}


def test_no_builtin_hides_an_option_of_kdtool_without_saying_so() -> None:
    for plugin in installed():
        if plugin.builtin and plugin.kind in SETTINGS:
            check_names(load(plugin), everywhere=True)
    assert not {*names("exporters")} & option_names()


class Loss(LossDistiller):
    """Copy the teacher."""

    def loss(self, step: Step) -> torch.Tensor:
        return (step.student - step.teacher).square().mean()


class Seeded(Loss):
    """Copy the teacher."""

    seed: int = option(0, help="a seed of its own")


class Forced(Loss):
    """Copy the teacher."""

    force: bool = option(True, help="whether it is forced")


class Tries(Loss):
    """Copy the teacher."""

    trials: int = option(2, help="an option of kdtool compress")


class Downloads(Loss):
    """Copy the teacher."""

    no_download: int = option(0, help="half of a switch")


@pytest.mark.parametrize(
    ("method", "flag"), [(Seeded, "seed"), (Forced, "force"), (Tries, "trials"), (Downloads, "no-download")]
)
def test_an_option_that_hides_one_of_kdtool_fails_the_check(method: type[Loss], flag: str) -> None:
    with pytest.raises(AssertionError, match=f"its option --{flag} would hide kdtool's own; the plugin must choose"):
        check_distiller(method)


def test_an_option_of_another_command_disturbs_there_alone() -> None:
    check_names(Tries)


def test_a_role_may_have_the_name_of_one_of_the_same_kind_and_another_option_what_the_method_declares() -> None:
    class Through(Distiller):
        """Teach an assistant first."""

        refiner: Refiner = nested("refiners", "halve", help="what makes the assistant")

        def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
            raise NotImplementedError

    class Declared(Seeded):
        """Copy the teacher."""

        hides: ClassVar[tuple[str, ...]] = ("seed",)

    class Other(Through):
        """Teach an assistant first."""

        refiner: str = option("halve", help="a word")  # type: ignore[assignment]

    check_options(Through, Distiller)
    check_options(Declared, Distiller)
    with pytest.raises(UsageError, match="--refiner would hide"):
        check_names(Other)


@pytest.mark.parametrize("word", ["json", "data-dir", "opset", "no-latency"])
def test_an_exporter_is_not_called_like_an_option_of_export(word: str) -> None:
    class Named(Exporter):
        """Write a file."""

        name: ClassVar[str] = word
        suffix: ClassVar[str] = ".txt"

    with pytest.raises(AssertionError, match=f"kdtool export has an option --{word}; the plugin must choose another"):
        check_exporter(Named)


def test_the_message_names_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    from kdtool.plugins import method
    from kdtool.plugins.entry_points import Plugin

    plugin = Plugin("distillers", "seeded", __name__, "kdtool-seeded", "1.0", "Seeded")
    monkeypatch.setattr(method, "installed", lambda: (plugin,))

    with pytest.raises(BrokenPlugin, match="plugin 'seeded' of kdtool-seeded 1.0 is broken: its option --seed would"):
        check_names(Seeded)
