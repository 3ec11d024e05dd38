"""Which candidates are trained for how long, and which of them learn to round."""

import json
import types

import pytest

import kdtool
from kdtool.commands.outputs import entry_of
from kdtool.compression.candidates import TEACHER, Candidate, Proposals
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.learners import learner_of
from kdtool.compression.measuring_again import ranked
from kdtool.compression.options import BudgetOptions, Given
from kdtool.compression.schedule import paced
from kdtool.compression.trial_rows import epoch_seconds, row_of
from kdtool.compression.trials import Trials
from kdtool.distillation.successive_halving import Halving, rungs
from kdtool.models.checkpoint import read
from kdtool.models.quantisation.fake import quantiser_of
from kdtool.surgery.refiner import refined
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.files import slug

ACCURACIES = {"a": 0.3, "b": 0.5, "c": 0.4, "d": 0.6, "e": 0.2, "f": 0.7}


class Recorded(Trials):
    """Trials that "train" to known accuracies, in a second for each epoch."""

    def train(self, name, asked):
        epochs = paced(asked, self.paces, name)
        row = row_of(self.done, name, epochs)
        if row is None:
            row = {"setting": name, "epochs": epochs, "full": False, "seconds": epochs, "checkpoint": "x"}
            row |= {"accuracy": ACCURACIES[name], "loss": 1.0, "within": True, "cost": {"macs": 1e6}}
            self.done.append(row)
        return {key: row[key] for key in ("accuracy", "loss")}


def trials(tmp_path, **kinds):
    candidates = [Candidate(kinds.get(name, "refiners"), name, {}) for name in ACCURACIES]
    proposals = Proposals(Cost(3_000_000, 1), Limits(), "cpu")
    return Recorded(types.SimpleNamespace(directory=tmp_path, data=None), None, None, None, proposals, candidates)


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


def test_what_the_time_was_too_short_for_is_said_and_noted(tmp_path, capsys):
    found = trials(tmp_path)
    found.search([1, 2, 4], 4.5)
    assert capsys.readouterr().err.splitlines() == [
        "compress: --hours left no time to train for 1 epoch: e, f",
        "compress: --hours left no time to train for 2 epochs: d, b",
    ]
    assert [candidate.note for candidate in found.candidates] == ["", "", "", "", *["no time to train it"] * 2]


def test_a_student_that_has_to_be_searched_comes_last_and_only_if_there_is_time_for_the_search(tmp_path):
    found = trials(tmp_path, b="distillers")
    # Five epochs of a second, and a search of seven.
    found.search([1, 2, 4], 12.5)
    assert [row["setting"] for row in found.done[:6]] == ["a", "c", "d", "e", "f", "b"]
    again = trials(tmp_path, b="distillers")
    again.search([1, 2, 4], 11.5)
    assert [row["setting"] for row in again.done[:5]] == ["a", "c", "d", "e", "f"]
    assert next(one for one in again.candidates if one.name == "b").note == "no time to train it"


def test_a_faster_candidate_has_more_epochs_in_each_round(tmp_path):
    found = trials(tmp_path)
    found.paces = {"f": 2.5, "d": 1.9}
    halving = found.search([1, 2, 4], float("inf"))
    trained = [(row["setting"], row["epochs"]) for row in found.done]
    assert trained[3:6] == [("d", 1), ("e", 1), ("f", 2)]
    assert trained[6:] == [("f", 5), ("d", 3), ("b", 2), ("f", 10), ("d", 7)]
    assert [one.name for one in ranked(found, halving)][:4] == ["f", "d", "b", "c"]


def test_a_search_that_is_repeated_trains_nothing_again(tmp_path):
    found = trials(tmp_path)
    first = found.search([1, 2, 4], float("inf"))
    done = [*found.done]
    assert found.search([1, 2, 4], 0.0) == first
    assert found.done == done


