"""Successive halving by Optuna: how long settings train, which of them go on, and which one is chosen."""

import math
import random

import pytest

import kdtool
from kdtool.distillation.successive_halving import better_half, expected, halve, rungs, titles_of
from kdtool.utils.files import slug


@pytest.mark.parametrize(
    ("count", "epochs", "lengths", "cost"),
    [
        (1, 20, [20], 20),
        (2, 20, [10], 20),
        (4, 20, [2, 5], 18),
        (8, 240, [10, 20, 40], 240),
        (5, 30, [2, 3, 5], 29),
        (4, 1, [1], 4),
    ],
)
def test_every_length_costs_the_same(count, epochs, lengths, cost):
    assert rungs(count, epochs) == lengths
    assert sum(length * settings for length, settings in expected(count, epochs)) == cost


def recorded(accuracies, loss=lambda name: 1.0):
    """Return a function that "trains" to given accuracies, and the list of the trainings of each length."""
    calls = []

    def train(trials):
        calls.append(list(trials))
        return [{"accuracy": accuracies[name], "loss": loss(name)} for name, _ in trials]

    return train, calls


def test_all_settings_train_short_and_the_better_half_longer():
    accuracies = {"a": 0.5, "b": 0.4, "c": 0.6, "d": 0.55, "e": 0.1, "f": 0.2}
    train, calls = recorded(accuracies)
    halving = halve([*accuracies], [1, 2, 4], train)
    # Jamieson and Talwalkar by hand: 6 settings, then the best 3 of 6, then the best 2 of 3.
    assert calls == [
        [(name, 1) for name in "abcdef"],
        [("c", 2), ("d", 2), ("a", 2)],
        [("c", 4), ("d", 4)],
    ]
    assert halving.best == "c"


@pytest.mark.parametrize("seed", range(8))
def test_the_better_half_is_that_of_the_sorted_values(seed):
    draw = random.Random(seed)
    values = {f"s{number}": draw.random() for number in range(draw.choice([1, 2, 3, 5, 8, 9]))}
    ordered = sorted(values, key=values.__getitem__, reverse=True)
    assert better_half(values) == ordered[: math.ceil(len(values) / 2)]


def test_what_validates_better_later_is_chosen():
    train, _ = recorded({"a": 0.5, "b": 0.6})
    halving = halve(["a", "b"], [1, 2], train)
    assert halving.best == "b"


def test_the_loss_decides_between_equal_accuracies():
    train, _ = recorded(dict.fromkeys("abc", 0.5), loss=lambda name: {"a": 2.0, "b": 1.0, "c": 3.0}[name])
    assert halve([*"abc"], [1, 2], train).best == "b"


def test_the_balanced_accuracy_decides_where_it_was_measured():
    scores = {"a": (0.9, 0.5), "b": (0.8, 0.7), "c": (0.7, 0.6)}

    def train(trials):
        keys = ("accuracy", "balanced_accuracy")
        return [{**dict(zip(keys, scores[name], strict=True)), "loss": 1.0} for name, _ in trials]

    halving = halve([*scores], [1, 2], train)
    assert halving.best == "b"
    first = halving.rounds()[0]["results"]
    assert [(row["setting"], row["balanced_accuracy"]) for row in first] == [("b", 0.7), ("c", 0.6), ("a", 0.5)]


def searched(teacher, folder, search, **options):
    """Distil for one epoch of a tenth of the images with each setting of a search."""
    how = {"refiner": "halve", "epochs": 1, "subset": 0.1, "precision": "fp32", **options}
    return kdtool.distill(teacher, "kd", search=search, output=folder / "s.pt", **how)


def test_a_search_selects_by_what_select_says(teacher_path, tmp_path):
    result = searched(teacher_path, tmp_path, "temperature=1,4", select="balanced-accuracy")
    (only,) = result.history[-1]["search"]["rounds"]
    best = max(only["results"], key=lambda row: (row["balanced_accuracy"], -row["loss"]))
    assert result.history[-1]["search"]["chosen"] == best["setting"]


def test_what_was_not_trained_trains_no_longer():
    def train(trials):
        return [{"accuracy": 0.1 if name == "a" else 0.9, "loss": 1.0} if name != "c" else None for name, _ in trials]

    halving = halve([*"abc"], [1, 2], train)
    assert [(row["setting"], row["epochs"]) for row in halving.trainings] == [("a", 1), ("b", 1), ("b", 2)]
    assert halving.best == "b"
    # No time for any longer training: the best of the short ones.
    cut = halve([*"ab"], [1, 2], lambda trials: train(trials) if trials[0][1] == 1 else [None] * len(trials))
    assert cut.best == "b"


def test_trainings_of_one_length_stand_together_the_best_first():
    train, _ = recorded({"a": 0.2, "b": 0.3})
    rounds = halve(["a", "b"], [1, 2], train).rounds()
    assert [row["epochs"] for row in rounds] == [1, 2]
    assert [result["setting"] for result in rounds[0]["results"]] == ["b", "a"]


def test_a_failure_of_a_training_is_the_failure_of_the_search():
    def train(trials):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        halve(["a", "b"], [1], train)


def test_no_two_settings_share_a_directory():
    names = ["weight=1e-3", "weight=1e+3", "weight=0.5", "a+b", "a->b"]
    titles = titles_of(names)
    assert len({slug(title) for title in titles.values()}) == len(names)
    # Those whose names suffice keep them, so that their runs of before go on.
    assert titles["weight=0.5"] == "weight=0.5"
    assert titles_of(reversed(names)) == titles


def test_settings_that_differ_in_a_sign_of_the_exponent_are_all_trained(teacher_path, tmp_path):
    result = searched(teacher_path, tmp_path, "temperature=1e-1,1e+1")
    (only,) = result.history[-1]["search"]["rounds"]
    assert len(only["results"]) == 2


def test_the_cost_is_in_epochs_that_were_trained_in_all_phases(teacher_path, tmp_path, capsys):
    options = {"search": "iters=1,2", "epochs": 2, "subset": 0.1, "precision": "fp32"}
    result = kdtool.distill(teacher_path, "ikd", output=tmp_path / "s.pt", **options)
    entry = result.history[-1]
    # Each setting trains for one epoch, with two iterations in two phases.
    assert entry["search"]["epochs"] == entry["trial_epochs"] == 1 + 2
    assert "it cost 3 epochs and" in capsys.readouterr().err
