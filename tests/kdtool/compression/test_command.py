"""From a budget to a student, on the digits."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

import kdtool
from kdtool.compression.command import BudgetNotMetError, check_validation
from kdtool.compression.options import BudgetOptions
from kdtool.compression.record import results_of
from kdtool.models.checkpoint import read
from kdtool.models.size import measure
from kdtool.training.run import Run
from kdtool.utils.files import slug

QUICK = {"candidates": ("halve", "filter-l1"), "quantised": False, "epochs": 3, "lr": 3e-3}


@pytest.fixture(scope="module")
def compressed(teacher_path, tmp_path_factory):
    """A compression that was left alone."""
    output = tmp_path_factory.mktemp("compressed") / "small.pt"
    return kdtool.compress(teacher_path, max_macs="0.3x", output=output, **QUICK)


def test_the_student_is_within_the_budget_and_its_run_has_what_was_tried(compressed, teacher_path):
    teacher, directory = read(teacher_path), compressed.path.with_suffix(".run")
    assert measure(compressed.network)["macs"] <= 0.3 * measure(teacher.network)["macs"]
    assert measure(compressed.network)["macs"] >= 0.9 * 0.3 * measure(teacher.network)["macs"]
    results = json.loads((directory / "results.json").read_text())
    assert results == results_of(compressed)
    assert results["met"] is True
    trained = {row["setting"] for row in results["trials"]}
    assert {name.split()[0] for name in trained} == {"halve", "filter-l1"}
    for row in results["trials"]:
        trial = read(directory / row["checkpoint"])
        assert trial.metric("val", "accuracy") == row["accuracy"]
        assert measure(trial.network)["macs"] <= 0.3 * measure(teacher.network)["macs"]
    assert results["winner"] in trained
    for cost in ("latency", "size", "macs"):
        assert (directory / f"frontier-{cost}.svg").read_text().startswith("<svg")
    assert not (directory / "phases").exists()


def test_the_history_tells_the_command_and_the_winner(compressed):
    entry = compressed.history[-1]
    assert entry["command"] == "compress"
    assert "--max-macs 0.3x" in entry["line"]
    assert entry["candidate"]["method"] in ("halve", "filter-l1")
    assert entry["budget"]["met"] is True
    tried = sum(row["epochs"] for row in results_of(compressed)["trials"])
    assert (entry["training"]["epochs"], entry["trained_epochs"], entry["trial_epochs"]) == (3, 3, tried - 3)
    assert [row["model"] for row in entry["rows"] if row["note"] == "winner"]


def test_only_the_winner_and_the_teacher_see_the_test_split(teacher_path, tmp_path, monkeypatch):
    seen, evaluate = [], Run.evaluate

    def watched(self, network, split="val"):
        seen.append((split, measure(network)["macs"]))
        return evaluate(self, network, split)

    monkeypatch.setattr(Run, "evaluate", watched)
    student = kdtool.compress(teacher_path, max_macs="0.2x", output=tmp_path / "s.pt", **QUICK)
    sizes = {macs for split, macs in seen if split == "test"}
    assert sizes == {measure(student.network)["macs"], measure(read(teacher_path).network)["macs"]}
    # The trials are chosen by what they reach on the validation split.
    results = results_of(student)
    trials = [row for row in results["trials"] if not row["full"]]
    longest = max(row["epochs"] for row in trials)
    last = {row["setting"]: row["accuracy"] for row in trials if row["epochs"] == longest}
    assert results["winner"] == max(last, key=last.__getitem__)


def test_a_compression_that_was_cut_goes_on_and_trains_nothing_twice(compressed, teacher_path, tmp_path, monkeypatch):
    logged, log = [], Run.log

    def killing(self, row):
        logged.append(row)
        if len(logged) == 3:  # the first trial, of two epochs, is finished
            raise KeyboardInterrupt
        log(self, row)

    options = {"max_macs": "0.3x", "output": tmp_path / "small.pt", **QUICK}
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", killing)
        with pytest.raises(KeyboardInterrupt):
            kdtool.compress(teacher_path, **options)
    done = json.loads((tmp_path / "small.run" / "trials.json").read_text())
    assert len(done) == 1
    fits, fit = [], Run.fit
    monkeypatch.setattr(
        Run, "fit", lambda self, *args, **kw: fits.append(self.directory.name) or fit(self, *args, **kw)
    )
    resumed = kdtool.compress(teacher_path, resume=True, **options)
    assert not any(done[0]["setting"].split()[0] in name and name.endswith("2-epochs") for name in fits)
    assert_same(compressed, resumed)


def assert_same(first, second):
    """Check that two compressions chose alike and have the same weights, bit for bit."""
    weights = second.module.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in first.module.state_dict().items())
    one, other = results_of(first), results_of(second)
    for row in (*one["trials"], *other["trials"]):
        del row["seconds"], row["scoring_seconds"]
        for key in ("latency_ratio", "latency_ms"):
            row["cost"].pop(key)
    assert (one["trials"], first.history[-1]["trial_epochs"]) == (other["trials"], second.history[-1]["trial_epochs"])
    assert one["winner"] == other["winner"]


KILLED = """
import os, signal, sys
import kdtool
from kdtool.training.run import Run