@pytest.fixture
def at_work(tmp_path, digits, teacher_path):
    """Trials of one candidate in 8 bits, with the rows of trainings that are done."""

    def make(*rows, method="kd", select="accuracy"):
        parent = read(teacher_path)
        training = Training(epochs=1, device="cpu", lr=1e-3, precision="fp32", select=select)
        distiller = kdtool.make("distillers", method)
        entry = entry_of("compress", method, parent, {}, tmp_path / "s.pt", distiller, training, digits)
        run = Run(tmp_path, data=digits, training=training, parent=parent, entry=entry, teachers=[parent])
        network = refined(kdtool.make("refiners", "halve"), parent.network, 0)
        candidate = Candidate("refiners", "halve", {}, "int8", Cost(1, 1), network)
        chosen = {"epochs": 1, "lr": 1e-3, "precision": "fp32", "select": select}
        given = Given(chosen, {}, BudgetOptions(max_macs="0.5x"))
        proposals = Proposals(Cost(2, 2), Limits(), "here")
        found = Trials(run, distiller, given, run.teachers[0].network, proposals, [candidate])
        found.done += [
            {"setting": candidate.name, "epochs": 1, "full": False, "checkpoint": "x", **row} for row in rows
        ]
        return found, candidate

    return make


LOST = {"accuracy": 0.90, "float_accuracy": 0.91, "rounded": False, "seconds": 1.0, "within": True, "loss": 1.0}


def test_a_candidate_that_loses_more_than_half_a_point_learns_to_round(at_work):
    found, candidate = at_work(LOST)
    network = found.full(candidate, 1)
    assert quantiser_of(network.module) is not None
    row = found.last(candidate.name)
    assert row["rounded"] is True
    # What counts is the file: it computes what the rounding network does, but for values between two integers.
    assert row["accuracy"] == pytest.approx(found.run.evaluate(network)["accuracy"], abs=0.015)
    assert quantiser_of(read(found.run.directory / row["checkpoint"]).module) is not None


@pytest.mark.parametrize(
    "row", [{**LOST, "accuracy": 0.906}, {**LOST, "float_accuracy": None}, {"accuracy": 0.1, "seconds": 1.0}]
)
def test_a_candidate_that_loses_little_or_of_an_earlier_release_does_not(at_work, row):
    found, candidate = at_work(row)
    assert learner_of(candidate, found.last(candidate.name), found.distiller, found.run) is candidate.network


def test_once_a_candidate_learnt_to_round_it_goes_on_so(at_work):
    found, candidate = at_work({**LOST, "accuracy": 0.91, "rounded": True})
    assert (
        quantiser_of(learner_of(candidate, found.last(candidate.name), found.distiller, found.run).module) is not None
    )


def test_a_method_that_cannot_train_in_8_bits_trains_in_float_and_says_so(at_work, capsys):
    found, candidate = at_work(LOST, method="stagewise")
    assert learner_of(candidate, found.last(candidate.name), found.distiller, found.run) is candidate.network
    assert "halve int8 does not learn to round: --quantize int8: stagewise makes or edits" in capsys.readouterr().err


def test_the_accuracy_that_select_names_compares_candidates(at_work, capsys):
    found, candidate = at_work(select="balanced-accuracy")
    candidate.precision = "float32"
    found.by_name = {candidate.name: candidate}
    found.train(candidate.name, 1)
    row = found.last(candidate.name)
    measured = found.run.evaluate(read(found.run.directory / row["checkpoint"]).network)
    assert row["accuracy"] == pytest.approx(measured["balanced_accuracy"])
    assert row["accuracy"] != pytest.approx(measured["accuracy"])
    assert "on validation images after 1 epoch (balanced accuracy)" in capsys.readouterr().err


def test_a_file_of_8_bits_is_compared_by_it_too(at_work):
    found, candidate = at_work(select="balanced-accuracy")
    found.train(candidate.name, 1)
    row = found.last(candidate.name)
    measured = found.run.evaluate(read(found.run.directory / row["checkpoint"]).network)
    assert row["float_accuracy"] == pytest.approx(measured["balanced_accuracy"])
    assert row["accuracy"] == pytest.approx(row["float_accuracy"], abs=0.03)


