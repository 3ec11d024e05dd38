"""``kdtool run``: a study, told by a recipe."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from kdtool.cli.chain import ChainStep, InterruptedStep, PartlyDone, Work, check_file
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json, table
from kdtool.errors import Error, UsageError
from kdtool.study.recipe import Recipe, in_step, read_recipe

EXAMPLES = """
\b
Examples:
  kdtool run recipe.toml --dry-run
  kdtool run recipe.toml --jobs 4
  kdtool run recipe.toml --json > results.json

\b
A recipe:
  [matrix]
  seed = [0, 1, 2]
  ratio = [0.5, 0.8]
  [[step]]
  name = "teacher"
  run = "teacher kdtool:lenet-5 --data mnist --seed {seed}"
  [[step]]
  name = "pruned"
  from = "teacher"
  run = "prune --ratio {ratio}"
  [[compare]]
  of = ["teacher", "pruned"]
"""

ROWS = {
    "accuracy": "accuracy",
    "error": "error",
    "val_accuracy": "val accuracy",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "compression": "compression",
    "macs": "MACs",
    "classified_differently": "classified differently",
    "agreement": "agreement",
    "l2": "L2",
    "l2_sum": "L2 sum",
    "mcnemar_p": "McNemar p",
    "seconds": "seconds",
}

COUNTS = ("parameters", "nonzero", "macs")
"""The numbers whose means are shown as whole numbers."""

SPREAD = ("accuracy", "val_accuracy", "classified_differently", "l2")
"""The means that are shown with their interval."""


def plan(given: Given) -> ChainStep:
    """Plan the step: a recipe that cannot be run is refused here."""
    path: Path | None = given.params["recipe"]
    if path is None:
        raise UsageError("run: no recipe given; name it (kdtool run recipe.toml)")
    recipe = read_recipe(path, given.params["output"])
    check_commands(recipe)

    def run(work: Work) -> str | None:
        if given.params["dry_run"]:
            return "\n".join(lines(recipe))
        from kdtool import api

        # As Ctrl-C does, so that the processes end with this one.
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            result = api.run_study(recipe, jobs=given.params["jobs"], force=given.params["force"])
        except KeyboardInterrupt as interrupt:
            raise InterruptedStep("run was interrupted; the same command goes on where it was cut") from interrupt
        finally:
            signal.signal(signal.SIGTERM, before)
        text = as_json(result) if given.params["as_json"] else described(result)
        if result["failed"] or result["not_run"]:
            raise PartlyDone(failure(result), text)
        return text

    return ChainStep("run", run, least=0, most=0)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def check_commands(recipe: Recipe) -> None:
    """Parse every command of a recipe, as the command line does.

    Raises:
        UsageError: one is no command that makes a checkpoint, or its options are wrong; its step is named.
    """
    made = {recipe.directory / f"{command.name}.pt" for command in recipe.commands}
    for command in recipe.commands:
        try:
            _check(command.words(recipe.directory), made)
        except click.ClickException as error:
            raise in_step(recipe, command, Error(error.format_message())) from error
        except Error as error:
            raise in_step(recipe, command, error) from error


def _check(words: Sequence[str], made: Collection[Path]) -> None:
    from kdtool.cli.main import cli

    above = click.Context(cli, info_name="kdtool")
    name, command, rest = cli.resolve_command(above, list(words))
    if not isinstance(command, StepCommand) or command.alone:
        raise UsageError(f"{name} makes no checkpoint, so it is no step")
    if "--help" in rest:
        raise UsageError("--help makes no checkpoint")
    with command.make_context(name, rest, parent=above, allow_extra_args=True) as context:
        step: ChainStep = command.invoke(context)
        following = context.args
        for option in ("output", "force", "resume"):
            if context.params.get(option):
                raise UsageError(f"--{option} is the study's; leave it out")
    if following:
        raise UsageError(f"{following[0]} begins another command; give it a [[step]] of its own")
    if not step.hands_on:
        raise UsageError(f"{name} makes no checkpoint, so it is no step")
    if len(step.checkpoints) < step.least:
        raise UsageError(f'{name} works on a checkpoint; name the step that makes it, such as from = "teacher"')
    if step.each and len(step.checkpoints) > 1:
        raise UsageError(f"{name} works on one checkpoint in a step, not on {len(step.checkpoints)}")
    for path in (*step.checkpoints, *step.files):
        if path not in made:
            check_file(path)
    if step.slow_check is not None:
        step.slow_check()


def lines(recipe: Recipe) -> list[str]:
    """Return the commands as they would be typed."""
    return [
        shlex.join(["kdtool", *command.words(recipe.directory), "-o", str(recipe.directory / f"{command.name}.pt")])
        for command in recipe.commands
    ]


def described(result: dict[str, Any]) -> str:
    """Return a study's results, for a person."""
    titles = {"rows": "", "means": "means over seeds, with 95 % intervals", "comparisons": "pairs"}
    titles["comparison_means"] = "pairs, means over seeds, with 95 % intervals"
    parts = []
    for key, title in titles.items():
        if result[key]:
            head = f"{title}:\n" if title else ""
            parts.append(head + _table(result[key]))
    return "\n\n".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    values = dict.fromkeys(key for row in rows for key in row["values"])
    columns = {"step": "step", "a": "a", "b": "b", **{f"value {key}": key for key in values}, "seeds": "seeds"}
    # As text: a ratio of the matrix is no ratio that was measured.
    flat = [{**row, **{f"value {key}": str(value) for key, value in row["values"].items()}} for row in rows]
    for row in flat:
        row |= {key: round(row[key]) for key in COUNTS if row.get(key) is not None}
        if "seconds" in row:
            row["seconds"] = f"{row['seconds']:.1f}"
        for key in SPREAD:
            if row.get(f"{key}_low") is not None:
                row[key] = f"{row[key]:.4g} ± {row[key] - row[f'{key}_low']:.2g}"
    return table({**columns, **ROWS}, flat)


def failure(result: dict[str, Any]) -> str:
    """Return in one line what failed."""
    failed = [f"{one['name']}: {one['error']}" for one in result["failed"]]
    for line in failed:
        click.echo(f"failed: {line}", err=True)
    for name in result["not_run"]:
        click.echo(f"not run: {name}", err=True)
    rest = f", {len(result['not_run'])} not run" if result["not_run"] else ""
    return f"{len(failed)} failed{rest}; the same command tries them again"


command = StepCommand(
    "run",
    plan,
    alone=True,
    params=[
        click.Argument(["recipe"], required=False, type=click.Path(path_type=Path), metavar="RECIPE"),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="where to work  [default: RECIPE.study beside it, unless it says otherwise]",
        ),
        click.Option(
            ["--jobs"],
            type=click.IntRange(min=1),
            default=1,
            metavar="INTEGER",
            help="commands side by side  [default: 1; >= 1]",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="do again what is done already"),
        click.Option(["--dry-run"], is_flag=True, help="check the recipe, print its commands, run none"),
        json_option(),
    ],
    help="Run a study: the steps of a recipe for every combination of its matrix. What is done is not done again, what "
    "was cut goes on, and a step that fails takes only those with it that come from it.",
    epilog=EXAMPLES,
)
