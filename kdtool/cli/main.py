"""The ``kdtool`` command: its subcommands, imported when they are used, and what becomes of an error."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from kdtool.cli.grammar import DEBUG_HELP, ChainCommand, set_debug
from kdtool.errors import Error, UsageError, nearest

COMMANDS = {
    "teacher": "Build a network by its name and, with --data, train it.",
    "refine": "Make a smaller structure of a network.",
    "distill": "Teach a student.",
    "prune": "Remove what is left over in a network, retrain the rest.",
    "export": "Write a network in another format and measure it.",
    "evaluate": "Measure accuracy and loss of checkpoints.",
    "inspect": "Show what a checkpoint is and how it was made.",
    "compare": "Show how alike checkpoints are.",
    "report": "Write a page about checkpoints, runs and studies.",
    "run": "Run a study: the steps of a recipe.",
    "plugins": "List the installed methods.",
    "demo": "Do the main job on real digits.",
}
"""The commands in the order of the work, each in the module of its name; told here so that --help imports none."""

HELP = """
Make a trained vision network small.

Every command reads a checkpoint and writes a checkpoint. Commands stand in a chain, where a command's name begins the
next step, or in a pipe; a file called like a command is written ./prune.
"""

EXAMPLES = """
\b
Examples:
  kdtool teacher torchvision:resnet34 --data cifar10 -o teacher.pt
  kdtool distill --method ikd --iters 4 teacher.pt
  kdtool distill --method ikd teacher.pt prune --ratio 0.8 export --onnx
  kdtool distill --method ikd teacher.pt | kdtool prune | kdtool export --onnx
"""


class AddedCommand(ChainCommand):
    """A command that a plugin adds; it runs as it likes, so it stands alone."""

    alone = True


class Commands(click.Group):
    """The group: commands are imported when they are used, plugins may add some."""

    command_class = AddedCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return kdtool's own commands in the order of the work, then those of plugins."""
        return [*COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return self.commands.get(cmd_name)
        command: click.Command = importlib.import_module(f"kdtool.cli.commands.{cmd_name}").command
        command.short_help = COMMANDS[cmd_name]
        return command

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a plugin's command, made to fit a chain's grammar.

        Raises:
            UsageError: kdtool has a command of that name itself.
        """
        name = name or cmd.name or ""
        if name in COMMANDS:
            raise UsageError(f"{name!r} is a command of kdtool itself; the plugin must rename its own")
        if not isinstance(cmd, ChainCommand | click.Group):
            about = {key: getattr(cmd, key) for key in ("callback", "params", "help", "epilog", "short_help", "hidden")}
            cmd = AddedCommand(name, **about)
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word.

        Raises:
            UsageError: there is none of that name; the nearest ones are told.
        """
        if not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            names = self.list_commands(ctx)
            hint = nearest(args[0], names) or f"; there are {', '.join(names)}"
            raise UsageError(f"no command is called {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        added = {name: self.commands[name] for name in sorted(self.commands) if not self.commands[name].hidden}
        with formatter.section("Commands"):
            formatter.write_dl(
                [*COMMANDS.items(), *((name, command.get_short_help_str()) for name, command in added.items())]
            )

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; an error becomes one line on stderr and an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        # On a shared machine threads that spin while they wait take the cores from those that work; torch reads this
        # when it is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        state: dict[str, bool] = {}
        try:
            load_always_on(self)
            code = super().main(args, "kdtool", complete_var, standalone_mode=False, obj=state, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = tell(error.format_message(), error.exit_code, state)
        except Error as error:
            code = tell(str(error), error.exit_code, state)
        except click.Abort as abort:
            # click takes the end of a file for an interruption too.
            ended = isinstance(abort.__cause__, EOFError)
            code = tell_unexpected(abort.__cause__, state) if ended else tell("interrupted", 130, state)
        except Exception as error:  # what nobody foresaw is told in one line as well
            if isinstance(error, OSError) and error.filename and error.strerror:
                # A full disk or a directory that went away.
                code = tell(f"{error.filename}: {error.strerror}", 1, state)
            else:
                code = tell_unexpected(error, state)
        sys.exit(code if isinstance(code, int) else 0)


def tell(message: str, code: int, state: dict[str, bool]) -> int:
    """Say one line on stderr, behind the traceback where it was asked for, and return the exit code."""
    if state.get("debug"):
        import traceback

        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    return code


def tell_unexpected(error: BaseException | None, state: dict[str, bool]) -> int:
    """Say what nobody foresaw, and how to see more of it."""
    way_out = "" if state.get("debug") else "; run again with --debug for the traceback"
    return tell(f"unexpected {type(error).__name__}: {error}{way_out}", 1, state)


def load_always_on(cli: click.Group) -> None:
    """Load the plugins that are always on and let them add commands; a broken one gets a line on stderr."""
    from kdtool.plugins.entry_points import always_on, manager

    def warn(text: str) -> None:
        # Not while the user types and the shell asks for completions.
        if "_KDTOOL_COMPLETE" not in os.environ:
            click.echo(f"warning: {' '.join(text.split())}", err=True)

    for broken in always_on():
        warn(str(broken))
    for hook in manager().hook.commands.get_hookimpls():
        try:
            hook.function(*[cli for _ in hook.argnames])
        except Exception as error:  # a plugin may fail in any way
            warn(f"plugin {hook.plugin_name} is broken: commands(): {type(error).__name__}: {error}")


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"kdtool {version('kdtool')}")
        ctx.exit()


def _run(results: list[Any]) -> None:
    """Run the steps that the commands planned; a plugin's own command has run, and planned none."""
    from kdtool.cli.chain import ChainStep, run_chain

    steps = [result for result in results if isinstance(result, ChainStep)]
    if steps:
        run_chain(steps, debug=click.get_current_context().ensure_object(dict).get("debug", False))


cli = Commands(
    "kdtool",
    chain=True,
    help=HELP,
    epilog=EXAMPLES,
    params=[
        click.Option(["--debug"], is_flag=True, expose_value=False, callback=set_debug, help=DEBUG_HELP),
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="show the version"
        ),
    ],
    result_callback=_run,
)


def main() -> None:
    """Run the command line."""
    cli.main()