def test_a_trial_has_a_part_of_the_images_and_the_winner_all(at_work, monkeypatch):
    found, candidate = at_work()
    found.part = 0.25
    seen = []
    distil = type(found.distiller).distill

    def watched(distiller, run, teacher, student):
        seen.append((len(run.data.train), len(run.data.val)))
        return distil(distiller, run, teacher, student)

    monkeypatch.setattr(type(found.distiller), "distill", watched)
    found.train(candidate.name, 1)
    found.full(candidate, 1)
    images, validation = len(found.run.data.train), len(found.run.data.val)
    assert seen == [(pytest.approx(images / 4, abs=5), validation), (images, validation)]
    trial, full = found.done
    assert (trial["epochs"], full["epochs"]) == (0.25, 1)
    # By hand: an image of the train split takes three times as long as one of the validation split.
    assert trial["work"] == pytest.approx((3 * images / 4 + validation) / (3 * images + validation))
    # An epoch takes what the training took; the file of 8 bits is made and scored once, however long that was.
    assert 0 < trial["scoring_seconds"] < trial["seconds"]
    assert epoch_seconds([trial], candidate, 1e6) == pytest.approx(
        (trial["seconds"] - trial["scoring_seconds"]) / trial["work"]
    )
    assert trial["checkpoint"] == "halve-int8-0.25-epochs.pt"
    found.train(candidate.name, 1)  # it is known
    assert len(found.done) == 2


def test_a_training_that_goes_on_after_a_kill_took_what_it_took_before_too(at_work):
    found, candidate = at_work()
    for name in ("trial halve int8 1 epoch", "full halve int8"):
        folder = found.run.directory / "phases" / slug(name)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"phase": "kd", "epoch": 1, "seconds": 100.0}\n')
    found.train(candidate.name, 1)
    found.full(candidate, 1)
    assert [row["seconds"] > 100 for row in found.done] == [True, True]
    assert found.seconds > 200


def test_a_student_whose_row_was_lost_is_measured_before_its_full_training(at_work, monkeypatch):
    found, candidate = at_work()
    candidate.cost = None  # a process was killed between keeping the network and writing its row
    trained = []
    monkeypatch.setattr(Trials, "train", lambda self, name, asked: trained.append(name))
    found.full(candidate, 1)
    assert trained == [candidate.name]


def test_a_resumed_run_knows_why_a_candidate_failed(tmp_path):
    row = {"setting": "a", "epochs": 1, "full": False, "checkpoint": None, "cost": None, "note": "failed: too small"}
    (tmp_path / "trials.json").write_text(json.dumps([row]))
    assert trials(tmp_path).by_name["a"].note == "failed: too small"


def test_what_needs_no_training_keeps_its_place_among_those_that_were_trained_longer(tmp_path):
    """By hand: A and the teacher stay for the second round, of which the teacher needs no row."""
    found = trials(tmp_path)
    found.candidates = [Candidate(TEACHER, TEACHER, {}, "int8"), *found.candidates[:3]]
    found.by_name = {one.name: one for one in found.candidates}
    scores = {"teacher int8": 0.95, "a": 0.94, "b": 0.80, "c": 0.79}
    found.done = [{"setting": name, "epochs": name != "teacher int8", "full": False, "within": True} for name in scores]
    trainings = [{"setting": name, "epochs": 1, "accuracy": score, "loss": 1.0} for name, score in scores.items()]
    trainings += [{"setting": name, "epochs": 2, "accuracy": 0.96, "loss": 1.0} for name in ("a", "teacher int8")]
    assert [one.name for one in ranked(found, Halving("a", trainings))] == ["a", "teacher int8", "b", "c"]
    found.done[2]["within"] = False
    assert [one.name for one in ranked(found, Halving("a", trainings))] == ["a", "teacher int8", "c"]
