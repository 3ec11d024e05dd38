"""``kdtool teacher``: build a network by name, and train it if data is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import (
    LABELLED_DATA,
    TIME,
    TRAINING,
    as_network,
    check_network,
    from_environment,
    output_options,
    run_options,
    track_option,
    training_step,
)
from kdtool.cli.early import check_weights
from kdtool.cli.grammar import StepWords
from kdtool.cli.method_options import Section
from kdtool.cli.output import print_result
from kdtool.cli.several_processes import processes_option
from kdtool.cli.work import Work
from kdtool.errors import UsageError
from kdtool.models.options import NetworkOptions
from kdtool.plugins.entry_points import names
from kdtool.plugins.network_spec import forms, qualified, source_of, stem_of
from kdtool.training.options import EarlyOptions, InitialOptions
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
  kdtool teacher mypackage.nets:make_net,width=32 --trust mypackage --data digits
"""


class NetworkName(click.ParamType):  # type: ignore[type-arg]
    """``SOURCE:NAME``; names are completed from a list in the cache."""

    name = "network"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the matching sources, each with a colon, or the matching networks of a source."""
        from kdtool.cli.candidates import networks

        return networks(incomplete)


class TeacherCommand(StepCommand):
    """The command ``teacher``; its method is the part of the network's name before the colon."""

    def method_named(self, segment: StepWords) -> str | None:
        """Return the source in the first word that has a colon."""
        sources = names("teachers")
        words = [word for word in (segment.values.get("--model", ""), *segment.loose) if ":" in word]
        # After an option that only the source has, the network's name looks like the value of the option.
        words += [word for word in segment.doubtful if qualified(word).partition(":")[0] in sources]
        return source_of(words[0]) if words else None

    def as_typed(self, methods: Sequence[str]) -> str:
        """Return sources as they are typed on the command line."""
        return " or ".join(f"{method}:NAME" for method in methods if method) or "a command without a network"

    def methods_title(self) -> str:
        """Return the heading of the list of sources."""
        return "Sources (kdtool teacher SOURCE:NAME --help shows its options)"


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    name, model = parsed.params["network"], parsed.params["model"]
    if name is not None and model is not None:
        raise UsageError(f"--model {model}: the network is named already, {name}; leave one out")
    name = name or model
    if name is None:
        hint = "; if the file teacher.pt is meant, write its whole name" if Path("teacher.pt").exists() else ""
        raise UsageError(f"teacher: no network given; write one as {forms()}{hint}")
    if not name.partition(":")[2]:
        raise UsageError(f"{name.rstrip(':')}: {as_network(name.rstrip(':'))}")
    weights: Path | None = parsed.params["weights"]
    pretrained: bool = parsed.params["pretrained"]
    if weights is not None and pretrained:
        raise UsageError("--weights and --pretrained both set the initial weights; give only one")
    initial: dict[str, Any] = {
        **({"weights": weights} if weights else {}),
        **({"pretrained": True} if pretrained else {}),
    }
    # The same default as in kdtool.api; it is needed here to check the file before anything is imported.
    default = Path(slug(stem_of(name)) + ".pt")

    trains = "data" in parsed.options
    if not trains and from_environment(click.get_current_context()):
        parsed.params["track"] = None

    def run(work: Work) -> str | None:
        from kdtool import api

        print_result(api.teacher(name, **initial, **run_options(parsed, work)), work)
        return work.result

    return training_step(
        parsed,
        "teacher",
        run,
        lambda _: default,
        min_checkpoints=0,
        max_checkpoints=0,
        early_check=None if weights else partial(check_weights, name, pretrained=pretrained),
        resumable=trains,
        recognises=not trains,
        files=(weights,) if weights else (),
        slow_check=partial(check_network, name),
    )


command = TeacherCommand(
    "teacher",
    plan,
    kind="teachers",
    params=[
        click.Argument(["network"], type=NetworkName(), required=False, metavar="SOURCE:NAME"),
        click.Option(["--model"], type=NetworkName(), metavar="SOURCE:NAME", help="the network, if not named in front"),
        *output_options("NAME.pt"),
        track_option(),
        processes_option(),
        click.Option(["--pretrained"], is_flag=True, help="use the pretrained weights of the source"),
        click.Option(
            ["--weights"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="load the weights from a state_dict: .pth, .pt or .safetensors",
        ),
    ],
    groups=[
        Section("Network", NetworkOptions),
        LABELLED_DATA,
        TRAINING,
        TIME,
        Section("Initial weights", InitialOptions),
        Section("Early weights", EarlyOptions),
    ],
    help="Build a network by name, or by a function of your own code (MODULE:FUNCTION); with --data, train it. The "
    "result can be the teacher of kdtool distill.",
    epilog=EXAMPLES,
)
