from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import click
import pytest

from kdtool.cli import always_on
from kdtool.plugins import entry_points

# Fixture of conftest.py.
Run = Callable[..., Any]


class Hooks:
    """A plugin that is always on."""

    @entry_points.hookspecs.hookimpl
    def commands(self, cli: click.Group) -> None:
        cli.add_command(click.Command("wave", callback=lambda: print("waves")))
        raise RuntimeError("not\nready")


def test_a_broken_plugin_is_one_warning(added: click.Group, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_points, "always_on", lambda: [entry_points.BrokenPlugin("plugin 'x' is broken: why")])
    manager = entry_points.manager()
    manager.register(Hooks(), name="half")
    try:
        result = run("wave")
    finally:
        manager.unregister(name="half")

    assert result.stdout == "waves\n"
    assert result.stderr == (
        "warning: plugin 'x' is broken: why\nwarning: plugin half is broken: commands(): RuntimeError: not ready\n"
    )


def kdtool(*words: str, path: Path | None = None) -> str:
    """Run a command line in a process of its own, with ``path`` on Python's path, and return its stdout."""
    env = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    words = (sys.executable, "-m", "kdtool", *words)
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout


PLUGIN = """
import click
from kdtool import hookimpl

@hookimpl
def commands(cli):
    cli.add_command(click.Command("wave", callback=lambda: print("waves"), short_help="Wave."))
"""


@pytest.mark.parametrize("zipped", [False, True])
def test_a_plugin_is_found_without_importing_it_first(zipped: bool, tmp_path: Path) -> None:
    assert "wave" not in kdtool("--help")
    package = tmp_path / "package"
    metadata = package / "kdtool_wave-1.0.dist-info"
    metadata.mkdir(parents=True)
    (package / "the_wave.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kdtool-wave\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[kdtool]\nwave = the_wave\n")
    path = Path(shutil.make_archive(str(package), "zip", package)) if zipped else package

    assert "\n  wave        Wave.\n" in kdtool("--help", path=path)
    assert kdtool("wave", path=path) == "waves\n"


def test_without_a_plugin_the_metadata_of_packages_is_not_read() -> None:
    code = """
import sys
from kdtool.cli.always_on import load_always_on
from kdtool.cli.main import cli
load_always_on(cli)
assert "importlib.metadata" not in sys.modules
assert "pluggy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_ways_to_find_packages_are_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_distributions(self, context: object) -> list[object]:
            return []

    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    assert not always_on._any_installed()
    monkeypatch.setattr(sys, "meta_path", [PathFinder, Finder()])
    assert always_on._any_installed()
