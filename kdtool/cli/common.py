"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from kdtool.cli.chain import ChainStep
from kdtool.cli.grammar import step_names
from kdtool.cli.method_options import Section
from kdtool.cli.several_processes import wanted
from kdtool.cli.work import Work
from kdtool.data.options import DataOptions
from kdtool.errors import similar
from kdtool.exporting.providers import PROVIDERS
from kdtool.plugins.entry_points import names
from kdtool.plugins.network_spec import forms
from kdtool.plugins.trust import exists
from kdtool.training.options import TimeOptions, Training

if TYPE_CHECKING:
    from kdtool.cli.command import ParsedCommand

TRACK = "KDTOOL_TRACK"
"""The variable that stands for ``--track``."""

TRAINING = Section("Training", Training)

TIME = Section("Training", TimeOptions)

DATA = Section("Data", DataOptions)

LABELLED_DATA = Section(
    "Data", DataOptions, only=tuple(info.name for info in DataOptions.describe() if info.name != "unlabelled")
)

WHICH_DATA = Section("Data", DataOptions, only=("data", "data_dir", "download"))

SPLIT_DATA = Section("Data", DataOptions, only=("data", "data_dir", "download", "subset", "validation", "split_seed"))


def checkpoint(metavar: str = "CHECKPOINT") -> click.Argument:
    """Return the argument for one checkpoint; if it is missing, the previous step or a pipe provides the checkpoint."""
    return click.Argument(["checkpoint"], required=False, type=click.Path(path_type=Path), metavar=f"[{metavar}]")


def checkpoints(metavar: str = "[CHECKPOINT]...") -> click.Argument:
    """Return the argument for several checkpoints."""
    path = click.Path(path_type=Path)
    return click.Argument(["checkpoints"], nargs=-1, type=path, metavar=metavar, shell_complete=_step_or_file)


def _step_or_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the candidates for a word that is another file or the name of the next step; a file that exists wins."""
    parent, beginning = Path(incomplete).parent, Path(incomplete).name
    steps = [name for name in step_names(ctx) if incomplete and name.startswith(incomplete)]
    if steps and not any(parent.glob(f"{beginning}*")):
        return [CompletionItem(name) for name in steps]
    return [CompletionItem(incomplete, type="file")]


def as_network(word: str) -> str:
    """Return how a word without a source is written as a network, for a message."""
    from kdtool.models.names import known, named, other_task

    source, _, network = word.replace("/", ":").replace(".", ":").partition(":")
    module, _, function = word.rpartition(".")
    if module and source not in names("teachers") and exists(source) and not Path(word).exists():
        return f"write {module}:{function}"
    if network and source in names("teachers"):
        return f"write {source}:{network}"
    if Path(word).is_file():
        return (
            f"is a file, and the network comes first; kdtool inspect {word} shows what it is; to train a checkpoint "
            f"for longer: kdtool distill {word} --student {word} --method none"
        )
    if Path(word).is_dir():
        return "is a directory, and the network comes first: kdtool teacher SOURCE:NAME --data DATA"
    if found := named(word):
        return f"write {' or '.join(found)}"
    if task := other_task(word):
        return task.removeprefix("; it ")
    sources = names("teachers")
    lists = [known(source) for source in sources]
    # A name that is near among some lists may be a wrong suggestion: the right one may be in a list that is missing.
    alike = similar(word, [name for list_ in lists for name in list_ or ()])[:2] if None not in lists else []
    hint = f"; did you mean {' or '.join(found for name in alike for found in named(name))}?" if alike else ""
    if word in sources:
        return f"the name of a network is missing; kdtool models {word}: lists them"
    return f"a network is written as {forms()}{hint}"


def check_network(spec: str) -> None:
    """Check that the source of ``SOURCE:NAME`` has a network of that name; this may import the source's library.

    Raises:
        Error: it has none.
    """
    from kdtool.models.sources import check_name

    check_name(spec)


def output_options(default: str, *, trains: bool = True) -> list[click.Parameter]:
    """Return the options of a command that writes a file; ``default`` describes the file's default name."""
    path = click.Path(path_type=Path)
    overwrite = "overwrite existing files" + " and runs" * trains
    dry_run = (
        "say what would be made, and in how much time, memory and disk, and write nothing; applies to the whole chain"
        if trains
        else "write nothing in the whole chain; the steps that make checkpoints say what that would take"
    )
    return [
        click.Option(["-o", "--output"], type=path, help=f"output file  [default: {default}]", metavar="FILE"),
        click.Option(["-f", "--force"], is_flag=True, help=overwrite),
        click.Option(["--resume"], is_flag=True, help="continue an interrupted run; applies to the whole chain"),
        click.Option(["--dry-run"], is_flag=True, help=dry_run),
    ]


