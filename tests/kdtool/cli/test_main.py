from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kdtool.cli.main import COMMANDS, cli
from kdtool.errors import Error

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run: Run, name: str) -> None:
    command = importlib.import_module(f"kdtool.cli.commands.{name.replace('-', '_')}").command

    result = run(f"{name} --help")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: kdtool {name} ")
    assert command.name == name


def test_help_of_a_method_shows_its_options_and_those_in_its_roles(run: Run) -> None:
    text = run("distill --method ikd --help").stdout

    assert "\nOptions of ikd:\n  --iters INTEGER" in text
    assert "\nOptions of kd (--objective):\n  --objective-temperature, --temperature NUMBER" in text
    assert "[default: 20; 0 < x]" in text
    assert "\nMethods (" not in text
    assert "[default: ]" not in text


def test_help_without_a_method_lists_them(run: Run) -> None:
    text = run("distill --help").stdout

    assert "\nOptions of kd (the default method):\n  --temperature NUMBER" in text
    assert "\nMethods (kdtool distill --method NAME --help shows its options):\n  assistant " in text
    assert "\n  ikd " in text


def test_help_of_a_later_step_is_that_steps(run: Run) -> None:
    assert run("distill missing.pt prune --help").stdout.startswith("Usage: kdtool prune ")


def test_stdout_carries_the_result_alone(api: Any, run: Run) -> None:
    result = run("prune student.pt")

    assert result.stdout == "student-magnitude.pt\n"
    assert "a library prints to stdout\n" in result.stderr


def test_json_of_an_export_takes_the_place_of_its_path(api: Any, run: Run) -> None:
    assert run("export student.pt --json").stdout.startswith('{\n  "onnx": "student.onnx"')
    assert run("export -f student.pt").stdout == "student.onnx\n"


def test_a_quiet_export_prints_its_path_alone(api: Any, run: Run) -> None:
    api.export = lambda *args, **options: {"onnx": "student.onnx", "file_bytes": 12}

    assert "file bytes" in run("export student.pt").stderr
    result = run("export student.pt -q")

    assert (result.stdout, result.stderr) == ("student.onnx\n", "")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (Error("a.pt: not a checkpoint.\nImport it"), 1, "Error: a.pt: not a checkpoint. Import it\n"),
        (Error("a\x1b[2J\x07\u202e.png: damaged"), 1, "Error: a?[2J??.png: damaged\n"),
        (
            ValueError("x\ny"),
            1,
            "Error: unexpected ValueError: x y; run again with --debug for the traceback\n",
        ),
        (OSError(28, "No space left on device", "x.run"), 1, "Error: x.run: No space left on device\n"),
        (
            KeyboardInterrupt(),
            130,
            "Error: prune was interrupted before anything was saved\n",
        ),
    ],
)
def test_an_error_is_one_line(api: Any, run: Run, raised: BaseException, code: int, message: str) -> None:
    def prune(*args: Any, **options: Any) -> None:
        raise raised

    api.prune = prune

    result = run("prune student.pt")

    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


def test_an_interrupt_after_the_first_of_several_checkpoints_goes_on_with_resume(
    api: Any, run: Run, here: Path
) -> None:
    def prune(path: Path, *args: Any, output: Path, **options: Any) -> Any:
        if path.name == "student.pt":
            raise KeyboardInterrupt
        output.write_text("a checkpoint")
        run_of_it = output.with_suffix(".run")
        run_of_it.mkdir()
        (run_of_it / "run.json").write_text("{}")
        return types.SimpleNamespace(path=output, metrics=[], history=[])

    api.prune = prune

    result = run("prune teacher.pt student.pt")

    assert result.stderr == "Error: prune was interrupted; run the same command with --resume to continue\n"


@pytest.mark.parametrize("line", ["--debug prune student.pt", "prune student.pt --debug"])
def test_debug_shows_the_traceback(api: Any, run: Run, line: str) -> None:
    api.prune = lambda *args, **options: 1 / 0

    result = run(line)

    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("Error: unexpected ZeroDivisionError: division by zero\n")


def test_no_command_shows_the_help(run: Run) -> None:
    result = run("")

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: kdtool ")


def test_the_version(run: Run) -> None:
    assert run("--version").stdout.startswith("kdtool 0.")


