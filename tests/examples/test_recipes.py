"""The recipes of all examples name commands and options that exist."""

import re
from pathlib import Path

import pytest

from kdtool.cli.commands.run import check_commands
from kdtool.study.recipe import read_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(path for path in EXAMPLES.glob("*/*.toml") if path.name != "pyproject.toml")

TAUGHT = ("own-teacher", "twenty-minutes", "one-hour", "kept-weights", "equal-time", "clipping")
"""Recipes whose teacher is the user's, or another study's."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_can_be_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The commands of all seeds are alike.
    text = re.sub(r"^seed = \[0,.*\]$", "seed = [0]", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    Path(path.name).write_text(text, encoding="utf-8")
    if path.stem in TAUGHT:
        Path("teacher.pt").touch()
    check_commands(read_recipe(path.name))


def test_every_command_for_a_need_can_be_run(tmp_path):
    row = r"^\| [^|]+ \| `kdtool (\w+) teacher\.pt ([^`]+)` \|"
    commands = re.findall(row, (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 9
    steps = [("teacher", "", "teacher kdtool:resnet20 --data digits")]
    steps += [(f"need-{number}", 'from = "teacher"', " ".join(words)) for number, words in enumerate(commands)]
    tables = [f'[[step]]\nname = "{name}"\n{origin}\nrun = "{run}"' for name, origin, run in steps]
    (tmp_path / "needs.toml").write_text("\n\n".join(['[study]\nname = "needs"', *tables]))
    check_commands(read_recipe(tmp_path / "needs.toml"))