def from_environment(ctx: click.Context) -> bool:
    """Return whether the value of ``--track`` is that of the variable, which holds for every command."""
    return ctx.get_parameter_source("track") is ParameterSource.ENVIRONMENT


def track_option() -> click.Option:
    """Return the option ``--track`` of a command that trains; what it names is checked when it is read."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value and not ctx.resilient_parsing:
            from kdtool.plugins.tracker import trackers

            trackers(value, TRACK if from_environment(ctx) else "--track")
        return value or None

    return click.Option(
        ["--track"],
        metavar="TRACKER[:PLACE],...",
        envvar=TRACK,
        callback=check,
        help=f"show the training in tensorboard[:DIR], mlflow[:URI] or wandb[:PROJECT]; also {TRACK}",
    )


def training_step(
    parsed: ParsedCommand,
    name: str,
    run: Callable[[Work], str | None],
    default: Callable[[Path], Path],
    **more: Any,
) -> ChainStep:
    """Return the step of a command that trains.

    ``default`` returns the name of its output for a checkpoint, and ``more`` are further fields of the step.
    """
    fields = {"resumable": True, **{field: parsed.params[field] for field in ("force", "resume", "dry_run")}, **more}
    return ChainStep(
        name,
        run,
        output=lambda source: parsed.params["output"] or default(source),
        makes_checkpoint=True,
        processes=wanted(parsed.params, parsed.options),
        **fields,
    )


def run_options(parsed: ParsedCommand, work: Work) -> dict[str, Any]:
    """Return the options of the Python function of a command that trains: where it writes, and what was typed."""
    places = {"output": work.output, "force": work.force, "resume": work.resume}
    tracked = {"track": parsed.params["track"]} if parsed.params["track"] else {}
    return {**places, **tracked, **work.only_said, **parsed.options}


def json_option() -> click.Option:
    """Return the option ``--json`` of a command that prints results."""
    return click.Option(["--json", "as_json"], is_flag=True, help="print JSON on stdout")


def evaluation_options() -> list[click.Parameter]:
    """Return the options of where a network is evaluated."""
    return [
        click.Option(
            ["--split"],
            type=click.Choice(("train", "val", "test", "all")),
            help="split to measure on, or all images  [default: test]",
        ),
        click.Option(["--device"], metavar="TEXT", help="auto, cpu, cuda, cuda:1, mps  [default: auto]"),
    ]


def picture_options(what: str) -> list[click.Parameter]:
    """Return the options of a command that can draw ``what``."""
    path = click.Path(path_type=Path)
    return [
        click.Option(["-o", "--output"], type=path, metavar="FILE", help=f"write a picture (.png) of {what}"),
        click.Option(["-f", "--force"], is_flag=True, help="overwrite an existing picture"),
    ]


def latency_options() -> list[click.Parameter]:
    """Return the options of how a latency is measured."""
    number = click.IntRange(min=1)
    return [
        click.Option(
            ["--provider"],
            type=click.Choice(tuple(PROVIDERS)),
            help="what onnxruntime runs networks on  [default: cpu]",
        ),
        click.Option(["--threads"], type=number, metavar="INTEGER", help="threads of onnxruntime  [default: 1]"),
        click.Option(["--batch"], type=number, metavar="INTEGER", help="images in a batch  [default: 1]"),
    ]
