"""``kdtool new-plugin``: write a package with a method of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.work import Work
from kdtool.commands.new_plugin import GROUPS, new_plugin
from kdtool.errors import UsageError
from kdtool.utils.progress import say

EXAMPLES = """
\b
Examples:
  kdtool new-plugin my-loss --kind distiller
  kdtool new-plugin my-data --kind dataset -o plugins/my-data
"""


MEANT = {
    "loss": "distiller",
    "strategy": "distiller",
    "network": "teacher",
    "model": "teacher",
    "data": "dataset",
    "logger": "tracker",
}
"""What people call the kinds."""


class Kind(click.Choice[str]):
    """The kind of a method; a word that means one is answered with it."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the kind.

        Raises:
            UsageError: there is none of this name.
        """
        if value not in GROUPS:
            alike = [kind for kind in GROUPS if len(value) > 3 and kind.startswith(value.lower()[:4])]
            meant = MEANT.get(value.lower()) or next(iter(alike), None)
            hint = f"did you mean {meant}?" if meant else f"it is one of {', '.join(GROUPS)}"
            raise UsageError(f"--kind {value}: no methods are called so; {hint}")
        return value


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    name, kind = parsed.params["name"], parsed.params["kind"]
    if name is None:
        raise UsageError("new-plugin: no name given; write kdtool new-plugin NAME --kind KIND")
    if kind is None:
        raise UsageError(f"new-plugin: no kind given; add --kind {'|'.join(GROUPS)}")

    def run(work: Work) -> str | None:
        directory = new_plugin(name, kind, output=parsed.params["output"])
        say(f"test it with pytest {directory}, and install it with pip install -e {directory}")
        return str(directory)

    return ChainStep("new-plugin", run, min_checkpoints=0, max_checkpoints=0)


command = StepCommand(
    "new-plugin",
    plan,
    alone=True,
    params=[
        click.Argument(["name"], required=False, metavar="NAME"),
        click.Option(["--kind"], type=Kind(list(GROUPS)), help="what the method is"),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="directory of the package  [default: kdtool-NAME]",
        ),
    ],
    help="Write a package with one method, an entry point and a test, to begin a plugin of your own with. NAME is what "
    "users will type. It works already: it is a short example of its kind.",
    epilog=EXAMPLES,
)
