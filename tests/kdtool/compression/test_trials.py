"""Which candidates are trained for how long."""

import types

from kdtool.compression.candidates import Candidate
from kdtool.compression.trials import Trials
from kdtool.distillation.successive_halving import rungs

ACCURACIES = {"a": 0.3, "b": 0.5, "c": 0.4, "d": 0.6, "e": 0.2, "f": 0.7}


class Recorded(Trials):
    """Trials that "train" to known accuracies, in a second for each epoch."""

    def train(self, name, epochs):
        row = self._row(name, epochs)
        if row is None:
            row = {"setting": name, "epochs": epochs, "full": False, "seconds": epochs, "checkpoint": "x"}
            row |= {"accuracy": ACCURACIES[name], "loss": 1.0, "within": True}
            self.done.append(row)
        return {key: row[key] for key in ("accuracy", "loss")}


def trials(tmp_path):
    candidates = [Candidate("refiners", name, {}) for name in ACCURACIES]
    return Recorded(types.SimpleNamespace(directory=tmp_path), None, None, None, None, candidates)


def test_of_six_candidates_all_start_short_and_only_the_better_ones_train_longer(tmp_path):
    lengths = rungs(6, 24)
    found = trials(tmp_path)
    assert found.search(lengths, float("inf")).best == "f"
    trained = [(row["setting"], row["epochs"]) for row in found.done]
    short, middle, longest = lengths
    assert trained[:6] == [(name, short) for name in ACCURACIES]
    # The first one is the fourth best: it is not trained longer.
    assert trained[6:] == [("f", middle), ("d", middle), ("b", middle), ("f", longest), ("d", longest)]


def test_when_the_time_is_up_no_further_trial_begins(tmp_path):
    found = trials(tmp_path)
    assert found.search([1, 2, 4], 9.5).best == "f"
    # Six epochs of six seconds; the better ones may still train for 2 of the 3.5 seconds that are left, not for 4.
    assert [(row["setting"], row["epochs"]) for row in found.done[6:]] == [("f", 2)]


def test_a_search_that_is_repeated_trains_nothing_again(tmp_path):
    found = trials(tmp_path)
    first = found.search([1, 2, 4], float("inf"))
    done = [*found.done]
    assert found.search([1, 2, 4], 0.0) == first
    assert found.done == done