def test_a_plugin_adds_a_command_which_stands_alone(added: click.Group, run: Run, fails: Fails) -> None:
    @added.command()
    @click.argument("word")
    @click.option("--twice", is_flag=True)
    def greet(word: str, twice: bool) -> None:
        """Say hello."""
        print("hello", word, twice)

    added.add_command(click.Command("wave", callback=lambda: print("waves"), short_help="Wave."))

    assert run("greet you --twice").stdout == "hello you True\n"
    assert run("wave").stdout == "waves\n"
    assert "  greet       Say hello.\n  wave        Wave.\n" in run("--help").stdout
    assert fails("prune student.pt greet you") == "greet cannot be part of a chain; run it alone"
    with pytest.raises(Error, match="'prune' is a command of kdtool itself"):
        added.add_command(click.Command("prune"))


def imported(*words: str, **env: str) -> set[str]:
    """Return the modules that a command line imports: top-level names, and full names within kdtool."""
    code = (
        "import sys, atexit; from kdtool.cli.main import main;"
        "atexit.register(lambda: print('imported', *sys.modules, file=sys.stderr)); main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env={**os.environ, **env}
    )
    *_, last = process.stderr.splitlines()
    assert last.startswith("imported "), process.stderr
    return {name.partition(".")[0] for name in last.split()[1:]} | {name for name in last.split() if "kdtool." in name}


HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxruntime", "sklearn", "accelerate", "numpy", "safetensors", "PIL"}


@pytest.mark.parametrize(
    "line",
    [
        "plugins",
        "distill --help",
        "distill --method ikd --help",
        "teacher kdtool:conv4-fc2 --help",
        "export --help",
        "distill --iters 4 x.pt",
        "distill --method ikd --pruner magnitude x.pt prune --ratio 0.5 export --onnx",
    ],
)
def test_what_needs_no_training_imports_no_torch(line: str) -> None:
    assert not imported(*line.split()) & HEAVY


def test_the_groups_help_imports_no_command_and_no_table() -> None:
    modules = imported("--help")

    assert not modules & (HEAVY | {"rich"})
    assert not modules & {f"kdtool.cli.commands.{name.replace('-', '_')}" for name in COMMANDS}


def test_completion_imports_no_torch(tmp_path: Path) -> None:
    modules = imported(
        _KDTOOL_COMPLETE="bash_complete", COMP_LINE="kdtool distill --method ikd --pruner m", KDTOOL_CACHE=str(tmp_path)
    )

    assert not modules & HEAVY


def test_help_takes_at_most_two_and_a_half_times_the_import_of_click() -> None:
    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    pairs = [(seconds("-c", "import click"), seconds("-m", "kdtool", "--help")) for _ in range(7)]

    assert min(help_time for _, help_time in pairs) <= 2.5 * min(click_time for click_time, _ in pairs)


def test_a_closed_pipe_behind_is_silent_but_no_success() -> None:
    command = f"{sys.executable} -m kdtool plugins --json | true; echo ${{PIPESTATUS[0]}}"

    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert process.stderr == ""
    assert process.stdout == "141\n"


def test_devnull_is_no_pipe_and_no_hang() -> None:
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", "kdtool", "inspect"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )

    assert process.returncode == 2
    assert process.stderr.startswith("Error: inspect: no checkpoint given. Name it (kdtool inspect FILE)")
    assert time.monotonic() - started < 30


def test_the_real_api_makes_a_chain(here: Path) -> None:
    pytest.importorskip("kdtool.api")

    result = CliRunner().invoke(cli, ["teacher", "kdtool:lenet-300-100", "-o", "made.pt", "inspect", "--json"])

    assert result.exit_code == 0, result.output
    assert '"parameters": 266610' in result.stdout
    broken = CliRunner().invoke(cli, ["inspect", "student.pt"])
    assert broken.exit_code == 1
    assert broken.stderr.startswith("Error: student.pt: ")
    assert broken.stderr.count("\n") == 1


@pytest.mark.parametrize("code", ["0", "", "3", "'bye'"])
def test_a_method_that_exits_is_no_success(api: Any, run: Run, code: str) -> None:
    def prune(*args: Any, **options: Any) -> None:
        sys.exit(eval(code or "None"))

    api.prune = prune

    result = run("prune student.pt")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: code of a plugin ended the process: sys.exit(")
