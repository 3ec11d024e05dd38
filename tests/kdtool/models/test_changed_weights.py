"""A checkpoint that is saved after a training of the user's own: the file says nothing of the weights of before."""

import datetime
import json

import numpy as np
import pytest
import torch

import kdtool
from kdtool.compression.fresh import epochs_seen
from kdtool.models import checkpoint as module
from kdtool.models.checkpoint import fingerprint, read, write


def train(checkpoint):
    """Take one step of a training without kdtool."""
    network = checkpoint.module.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.randn(4, *checkpoint.architecture.input)).square().mean().backward()
    optimizer.step()
    network.eval()


def print_of(checkpoint):
    return fingerprint(checkpoint.module.state_dict())


def test_metrics_are_those_of_the_weights(teacher_path, tmp_path, capsys):
    own = kdtool.load(teacher_path)
    before, weights = read(teacher_path), print_of(own)
    train(own)
    assert own.save(tmp_path / "own.pt") is own
    assert "own.pt: has no metrics, its weights were changed outside of kdtool; kdtool eval" in capsys.readouterr().err
    again = read(tmp_path / "own.pt")
    assert print_of(again) == print_of(own) != weights
    assert again.metrics == own.metrics == []
    assert again.data == before.data
    assert again.history[:-1] == before.history
    entry = again.history[-1]
    assert entry["line"] == f"# weights of {teacher_path} changed outside of kdtool and saved as {tmp_path / 'own.pt'}"
    assert entry["inputs"] == [{"role": "checkpoint", "path": str(teacher_path), "weights": weights}]
    assert entry["versions"].keys() == {"kdtool", "torch"}
    assert datetime.datetime.fromisoformat(entry["date"]).tzinfo is datetime.UTC
    assert again.metric("test", "accuracy") is None
    assert "accuracy    not measured" in repr(again)
    assert epochs_seen(again.history, 100) is None


