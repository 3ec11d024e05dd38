"""Recipes: those that come along, those of a file, and what is wrong with a file."""

import subprocess
import sys

import pytest

from kdtool import UsageError
from kdtool.training.options import Clip, Training
from kdtool.training.recipes.reading import Recipe, names


@pytest.mark.parametrize("name", names())
def test_those_that_come_along_are_valid_and_tell_what_they_set(name):
    recipe = Training(recipe=name).recipe
    assert recipe.about
    assert f"--optimizer {recipe.training['optimizer']}" in recipe.summary()
    assert str(recipe) == Training(recipe=name).as_data()["recipe"] == name


def test_a_file_is_checked_like_options(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[training]\nclip = "auto"\nbatch-size = 32\n[data]\naugment = "none"\n')
    recipe = Training(recipe=str(path)).recipe
    assert recipe.training == {"clip": Clip(None), "batch_size": 32}
    assert recipe.data == {"augment": "none"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[training]\noptimiser = 1", "has no option 'optimiser'; did you mean optimizer?"),
        ("[training]\nlr = -1", r"\[training\] --lr: -1.0 is out of range"),
        ("[training]\nrecipe = 'quick'", "has no option 'recipe'"),
        ("[training]\nlearning_rate = 1", "has no option 'learning_rate'; kdtool teacher --help lists them"),
        ("[data]\nsubset = 0.5", "has no option 'subset'; it has augment and erase"),
        ("[trainings]", "a recipe has no entry 'trainings'; did you mean training?"),
        ("training = 3", r"training has to be a table, \[training\]"),
        ("about = 3", "about has to be a text"),
        ("[training", "is no TOML"),
    ],
)
def test_what_is_wrong_is_said(content, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        Training(recipe=str(path))


def test_a_missing_one():
    with pytest.raises(UsageError, match="there is no recipe 'standrad'; did you mean standard?"):
        Training(recipe="standrad")
    with pytest.raises(UsageError, match=r"nosuch.toml: cannot be read"):
        Training(recipe="nosuch.toml")


def test_reading_imports_no_torch():
    code = "import sys; from kdtool.training.options import Training; Training(recipe='patient'); "
    code += "print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_weights_that_go_on_have_options_of_their_own():
    recipe = Recipe("mine", training={"lr": 1.0}, kept_weights={"lr": 0.1, "clip": 1.0}, muon={"lr": 2.0})
    assert recipe.options(batch_norm=True) == {"lr": 1.0}
    assert recipe.options(batch_norm=True, kept=True) == {"lr": 0.1, "clip": 1.0}
    assert recipe.options(batch_norm=True, muon=True, kept=True) == {"lr": 2.0, "clip": 1.0}
    assert "where weights go on: --lr 0.1, --clip 1.0" in recipe.summary()


def test_without_batch_norm_replaces_options():
    recipe = Recipe("mine", training={"lr": 1.0, "clip": 2.0}, muon={"lr": 2.0}, without_batch_norm={"lr": 0.5})
    assert recipe.options(batch_norm=True) == {"lr": 1.0, "clip": 2.0}
    assert recipe.options(batch_norm=False) == {"lr": 0.5, "clip": 2.0}
    assert recipe.options(batch_norm=True, muon=True) == {"lr": 2.0, "clip": 2.0}
    assert recipe.options(batch_norm=False, muon=True) == {"lr": 0.5, "clip": 2.0}
