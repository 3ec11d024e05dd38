"""The recipes of all examples name commands and options that exist."""

from pathlib import Path

import pytest

from kdtool.cli.commands.run import check_commands
from kdtool.study.recipe import read_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(path for path in EXAMPLES.glob("*/*.toml") if path.name != "pyproject.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_can_be_run(path):
    check_commands(read_recipe(path))
