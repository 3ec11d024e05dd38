from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import kdtool
from kdtool.cli.main import cli


class FakeApi(types.ModuleType):
    """A fake `kdtool.api`: each function records its call, and those that make a checkpoint write a file."""

    def __init__(self) -> None:
        super().__init__("kdtool.api")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def _produce(self, name: str, *args: Any, output: Path, force: bool, **options: Any) -> Any:
        self.calls.append((name, args, options))
        output.write_text("a checkpoint")
        print("a library prints to stdout", flush=True)
        return types.SimpleNamespace(path=output, metrics=[], history=[])

    def teacher(self, *args: Any, **options: Any) -> Any:
        return self._produce("teacher", *args, **options)

    def refine(self, *args: Any, **options: Any) -> Any:
        return self._produce("refine", *args, **options)

    def distill(self, *args: Any, **options: Any) -> Any:
        return self._produce("distill", *args, **options)

    def prune(self, *args: Any, **options: Any) -> Any:
        return self._produce("prune", *args, **options)

    def export(self, *args: Any, **options: Any) -> Any:
        self._produce("export", *args, **options)
        return {"onnx": "student.onnx", "file_bytes": 12, "latency": {"ratio": 0.5}}

    def report(self, *args: Any, **options: Any) -> Any:
        return self._produce("report", *args, **options).path

    def evaluate(self, checkpoints: list[Path], **options: Any) -> Any:
        self.calls.append(("evaluate", tuple(checkpoints), options))
        print("a library prints to stdout", flush=True)
        return [{"checkpoint": str(path), "split": "test", "accuracy": 0.5} for path in checkpoints]

    def compare(self, *args: Any, **options: Any) -> Any:
        self.calls.append(("compare", args, options))
        return {"classified_differently": 3, "l2": float("nan"), "agreement": 0.9}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "kdtool.api", fake)
    monkeypatch.setattr(kdtool, "api", fake, raising=False)
    return fake


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory with two files that have the names of checkpoints."""
    monkeypatch.chdir(tmp_path)
    for name in ("teacher.pt", "student.pt"):
        (tmp_path / name).write_text("a checkpoint")
    return tmp_path


Run = Callable[..., Result]


@pytest.fixture
def run(here: Path) -> Run:
    """Return a function that runs a command line, given as one string, through the main group."""

    def invoke(line: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, line.split(), input=stdin)

    return invoke


@pytest.fixture
def fails(run: Run, here: Path) -> Callable[..., str]:
    """Return a function that runs a failing command, checks that it writes no file, and returns its line on stderr."""

    def invoke(line: str, code: int = 2, stdin: str | None = None) -> str:
        before = sorted(here.iterdir())
        result = run(line, stdin)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert sorted(here.iterdir()) == before
        return result.stderr.removeprefix("Error: ").strip()

    return invoke


@pytest.fixture
def added() -> Any:
    """Return the main group; remove the commands that the test adds."""
    before = dict(cli.commands)
    yield cli
    cli.commands.clear()
    cli.commands.update(before)
