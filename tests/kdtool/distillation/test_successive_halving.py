"""Successive halving by Optuna: how long settings train, which of them go on, and which one is chosen."""

import random

import pytest

from kdtool.distillation.successive_halving import expected, halve, halve_by_length, rungs


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
    assert expected(count, epochs) == cost


def recorded(accuracies, loss=lambda name: 1.0):
    """Return a function that "trains" to given accuracies, and the list of its calls."""
    calls = []

    def train(name, epochs):
        calls.append((name, epochs))
        return {"accuracy": accuracies[name], "loss": loss(name)}

    return train, calls


def test_a_setting_goes_on_if_it_is_in_the_better_half_of_those_before_it():
    # By hand, after Li et al.: of n values at a length the best n // 2 go on, and the best of all if that is 0.
    accuracies = {"a": 0.5, "b": 0.4, "c": 0.6, "d": 0.55}
    train, calls = recorded(accuracies)
    halving = halve([*accuracies], [1, 2, 4], train)
    # a is the best of one; b is not the best of two; c is the best of three; d is the second best of four. At the
    # second length a and c are the best of those before them, and d is not the best of three.
    assert calls == [("a", 1), ("a", 2), ("a", 4), ("b", 1), ("c", 1), ("c", 2), ("c", 4), ("d", 1), ("d", 2)]
    assert halving.best == "c"
    assert halving.epochs == sum(epochs for _, epochs in calls)


def test_the_loss_decides_between_equal_accuracies():
    train, _ = recorded(dict.fromkeys("abc", 0.5), loss=lambda name: {"a": 2.0, "b": 1.0, "c": 3.0}[name])
    assert halve([*"abc"], [1, 2], train).best == "b"


def test_no_training_begins_when_the_time_is_up():
    accuracies = {"a": 0.1, "b": 0.9, "c": 0.95}
    train, calls = recorded(accuracies)
    halving = halve([*accuracies], [1, 2], train, lambda name, epochs: len(calls) < 2)
    assert calls == [("a", 1), ("a", 2)]
    assert halving.best == "a"


def test_trainings_of_one_length_stand_together_the_best_first():
    train, _ = recorded({"a": 0.2, "b": 0.3})
    rounds = halve(["a", "b"], [1, 2], train).rounds()
    assert [row["epochs"] for row in rounds] == [1, 2]
    assert [result["setting"] for result in rounds[0]["results"]] == ["b", "a"]


def test_a_failure_of_a_training_is_the_failure_of_the_search():
    def train(name, epochs):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        halve(["a", "b"], [1], train)


@pytest.mark.parametrize("seed", range(8))
def test_trainings_of_one_length_at_once_are_those_that_come_one_after_the_other(seed):
    """Both choose the same, by the same trainings; only their order in time differs."""
    draw = random.Random(seed)
    names, lengths = [f"s{number}" for number in range(draw.choice([2, 5, 9]))], [1, 2, 4]
    accuracies = {(name, epochs): draw.random() for name in names for epochs in lengths}

    def score(name, epochs):
        return {"accuracy": accuracies[name, epochs], "loss": 1.0}

    calls = []

    def train(trials):
        calls.append(list(trials))
        return [score(*trial) for trial in trials]

    alike = halve_by_length(names, lengths, train)
    assert alike == halve(names, lengths, score)
    assert [{epochs for _, epochs in call} for call in calls] == [{epochs} for epochs in lengths[: len(calls)]]
    assert calls[0] == [(name, 1) for name in names]
