"""``kdtool trust`` and ``--trust``: who decides whose code is imported."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdtool.cli.commands.run import check_commands
from kdtool.errors import Error, UsageError
from kdtool.plugins.trust import Place, place_of, remembered
from kdtool.study.places import KDTOOL
from kdtool.study.recipe import read_recipe

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]

RECIPE = """
[matrix]
flag = ["--trust=ownnets", "--trust"]
[[step]]
name = "teacher"
run = "COMMAND"
"""


@pytest.fixture(autouse=True)
def module(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module in the current folder that ends the process if it is imported."""
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path_factory.mktemp("config")))
    (here / "ownnets.py").write_text("import os\nos._exit(7)\n")
    return here / "ownnets.py"


def test_packages_are_listed_added_and_removed(run: Run, module: Path) -> None:
    assert "no package is trusted" in run("trust").stderr
    assert json.loads(run("trust ownnets --json").stdout) == [
        {"package": "ownnets", "path": str(module.resolve()), "there": True}
    ]
    module.rename(module.with_name("gone.py"))
    assert f"{module.resolve()} (is not there)" in run("trust").stdout
    assert "no package is trusted" in run("trust --remove ownnets").stderr


def test_an_option_of_any_command_trusts_before_anything_is_read(api: Any, run: Run, module: Path) -> None:
    result = run("teacher ownnets:make,width=3 --trust ownnets --data digits")
    assert result.exit_code == 0, result.output
    assert [place.package for place in remembered()] == ["ownnets"]
    assert api.calls == [("teacher", ("ownnets:make,width=3",), {"resume": False, "data": "digits"})]
    assert (module.parent / "make.pt").exists()


@pytest.mark.parametrize(
    ("rest", "message"),
    [("--epochs -1", "--epochs"), ("--processes x", "--processes"), ("-o a/b.pt", "a/b.pt: there is no directory a")],
)
def test_a_wrong_command_trusts_nothing_from_then_on(api: Any, fails: Fails, rest: str, message: str) -> None:
    assert message in fails(f"teacher ownnets:make --data digits --trust ownnets {rest}")
    assert remembered() == []


def test_a_dry_run_trusts_while_it_lasts(api: Any, run: Run, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(api, "teacher", lambda *_, **__: found.append(place_of("ownnets", "ownnets:make")))
    monkeypatch.setattr("kdtool.cli.output.write_stand_in", lambda *_: None)

    result = run("teacher ownnets:make --trust ownnets --dry-run")

    assert result.exit_code == 0, result.output
    assert (found, remembered()) == ([Place("ownnets", module.parent.resolve())], [])
    assert "trusted from now on" not in result.stderr
    with pytest.raises(Error, match="is not trusted"):
        place_of("ownnets", "ownnets:make")


def test_quiet_holds_for_trust_too(api: Any, run: Run) -> None:
    assert "trusted from now on" not in run("teacher ownnets:make --trust ownnets -q").stderr
    assert [place.package for place in remembered()] == ["ownnets"]


def test_a_package_that_is_not_there_is_one_line(api: Any, fails: Fails) -> None:
    assert "--trust nowhere: there is no package or module nowhere" in fails("teacher a.b:c --trust nowhere")
    assert "--remove: name the packages" in fails("trust --remove")


@pytest.mark.parametrize("command", ["teacher ownnets:make {flag}=ownnets", "teacher ownnets:make {flag} ownnets"])
def test_a_recipe_cannot_trust(here: Path, command: str) -> None:
    (here / "r.toml").write_text(RECIPE.replace("COMMAND", command))
    with pytest.raises(UsageError, match="step 'teacher': --trust: is for you to say, not for a recipe"):
        read_recipe(here / "r.toml")
    (here / "r.toml").write_text(RECIPE.replace("COMMAND", "trust ownnets --seed {flag}"))
    with pytest.raises(UsageError, match="--trust: is for you to say, not for a recipe"):
        read_recipe(here / "r.toml")
    assert remembered() == []


def test_a_command_of_a_recipe_that_reaches_the_parser_cannot_trust_either(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "r.toml").write_text(RECIPE.replace("COMMAND", "teacher ownnets:make {flag}").replace(', "--trust"', ""))
    monkeypatch.setattr("kdtool.study.recipe.TRUSTING", ())
    with pytest.raises(UsageError, match="--trust: is for you to say, not for a recipe"):
        check_commands(read_recipe(here / "r.toml"))
    assert remembered() == []


def test_processes_of_a_study_import_nothing_of_the_current_folder(here: Path) -> None:
    for name in ("click", "kdtool", "json", "torch"):
        (here / f"{name}.py").write_text("import os\nos._exit(7)\n")
    done = subprocess.run([*KDTOOL, "--version"], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:7]) == (0, "kdtool ")
