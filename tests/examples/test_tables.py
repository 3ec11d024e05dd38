"""The numbers of the examples' README files are those of the committed results, which fit their recipes."""

import json
import re
import shutil
from pathlib import Path

import pytest
from cogapp import Cog

from kdtool.cli.commands.run import check_commands
from kdtool.study.recipe import read_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
READMES = [path for path in sorted(EXAMPLES.glob("**/README.md")) if "[[[cog" in path.read_text(encoding="utf-8")]
RESULTS = sorted(EXAMPLES.glob("*/results*.json"))
MAX_BYTES = 150_000
PATHS_OF_A_MACHINE = re.compile(r'"(?:/|~|[A-Za-z]:\\)')


def check(readme):
    """Return cog's exit status: 0 if what stands in the file is what its code prints."""
    return Cog().main(["cog", "--check", "-P", "-I", str(EXAMPLES), str(readme)])


def recipe_of(results):
    """Return the recipe of a results file: results-small.json is of recipe-small.toml or small.toml."""
    name = results.stem.removeprefix("results").removeprefix("-")
    names = [f"recipe-{name}.toml", f"{name}.toml"] if name else ["recipe.toml"]
    return next(results.with_name(file) for file in names if results.with_name(file).exists())


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_table_is_what_its_results_give(readme, capsys):
    assert check(readme) == 0, f"make tables draws the tables of {readme} again"


def test_a_number_that_was_changed_by_hand_is_noticed(tmp_path, capsys):
    readme = next(path for path in READMES if path.parent.name == "gated")
    shutil.copytree(readme.parent, tmp_path, dirs_exist_ok=True)
    copy = tmp_path / "README.md"
    assert check(copy) == 0
    head, end, rest = copy.read_text().partition("<!-- [[[end]]] -->")
    copy.write_text(re.sub(r"(\| \d+)\.\d ±", r"\1.x ±", head) + end + rest)
    assert check(copy) != 0


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_results_are_those_of_their_recipe(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_BYTES
    assert PATHS_OF_A_MACHINE.findall(text) == []
    results = json.loads(text)
    recipe = read_recipe(recipe_of(path))
    commands = {command.name: command for command in recipe.commands}
    assert results["study"] == recipe.name
    assert results["rows"]
    for row in results["rows"]:
        assert (row["step"], row["values"]) == (commands[row["name"]].step, commands[row["name"]].values)
    compared = {step for comparison in recipe.comparisons for step in comparison.steps}
    assert {row[side] for row in results["comparisons"] for side in ("a", "b")} <= compared


def test_the_commands_of_the_readme_can_be_run(tmp_path):
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"`kdtool (\w+) teacher\.pt ([^`]+)`", text)
    assert len(commands) >= 9
    recipe = tmp_path / "recipe.toml"
    steps = [f'[[step]]\nname = "s{n}"\nfrom = "t"\nrun = "{name} {words}"' for n, (name, words) in enumerate(commands)]
    teacher = '[[step]]\nname = "t"\nrun = "teacher kdtool:wrn-16-2 --data digits"'
    recipe.write_text("\n".join([teacher, *steps]))
    check_commands(read_recipe(recipe))
