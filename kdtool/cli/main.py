"""The command ``kdtool``: it imports its subcommands when they are used, and turns errors into one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from kdtool.cli import launcher
from kdtool.cli.always_on import load_always_on
from kdtool.cli.grammar import ChainCommand, common_options
from kdtool.cli.process import (
    ReaderGone,
    check_folder,
    check_memory,
    check_streams,
    exhausted,
    exit_code_of,
    ignore_signals,
    print_result,
    printing,
    stopping_in_order,
    wait_briefly,
)
from kdtool.errors import Error, UsageError
from kdtool.training.foresight.trial import TrialEnded
from kdtool.utils.formatting import LONGEST_LINE, printable
from kdtool.utils.verbosity import NORMAL, QUIET, VERBOSE, verbosity

COMMANDS = {
    "teacher": "Build a network by name; train it with --data.",
    "refine": "Make a network smaller, without training.",
    "distill": "Train a student with a teacher.",
    "prune": "Prune a network and retrain it.",
    "compress": "Find and train the best student within a budget.",
    "export": "Convert a network, for example to ONNX, and measure it.",
    "measure": "Measure the latency of ONNX files on this device.",
    "evaluate": "Measure accuracy and loss of checkpoints and ONNX files.",
    "inspect": "Show structure, size, scores and history of a checkpoint.",
    "compare": "Compare checkpoints: predictions, sizes, latency.",
    "report": "Write a report on checkpoints, runs and studies.",
    "run": "Run a study from a recipe file.",
    "watch": "Follow a run or a study of another process.",
    "plugins": "List the installed methods.",
    "models": "List the networks that can be built.",
    "trust": "List the packages of your own code that kdtool may import.",
    "new-plugin": "Write a package with a method of your own.",
    "demo": "Show the whole workflow on a small data set.",
}
"""Name and short help of each command, in the order of use; listed here so that --help imports no command."""

LONGEST_NAME = 60

HELP = """
Make a trained vision network small.

