from pathlib import Path

import pytest

from kdtool.cli.run import check_commands
from kdtool.recipe import read_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/recipe.toml")), ids=lambda path: path.parent.name)
def test_every_recipe_can_be_run(path):
    check_commands(read_recipe(path))
