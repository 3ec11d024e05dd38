"""``kdtool teacher``: a network by its name, built or trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import LABELLED_DATA, TRAINING, find_network, output
from kdtool.cli.grammar import StepWords
from kdtool.cli.method_options import Section
from kdtool.cli.output import tell_result
from kdtool.errors import UsageError
from kdtool.models.options import NetworkOptions
from kdtool.plugins.entry_points import names
from kdtool.training.options import EarlyOptions
from kdtool.utils.files import slug

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLES = """
\b
Examples:
  kdtool teacher torchvision:resnet34 --data cifar10 --epochs 30 -o teacher.pt
  kdtool teacher timm:resnet18 --pretrained --data folder:photos
  kdtool teacher timm:resnet18 --classes 10 --weights mine.pth
  kdtool teacher kdtool:lenet-5 --data mnist --data-dir ~/data
"""


class NetworkName(click.ParamType):  # type: ignore[type-arg]
    """``SOURCE:NAME``; only the source is completed, since a list of networks takes seconds to import."""

    name = "network"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the sources."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(f"{name}:") for name in names("teachers") if f"{name}:".startswith(incomplete)]


class TeacherCommand(StepCommand):
    """The command whose method is the part of the network's name before the colon."""

    def method_named(self, segment: StepWords) -> str | None:
        """Return the source of the first word that has one."""
        sources = names("teachers")
        words = [word for word in segment.loose if ":" in word]
        # Behind an option that only its source knows, the name looks like the option's value.
        words += [word for word in segment.doubtful if word.partition(":")[0] in sources]
        return words[0].partition(":")[0] if words else None

    def speak(self, methods: Sequence[str]) -> str:
        """Return how sources are named on the command line."""
        return " or ".join(f"{method}:NAME" for method in methods if method) or "no network's name"

    def methods_title(self) -> str:
        """Return the heading of the list of sources."""
        return "Sources (kdtool teacher SOURCE:NAME --help shows its options)"


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    name = given.params["network"]
    if name is None:
        raise UsageError(f"teacher: no network given; name one as {_sources()}")
    if not name.partition(":")[2]:
        raise UsageError(f"{name}: a network is written as {_sources()}")
    weights: Path | None = given.params["weights"]
    pretrained: bool = given.params["pretrained"]
    if weights is not None and pretrained:
        raise UsageError("--weights and --pretrained are two ways to say which weights to start from; give one")
    start: dict[str, Any] = {
        **({"weights": weights} if weights else {}),
        **({"pretrained": True} if pretrained else {}),
    }
    # As kdtool.api names it, so that the file is checked before anything is imported.
    default = Path(slug(name.partition(":")[2].split(",")[0]) + ".pt")

    def run(work: Work) -> str | None:
        from kdtool import api

        told: dict[str, Any] = {"output": work.output, "force": work.force, "resume": work.resume}
        tell_result(api.teacher(name, **start, **told, **given.options))
        return work.result

    return ChainStep(
        "teacher",
        run,
        least=0,
        most=0,
        output=lambda _: given.params["output"] or default,
        hands_on=True,
        force=given.params["force"],
        resume=given.params["resume"],
        resumable="data" in given.options,
        files=(weights,) if weights else (),
        slow_check=partial(find_network, name),
    )


def _sources() -> str:
    return " or ".join(f"{name}:NAME" for name in names("teachers"))


command = TeacherCommand(
    "teacher",
    plan,
    kind="teachers",
    params=[
        click.Argument(["network"], type=NetworkName(), required=False, metavar="SOURCE:NAME"),
        *output("NAME.pt"),
        click.Option(["--pretrained"], is_flag=True, help="start from the weights that the source publishes"),
        click.Option(
            ["--weights"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="start from a state_dict: .pth, .pt or .safetensors",
        ),
    ],
    groups=[Section("Network", NetworkOptions), LABELLED_DATA, TRAINING, Section("Early weights", EarlyOptions)],
    help="Build a network by its name and, with --data, train it: the teacher.",
    epilog=EXAMPLES,
)