Most commands read a checkpoint and write one. Several commands can be written in one line (a chain) or in a pipe: the
next command uses the checkpoint of the one before. If a file has the name of a command, write ./NAME.
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
    """A command that a plugin adds; it runs at once, so it cannot be part of a chain."""

    alone = True

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; ``sys.exit`` in it gives its exit code."""
        try:
            return super().invoke(ctx)
        except SystemExit as end:
            if isinstance(end.code, str):
                raise Error(end.code) from end
            ctx.exit(end.code or 0)


class Commands(click.Group):
    """The group of all commands; kdtool's own are imported when they are used, and plugins may add others."""

    command_class = AddedCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of kdtool's own commands in the order of use, then those of plugins."""
        return [*COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return self.commands.get(cmd_name)
        command: click.Command = importlib.import_module(f"kdtool.cli.commands.{cmd_name.replace('-', '_')}").command
        command.short_help = COMMANDS[cmd_name]
        return command

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a plugin's command, converted to `AddedCommand` unless it is a `ChainCommand` or a group.

        Raises:
            UsageError: kdtool itself has a command of that name.
        """
        name = name or cmd.name or ""
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise UsageError(
                f"{printable(name, LONGEST_NAME)!r} is no name of a command; the plugin must choose another"
            )
        if name in COMMANDS:
            raise UsageError(f"{name!r} is a command of kdtool itself; the plugin must choose another name")
        if not isinstance(cmd, ChainCommand | click.Group):
            names = ("callback", "params", "help", "epilog", "short_help", "hidden")
            cmd = AddedCommand(name, **{name: getattr(cmd, name) for name in names})
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names.

        Raises:
            UsageError: there is no such command; the message says what may be meant.
        """
        if not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from kdtool.cli.explain import unknown_command

            raise UsageError(unknown_command(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options in front of the first command."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            place = "options stand behind the command that they belong to, as in kdtool distill --method NAME"
            raise UsageError(f"kdtool has no option {error.option_name}; {place}") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
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
        """Run the command line; print an error as one line on stderr and exit with its code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        wait_briefly()
        state: dict[str, Any] = {"words": list(sys.argv[1:] if args is None else args)}
        with stopping_in_order():
            code = self._code_of(state, args, complete_var, **extra)
            launcher.leave(code)
        sys.exit(code)

    def _code_of(
        self, state: dict[str, Any], args: Sequence[str] | None, complete_var: str | None, **extra: Any
    ) -> int:
        """Run the command line, print an error as one line on stderr, and return the exit code."""
        code: Any
        try:
            check_streams()
            launcher.listen()
            load_always_on(self)
            if "_KDTOOL_COMPLETE" in os.environ:
                importlib.import_module("kdtool.cli.completion")
            with printing():
                code = super().main(args, "kdtool", complete_var, standalone_mode=False, obj=state, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = print_error(error.format_message(), error.exit_code, state)
        except (ReaderGone, TrialEnded) as error:
            code = error.exit_code
        except Error as error:
            code = print_error(str(error), error.exit_code, state)
        except (click.Abort, KeyboardInterrupt) as abort:
            # click raises Abort for the end of a file too.
            if isinstance(abort.__cause__, EOFError):
                code = print_unexpected_error(abort.__cause__, state)
            else:
                interrupt = abort if isinstance(abort, KeyboardInterrupt) else abort.__cause__
                code = print_error("interrupted", exit_code_of(interrupt), state)
        except SystemExit as end:
            # click ends the process after completions, and where the reader of stdout has gone.
            if "_KDTOOL_COMPLETE" in os.environ:
                raise
            if isinstance(end.__context__, OSError):
                code = ReaderGone.exit_code
            else:
                from kdtool.plugins.containment import ProcessExit

                function = "os._exit" if isinstance(end, ProcessExit) else "sys.exit"
                code = print_error(f"code of a plugin ended the process: {function}({end.code!r})", 1, state)
        except Exception as error:  # unexpected errors are printed as one line too
            what = exhausted(error)
            if launcher.is_lost(error):
                code = print_error(f"{launcher.LOST}; run the same command with --resume", 1, state)
            elif what is not None:
                code = print_error(f"the system gives no more {what}; see ulimit -a, or use a larger machine", 1, state)
            elif isinstance(error, OSError) and error.strerror:
                # For example a full disk or a directory that was deleted.
                code = print_error(f"{error.filename or 'the system'}: {error.strerror}", 1, state)
            else:
                code = print_unexpected_error(error, state)
        return code if isinstance(code, int) else 0


def print_error(message: str, code: int, state: dict[str, Any]) -> int:
    """Print an error as one line on stderr, after the traceback if ``--debug`` is set, and return the exit code.

    Of several processes, the first that fails prints it. Signals that come meanwhile, such as those of a launcher that
    hears two, must not cut it off.
    """
    ignore_signals()
    if not launcher.reports():
        return code
    if state.get("debug"):
        import traceback

        traceback.print_exc()
    # A message may hold names of files and classes, with any character.
    line = " ".join(message.split())
    if not launcher.handed_on(line, code):
        click.echo(f"Error: {printable(line, LONGEST_LINE)}", err=True)
    return code


def print_unexpected_error(error: BaseException | None, state: dict[str, Any]) -> int:
    """Print an unexpected error and how to see its traceback, and return the exit code."""
    hint = "" if state.get("debug") else "; run again with --debug for the traceback"
    return print_error(f"unexpected {type(error).__name__}: {error}{hint}", 1, state)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        print_result(f"kdtool {version('kdtool')}")
        ctx.exit()


def _run(results: list[Any]) -> None:
    """Run the planned steps; a plugin's command returns no step and has already run."""
    from kdtool.cli.chain import ChainStep, run_chain

    steps = [result for result in results if isinstance(result, ChainStep)]
    state = click.get_current_context().ensure_object(dict)
    if not steps:
        from kdtool.plugins.trust import remember_typed

        remember_typed()
    else:
        check_memory()
        if any(step.output is not None or step.max_checkpoints != 0 for step in steps):  # they read or write files
            check_folder()
        with verbosity(QUIET if state.get("quiet") else VERBOSE if state.get("verbose") else NORMAL):
            run_chain(steps, state.get("words", ()), debug=state.get("debug", False))


cli = Commands(
    "kdtool",
    chain=True,
    help=HELP,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        *common_options(),
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="show the version"
        ),
    ],
    result_callback=_run,
)


def main() -> None:
    """Run the command line."""
    cli.main()
