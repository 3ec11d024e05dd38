"""What a study says of trainings that differ in what nobody typed."""

import pytest

from kdtool.study.alike import notes, same_settings
from kdtool.study.recipe import read_recipe
from kdtool.study.record import Record

RECIPE = """
[matrix]
method = ["kd", "none", "assistant"]
subset = [0.1, 1]
seed = [0, 1]
[[step]]
name = "student"
run = "distill t.pt --method {method} --subset {subset} --seed {seed} MORE"
[[step]]
name = "other"
run = "distill t.pt --method {method} OTHER"
[[step]]
name = "pruned"
from = "student"
run = "prune --ratio 0.5"
[[step]]
name = "small"
run = "compress t.pt --seed {seed}"
[[compare]]
of = ["student", "other", "pruned"]
"""

QUICK = {"recipe": "quick", "optimizer": "adam", "lr": 1e-3, "epochs": 20, "clip": None}
STANDARD = {**QUICK, "recipe": "standard", "optimizer": "adamw", "clip": 1.0}
NONE = {**QUICK, "recipe": None}


@pytest.fixture
def told(tmp_path):
    """The notes of a study whose commands were trained as a function says."""

    def notes_of(training, more="", other=""):
        (tmp_path / "r.toml").write_text(RECIPE.replace("MORE", more).replace("OTHER", other))
        recipe = read_recipe(tmp_path / "r.toml")
        commands = {command.name: {"training": training(command)} for command in recipe.commands}
        record = Record(tmp_path, {"commands": commands, "comparisons": {}})
        return notes(recipe, record, {*commands})

    return notes_of


def test_a_recipe_that_nobody_named_is_said_where_a_step_has_several(told):
    def training(command):
        if command.step not in ("student", "other"):
            return NONE
        return NONE if command.values["method"] == "assistant" else {**STANDARD, "epochs": 3, "seed": 7}

    said = "kd and none were trained with --recipe standard, assistant with no recipe"
    cure = "name one with --recipe to compare alike"
    assert told(training) == [f"student: {said}; {cure}", f"other: {said}; {cure}"]
    assert told(training, "--recipe quick", "--recipe=quick") == []


def test_what_makes_the_difference_is_named_by_the_values_that_tell_it(told):
    def by_subset(command):
        return QUICK if command.values.get("subset") == 0.1 or command.step != "student" else STANDARD

    lines = told(by_subset)
    assert lines[0].startswith("student: subset=0.1 was trained with --recipe quick, subset=1 with --recipe standard;")
    assert lines[1].startswith("student was trained with --recipe standard, other with --recipe quick; name one")
    assert len(lines) == 2

    def by_both(command):
        values = command.values
        return QUICK if values.get("subset") == 0.1 and values.get("method") == "kd" else STANDARD

    assert told(by_both)[0].startswith("student: method=kd subset=0.1 was trained with --recipe quick, ")
    assert "method=kd subset=1 and others with --recipe standard; " in told(by_both)[0]


def test_without_another_recipe_the_options_are_named(told):
    def training(command):
        muon = command.values.get("method") == "kd" and command.step != "pruned"
        return {**STANDARD, "optimizer": "muon"} if muon else STANDARD

    said = "kd was trained with --optimizer muon, none and assistant with --optimizer adamw"
    assert told(training)[0] == f"student: {said}; give these options to compare alike"
    assert told(training, "--optimizer=sgd", "--optimizer sgd") == []


def test_nothing_is_said_where_all_is_the_same_or_not_known(told):
    # The options of quick are those without a recipe; compress gives each candidate a recipe.
    assert told(lambda command: QUICK if command.values.get("method") == "kd" else NONE) == []
    assert told(lambda command: STANDARD if command.values.get("seed") == 1 and command.step == "small" else NONE) == []
    assert told(lambda command: None) == []


def test_a_setting_that_all_rows_share_is_no_column():
    rows = [{"recipe": "quick", "optimizer": "adam", "batch_size": 64}, {"recipe": "none", "optimizer": "adam"}, {}]
    assert same_settings(rows) == ["optimizer", "batch_size"]
    assert same_settings([]) == ["recipe", "optimizer", "batch_size"]
