"""What a study compares in pairs: steps, and the values of a key of the matrix."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest

from kdtool.study.comparisons import _recorded, groups_of
from kdtool.study.recipe import Comparison, read_recipe

RECIPE = """
[matrix]
seed = [0, 1, 2]
method = ["none", "kd", "at"]
[[step]]
name = "teacher"
run = "teacher"
[[step]]
name = "student"
from = "teacher"
run = "distill --method {method} --seed {seed}"
"""

PRUNED = '[[step]]\nname = "pruned"\nfrom = "student"\nrun = "prune {ratio}"\n'

ALONG = '[[compare]]\nof = ["student"]\nalong = "method"\n'


def test_the_values_of_a_key_are_compared_for_each_step_and_all_other_values(tmp_path):
    path = tmp_path / "recipe.toml"
    text = RECIPE.replace("[matrix]", "[matrix]\nratio = [0.5]") + PRUNED
    path.write_text(text + ALONG.replace('"student"', '"student", "pruned"'))
    recipe = read_recipe(path)
    groups = [[command.name for command in group] for group in groups_of(recipe, recipe.comparisons[0])]
    assert len(groups) == 2 * 3
    assert groups[0] == [f"student_seed=0_method={method}" for method in ("none", "kd", "at")]
    assert groups[-1] == [f"pruned_ratio=0.5_seed=2_method={method}" for method in ("none", "kd", "at")]


@pytest.mark.parametrize("steps", [("teacher", "student"), ("pruned", "student"), ("pruned", "teacher", "small")])
def test_a_group_has_the_commands_whose_values_are_those_of_a_combination(tmp_path, steps):
    path = tmp_path / "recipe.toml"
    small = '[[step]]\nname = "small"\nrun = "teacher --seed {seed} --size {size}"\n'
    path.write_text(RECIPE.replace("[matrix]", "[matrix]\nratio = [0.5, 1, 1.0]\nsize = [1, 2]") + PRUNED + small)
    recipe = read_recipe(path)
    commands = [command for step in steps for command in recipe.commands if command.step == step]
    keys = [key for key in recipe.matrix if any(key in command.values for command in commands)]
    expected = []
    for chosen in itertools.product(*(recipe.matrix[key] for key in keys)):
        values = {*zip(keys, chosen, strict=True)}
        expected.append([command for command in commands if {*command.values.items()} <= values])
    assert [*groups_of(recipe, Comparison(steps))] == expected


@pytest.mark.parametrize("comparison", [Comparison(("teacher", "student")), Comparison(("student",), "method")])
def test_all_commands_are_not_looked_through_for_each_group(tmp_path, comparison):
    """A study may have 10,000 commands."""
    looks = 0

    class Values(dict):
        def __getitem__(self, key):
            nonlocal looks
            looks += 1
            return super().__getitem__(key)

        def items(self):
            nonlocal looks
            looks += 1
            return super().items()

    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("[0, 1, 2]", str([*range(100)])))
    recipe = read_recipe(path)
    commands = tuple(dataclasses.replace(command, values=Values(command.values)) for command in recipe.commands)
    groups = [*groups_of(dataclasses.replace(recipe, commands=commands), comparison)]
    assert len(groups) == (100 if comparison.along else 300)
    assert looks < 5 * len(commands)


def test_pairs_along_a_key_are_matched_by_the_seed_and_averaged_over_it(stand_in, run, monkeypatch):
    from kdtool.commands import compare

    compared = []
    real = compare.compare
    monkeypatch.setattr(compare, "compare", lambda *paths: compared.append([p.stem for p in paths]) or real(*paths))
    text = RECIPE.replace("[0, 1, 2]", "[0, 1]") + ALONG
    result = run(text)
    assert compared == [
        [f"student_seed={seed}_method={method}" for method in ("none", "kd", "at")] for seed in range(2)
    ]
    pairs = result["comparisons"]
    assert len(pairs) == 2 * 3
    names = {key: pairs[1][key] for key in ("step", "along", "a", "b", "values")}
    assert names == {
        "step": "student", "along": "method", "a": "method=none", "b": "method=at", "values": {"seed": 0},
    }  # fmt: skip
    assert all(pair["mcnemar_p"] == 1 and pair["accuracy_difference"] == 0 for pair in pairs)
    means = result["comparison_means"]
    assert [(mean["step"], mean["along"], mean["a"], mean["b"], mean["values"], mean["seeds"]) for mean in means] == [
        ("student", "method", f"method={a}", f"method={b}", {}, 2)
        for a, b in (("none", "kd"), ("none", "at"), ("kd", "at"))
    ]
    del compared[:]
    assert run(text + '[[compare]]\nof = ["teacher", "student"]\n')["comparisons"][: len(pairs)] == pairs
    assert compared == [
        ["teacher", f"student_seed={seed}_method={m}"] for seed in range(2) for m in ("none", "kd", "at")
    ]


def test_the_mean_difference_of_a_pair_has_the_interval_of_the_paired_t_test(stand_in, run, tmp_path, monkeypatch):
    from scipy.stats import ttest_rel

    from kdtool.study import runner

    accuracies = {("kd", 0): 0.91, ("kd", 1): 0.95, ("kd", 2): 0.90, ("at", 0): 0.93, ("at", 1): 0.96, ("at", 2): 0.95}
    real = runner.numbers_of

    def numbers_of(path):
        numbers, data = real(path)
        for (method, seed), accuracy in accuracies.items():
            if f"student_seed={seed}_method={method}" == path.stem:
                numbers["accuracy"] = accuracy
        return numbers, data

    monkeypatch.setattr(runner, "numbers_of", numbers_of)
    means = run(RECIPE + ALONG)["comparison_means"]
    (mean,) = [mean for mean in means if (mean["a"], mean["b"]) == ("method=kd", "method=at")]
    kd, at = ([accuracies[method, seed] for seed in range(3)] for method in ("kd", "at"))
    low, high = ttest_rel(at, kd).confidence_interval()
    assert mean["accuracy_difference"] == pytest.approx(0.08 / 3)
    assert (mean["accuracy_difference_low"], mean["accuracy_difference_high"]) == pytest.approx((low, high))


def test_a_checkpoint_that_was_made_again_is_compared_again():
    commands = {"a": {"made": "1"}, "b": {"made": "2"}}
    record = SimpleNamespace(commands=commands, comparisons={"a b": {"made": ["1", "2"], "l2": 0.5}})
    pair = SimpleNamespace(name="a"), SimpleNamespace(name="b")
    assert _recorded(record, *pair) == {"l2": 0.5}
    commands["b"]["made"] = "3"
    assert _recorded(record, *pair) is None