log, logged = Run.log, []

def killing(self, row):
    log(self, row)
    logged.append(row)
    if len(logged) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

Run.log = killing
kdtool.compress(
    sys.argv[1], max_macs="0.3x", output=sys.argv[2], resume=len(sys.argv) > 4,
    candidates=("halve", "filter-l1"), quantised=False, epochs=3, lr=3e-3,
)
"""


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_bits(compressed, teacher_path, tmp_path):
    output = tmp_path / "small.pt"
    for epoch, more in ((3, ()), (1, ("resume",))):
        words = [sys.executable, "-c", KILLED, str(teacher_path), str(output), str(epoch), *more]
        process = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
    resumed = kdtool.compress(teacher_path, max_macs="0.3x", output=output, resume=True, **QUICK)
    assert_same(compressed, resumed)


def test_a_finished_compression_is_read(compressed, teacher_path):
    again = kdtool.compress(teacher_path, max_macs="0.3x", output=compressed.path, resume=True, **QUICK)
    assert again.history == compressed.history


def test_what_nothing_can_meet_is_said_before_any_training_with_the_smallest(teacher_path, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "fit", lambda *args, **kw: pytest.fail("it trained"))
    with pytest.raises(kdtool.Error, match=r"nothing meets it on .*; the smallest that can be had is .* MACs.*trained"):
        kdtool.compress(teacher_path, max_macs="0.0001x", output=tmp_path / "s.pt", **QUICK)
    assert not [*tmp_path.iterdir()]


def test_a_loss_that_nothing_stays_below_keeps_the_nearest_and_fails(teacher_path, tmp_path):
    options = {**QUICK, "epochs": 1, "lr": 1e-9, "candidates": ("halve",)}
    with pytest.raises(
        BudgetNotMetError, match=r"nothing met .*--max-drop 0.5%: nearest was halve .* less accurate"
    ) as error:
        kdtool.compress(teacher_path, max_macs="0.02x", max_drop="0.5%", output=tmp_path / "s.pt", **options)
    assert error.value.exit_code == 1
    assert read(tmp_path / "s.pt").history[-1]["budget"]["met"] is False
    # A finished run says the same again.
    with pytest.raises(BudgetNotMetError, match="the nearest is kept in"):
        kdtool.compress(
            teacher_path, max_macs="0.02x", max_drop="0.5%", output=tmp_path / "s.pt", resume=True, **options
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "compress needs a budget"),
        ({"max_macs": "90G"}, "the teacher meets it already"),
        ({"max_macs": "0.3x", "candidates": ("halfe",)}, "no refiner, pruner or distiller of that name.*halve"),
        (
            {"max_macs": "0.3x", "latency_from": "there.json"},
            "--latency-from: tells the device of a --max-latency in ms",
        ),
        ({"max_macs": "0.3x", "hours": 1e-6, "candidates": ("halve",)}, "--hours 1e-06: an epoch of the smallest plan"),
        ({"max_macs": "0.3x", "epochs": 0}, "compress trains its candidates"),
        ({"max_latency": "0.4x", "provider": "qnn"}, "--provider qnn: onnxruntime .* has no such provider here"),
    ],
)
def test_what_cannot_be_is_refused(teacher_path, tmp_path, options, message):
    with pytest.raises(kdtool.UsageError, match=message):
        kdtool.compress(teacher_path, output=tmp_path / "s.pt", **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("method", ["ikd", "ensemble"])
def test_a_method_that_needs_no_student_is_refused(teacher_path, tmp_path, method):
    with pytest.raises(kdtool.Error, match=f"--method {method}: .*compress needs one that trains a given student"):
        kdtool.compress(teacher_path, method, max_macs="0.3x", output=tmp_path / "s.pt")


def test_a_teacher_without_data_needs_some(tmp_path):
    kdtool.teacher("kdtool:lenet-300-100", classes=10, output=tmp_path / "t.pt")
    with pytest.raises(kdtool.UsageError, match="remembers no data set; name one with --data"):
        kdtool.compress(tmp_path / "t.pt", max_macs="0.3x", max_drop="1%", output=tmp_path / "s.pt")


def test_a_dry_run_measures_and_writes_nothing(teacher_path, tmp_path, capsys):
    untrained = kdtool.compress(teacher_path, max_macs="0.3x", output=tmp_path / "s.pt", dry_run=True, **QUICK)
    assert not [*tmp_path.iterdir()]
    assert measure(untrained.network)["macs"] <= 0.3 * measure(read(teacher_path).network)["macs"]
    told = capsys.readouterr().err
    assert "compress: 2 candidates within the budget" in told
    assert "compress: both candidates train for 2 epochs, and the best in full, for 3" in told
    assert "makes s.pt in 3 phases of 2 to 3 epochs" in told
    assert re.search(r"about .*, .* of memory, .* of disk \(from \d+ timed steps\)", told)
    forecast = untrained.history[-1]["forecast"]
    assert [phase["epochs"] for phase in forecast["phases"]] == [2, 2, 3]
    assert forecast["cost"]["seconds"] > 0 < forecast["disk_bytes"]


def test_the_run_has_a_forecast_that_watch_reads(compressed):
    directory = compressed.path.with_suffix(".run")
    state = kdtool.watch(directory)
    assert (state["state"], state["phases"], state["fraction"]) == ("finished", 3, 1.0)


@pytest.mark.slow
def test_a_tracker_is_told_each_trial_and_the_winner(teacher_path, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = {"max_macs": "0.3x", "output": tmp_path / "s.pt", "track": f"tensorboard:{tmp_path / 'logs'}"}
    student = kdtool.compress(teacher_path, **options, **{**QUICK, "epochs": 1})
    events = accumulator.EventAccumulator(str(next((tmp_path / "logs").rglob("events*")).parent)).Reload()
    names = events.Tags()["scalars"]
    winner = slug(results_of(student)["winner"])
    assert any(name.startswith(f"full-{winner}/kd/val_accuracy") for name in names), names
    assert sum(name.startswith("trial-") and name.endswith("kd/val_accuracy") for name in names) == 2


def test_a_largest_loss_needs_validation_images(digits):
    data = dataclasses.replace(digits, val=[])
    with pytest.raises(kdtool.UsageError, match="--max-drop is measured on validation images, and digits has none"):
        check_validation(BudgetOptions(max_macs="0.3x", max_drop="1%"), data)
    check_validation(BudgetOptions(max_macs="0.3x", max_drop="1%"), digits)


@pytest.mark.slow
def test_a_candidate_that_cannot_be_trained_does_not_end_the_others(teacher_path, tmp_path, monkeypatch):
    from kdtool.compression.trials import Trials
    from kdtool.training.epochs.steps import LossNotFiniteError

    trained = Trials._trained

    def failing(self, candidate, epochs):
        if candidate.method == "filter-l1":
            raise LossNotFiniteError("the loss is not finite")
        return trained(self, candidate, epochs)

    monkeypatch.setattr(Trials, "_trained", failing)
    student = kdtool.compress(teacher_path, max_macs="0.3x", output=tmp_path / "s.pt", **QUICK)
    results = results_of(student)
    assert results["winner"].startswith("halve")
    failed = next(row for row in results["rows"] if row["model"].startswith("filter-l1"))
    assert failed["note"] == "failed: the loss is not finite"
    assert failed["val_accuracy"] is None

    def never(*args, **kw):
        raise LossNotFiniteError("the loss is not finite")

    monkeypatch.setattr(Run, "fit", never)
    with pytest.raises(kdtool.Error, match="the loss is not finite"):  # there are no others
        kdtool.compress(
            teacher_path,
            max_macs="0.3x",
            output=tmp_path / "t.pt",
            **{**QUICK, "candidates": ("filter-l1",), "trials": 2},
        )


@pytest.mark.slow
def test_several_processes_train_the_candidates_that_the_first_one_chose(teacher_path, tmp_path):
    words = f"compress {teacher_path} --max-macs 0.3x --candidates halve,filter-l1 --no-quantised --epochs 1 -o two.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kdtool"]
    done = subprocess.run(
        [*launch, *words.split()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["two.pt"]
    student = read(tmp_path / "two.pt")
    assert student.history[-1]["processes"] == 2
    assert len([row for row in results_of(student)["trials"] if not row["full"]]) == 2
    assert done.stderr.count("candidates within the budget") == 1