def test_later_commands_read_such_a_history(teacher_path, tmp_path):
    own = kdtool.load(teacher_path)
    train(own)
    own.save(tmp_path / "own.pt")
    (row,) = kdtool.evaluate(tmp_path / "own.pt")
    assert 0 <= row["accuracy"] <= 1
    about = kdtool.inspect(tmp_path / "own.pt")
    assert about["metrics"] == []
    exported = kdtool.export(tmp_path / "own.pt", "safetensors", output=tmp_path / "own.safetensors")
    assert exported["against"] == str(teacher_path)
    with open(tmp_path / "own.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    lines = json.loads(header["__metadata__"]["kdtool.history"])
    assert lines[-1] == f"# weights of {teacher_path.name} changed outside of kdtool and saved as own.pt"
    report = kdtool.report(tmp_path / "own.pt", output=tmp_path / "r.md").read_text()
    assert lines[-1] in report
    assert "Scores" not in report
    pruned = kdtool.prune(tmp_path / "own.pt", method="magnitude", ratio=0.5, epochs=0, output=tmp_path / "p.pt")
    assert [entry["command"] for entry in pruned.history] == ["teacher", "save", "prune"]
    assert pruned.metrics
    train(pruned)
    assert read(pruned.save(tmp_path / "p2.pt").path).masked  # zeros of a pruned network are still to be kept


def test_a_training_may_save_after_each_epoch(teacher_path, tmp_path):
    own = kdtool.load(teacher_path)
    for _ in range(2):
        train(own)
        own.save(tmp_path / "own.pt")
    again = read(tmp_path / "own.pt")
    train(again)
    again.save(tmp_path / "more.pt")
    history = read(tmp_path / "more.pt").history
    assert [entry["command"] for entry in history] == ["teacher", "save"]
    assert history[-1]["inputs"][0]["path"] == str(teacher_path)
    assert history[-1]["output"] == str(tmp_path / "more.pt")


def test_what_was_not_changed_stays(teacher_path, tmp_path, capsys):
    first = read(teacher_path)
    content = torch.load(teacher_path, weights_only=True)
    del content["fingerprint"]  # as in a file of 0.1
    torch.save(content, tmp_path / "old.pt")
    for path in (teacher_path, tmp_path / "old.pt"):
        again = read(read(path).save(tmp_path / "again.pt").path)
        assert (again.metrics, again.history) == (first.metrics, first.history)
    assert capsys.readouterr().err == ""
    old = read(tmp_path / "old.pt")
    train(old)
    assert old.save(tmp_path / "again.pt").metrics == []


def test_what_a_command_returns_knows_its_weights(teacher_path, tmp_path):
    student = kdtool.refine(teacher_path, method="halve", output=tmp_path / "half.pt")
    commands = [entry["command"] for entry in student.history]
    assert [entry["command"] for entry in read(student.save(tmp_path / "copy.pt").path).history] == commands
    train(student)
    assert [entry["command"] for entry in student.save(tmp_path / "own.pt").history] == [*commands, "save"]


def test_a_file_that_cannot_be_written_changes_nothing(teacher_path, tmp_path):
    own = read(teacher_path)
    train(own)
    with pytest.raises(kdtool.Error):
        own.save(tmp_path)
    assert own.metrics
    assert own.path == teacher_path


def test_weights_are_hashed_once(teacher_path, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(module, "fingerprint", lambda weights: hashed.append(1) or fingerprint(weights))
    own = read(teacher_path)
    assert len(hashed) == 1
    own.save(tmp_path / "one.pt")
    write(tmp_path / "two.pt", own)
    assert len(hashed) == 3


def test_what_could_not_be_read_again_is_not_written(teacher_path, tmp_path):
    path = read(teacher_path).save(tmp_path / "own.pt").path
    before = path.read_bytes()
    row = {"split": "mine", "accuracy": 0.5}
    for change, reason in (
        (lambda own: own.metrics.append({"accuracy": 0.5}), "metrics: entry 3.split is missing"),
        (
            lambda own: own.metrics.append({**row, "loss": torch.tensor(0.5)}),
            "metrics: entry 3.loss is missing or ",
        ),
        (lambda own: own.history.append("hello"), "history: entry 2 is missing or malformed"),
        (lambda own: own.history[0].update(note={1}), "history: entry 1.note is missing or malformed"),
        (lambda own: own.history[0].update(note=print), "note: is a builtin_function_or_method, with which the file"),
        (lambda own: own.module.add_module("new", torch.nn.Linear(1, 1)), "2 unexpected"),
        (lambda own: setattr(own.module, activation(own.module), torch.nn.Tanh()), "its layers were changed, and a ch"),
    ):
        own = kdtool.load(path)
        change(own)
        with pytest.raises(kdtool.Error, match=reason) as raised:
            own.save(path)
        assert "\n" not in str(raised.value)
        assert path.read_bytes() == before


def activation(module):
    return next(name for name, part in module.named_modules() if isinstance(part, torch.nn.ReLU))


def test_plain_additions_are_written(teacher_path, tmp_path):
    own = kdtool.load(teacher_path)
    own.metrics.append({"split": "mine", "accuracy": np.float64(0.5)})
    own.history[-1].update(note=tmp_path, table=[np.float32(0.5)])
    own.history.append({"command": "mine", "line": "# mine"})
    again = kdtool.load(own.save(tmp_path / "own.pt").path)
    assert again.metric("mine", "accuracy") == 0.5
    assert (again.history[0]["note"], again.history[0]["table"]) == (str(tmp_path), [0.5])
    assert kdtool.export(again, "safetensors", output=tmp_path / "own.safetensors")["against"] is None


def test_half_precision_is_no_change_of_layers(teacher_path, tmp_path):
    for change in (torch.nn.Module.half, torch.nn.Module.double, lambda module: module.requires_grad_(False)):
        own = kdtool.load(teacher_path)
        change(own.module)
        assert kdtool.load(own.save(tmp_path / "own.pt").path).architecture == own.architecture


def test_a_module_that_keeps_maps_of_its_last_step_is_written(teacher_path, tmp_path):
    own = kdtool.load(teacher_path)
    own.module.last = own.module(torch.zeros(1, *own.architecture.input))  # as code of one's own does
    assert kdtool.load(own.save(tmp_path / "own.pt").path).stored == own.stored
