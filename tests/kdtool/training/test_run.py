"""A run that is killed goes on; one that is another's is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.options import Training
from kdtool.training.phase import Phase
from kdtool.training.run import Run
from kdtool.training.run_directory import run_directory
from kdtool.utils.files import slug
from kdtool.utils.tensor_files import write_tensors

IKD = ["--method", "ikd", "--iters", "3", "--epochs", "6", "--lr", "0.003", "--precision", "fp32", "--device", "cpu"]


def kdtool_command(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "kdtool", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **options)  # fmt: skip


def last_phase(directory):
    try:
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        row = json.loads(lines[-1])
        return row["phase"], row["epoch"]
    except (FileNotFoundError, IndexError, json.JSONDecodeError):
        return "", 0


@pytest.mark.slow  # the contract of each method has a kill in the quick tests
def test_three_kills_change_nothing(teacher_path, tmp_path):
    """SIGKILL an IKD run in three different phases; the weights are those of a run that was left alone."""
    whole = kdtool.distill(teacher_path, method="ikd", iters=3, epochs=6, lr=0.003, precision="fp32", device="cpu",
                           output=tmp_path / "whole.pt")  # fmt: skip
    output = tmp_path / "cut.pt"
    for phase in ("M1 from M0", "M2 from M1", "M3 from M2"):
        process = kdtool_command("distill", teacher_path, *IKD, "-o", output, "--resume")
        deadline = time.monotonic() + 120
        while last_phase(tmp_path / "cut.run") < (phase, 2) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert process.poll() is None, process.communicate()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not output.exists()
    process = kdtool_command("distill", teacher_path, *IKD, "-o", output, "--resume")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == f"{output}\n"
    cut = read(output)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name
    rows = [json.loads(line) for line in (tmp_path / "cut.run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        (f"M{i} from M{i - 1}", epoch) for i in (1, 2, 3) for epoch in range(1, 7)
    ]


def test_a_finished_run_is_not_done_again(teacher_path, tmp_path):
    options = {"method": "ikd", "iters": 1, "epochs": 1, "output": tmp_path / "s.pt"}
    first = kdtool.distill(teacher_path, **options)
    written = (tmp_path / "s.pt").stat().st_mtime_ns
    again = kdtool.distill(teacher_path, **options, resume=True)
    assert (tmp_path / "s.pt").stat().st_mtime_ns == written
    assert again.metrics == first.metrics


def test_resume_does_not_ask_where_the_data_lie(tmp_path, monkeypatch):
    told = {"data": "digits", "subset": 0.1, "epochs": 1, "output": tmp_path / "t.pt"}
    monkeypatch.setenv("KDTOOL_DATA", str(tmp_path))
    first = kdtool.teacher("kdtool:lenet-300-100", **told)
    monkeypatch.delenv("KDTOOL_DATA")
    again = kdtool.teacher("kdtool:lenet-300-100", **told, resume=True)
    assert first.history == again.history
    with pytest.raises(kdtool.UsageError, match="data.subset was 0.1, now 0.2"):
        kdtool.teacher("kdtool:lenet-300-100", **{**told, "subset": 0.2}, resume=True)


def test_resume_refuses_another_command(teacher_path, tmp_path):
    kdtool.distill(teacher_path, method="ikd", iters=1, epochs=1, output=tmp_path / "s.pt")
    with pytest.raises(kdtool.UsageError, match="epochs was 1, now 2"):
        kdtool.distill(teacher_path, method="ikd", iters=1, epochs=2, output=tmp_path / "s.pt", resume=True)


def test_an_output_is_only_overwritten_with_force(teacher_path, tmp_path):
    options = {"method": "ikd", "iters": 1, "epochs": 1, "output": tmp_path / "s.pt"}
    kdtool.distill(teacher_path, **options)
    with pytest.raises(kdtool.UsageError, match="exists already.*--force"):
        kdtool.distill(teacher_path, **options)
    kdtool.distill(teacher_path, **{**options, "seed": 1}, force=True)
    assert read(tmp_path / "s.pt").history[-1]["training"]["seed"] == 1


def test_two_processes_do_not_share_a_run(tmp_path):
    output = tmp_path / "x.pt"
    with (
        run_directory(output, {"a": 1}, force=False, resume=False),
        pytest.raises(kdtool.Error, match="another process"),
        run_directory(output, {"a": 1}, force=False, resume=True),
    ):
        pass


def test_force_leaves_a_strange_directory_alone(tmp_path):
    strange = tmp_path / "x.run"
    strange.mkdir()
    (strange / "precious").write_text("data")
    with (
        pytest.raises(kdtool.UsageError, match="is not a run of kdtool"),
        run_directory(tmp_path / "x.pt", {}, force=True, resume=False),
    ):
        pass
    assert (strange / "precious").read_text() == "data"


def test_the_last_good_weights_are_kept(teacher_path, tmp_path, monkeypatch):
    from kdtool_distillers.kd import KD

    original = KD.loss

    def explode(self, step):
        return original(self, step) * (float("inf") if step.epoch == 2 else 1)

    monkeypatch.setattr(KD, "loss", explode)
    with pytest.raises(kdtool.Error, match=r"not finite in epoch 3.*kept in .*last-good.pt"):
        kdtool.distill(teacher_path, method="kd", student="kdtool:lenet-300-100", epochs=4, output=tmp_path / "s.pt")
    assert not (tmp_path / "s.pt").exists()
    (kept,) = (tmp_path / "s.run").glob("*last-good.pt")
    assert read(kept).metrics[0]["accuracy"] > 0.1


def test_slug():
    assert slug("M2 from M1") == "M2-from-M1"


def test_a_run_that_never_began_leaves_nothing(teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="needs a student"):
        kdtool.distill(teacher_path, method="kd", output=tmp_path / "s.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_other_training_options_shares_the_rest(tmp_path, digits):
    entry = HistoryEntry("check", "", "", {}, {}, {}, [], "", {}, "")
    run = Run(tmp_path, data=digits, training=Training(epochs=2, device="cpu"), parent=None, entry=entry)
    other = run.with_training(epochs=1, lr=0.5)
    other.record(reached=1)
    assert (run.training.epochs, other.training.epochs, other.training.lr) == (2, 1, 0.5)
    assert (other.directory, other.rows is run.rows, run.entry.facts) == (tmp_path, True, {"reached": 1})
    with pytest.raises(kdtool.UsageError, match="--lr"):
        run.with_training(lr=-1.0)


def test_a_name_is_that_of_one_phase(tmp_path, digits, teacher_path):
    entry = HistoryEntry("check", "", "", {}, {}, {}, [], "", {}, "")
    few = {"data": digits, "training": Training(epochs=0, device="cpu"), "parent": None, "entry": entry}
    run, network = Run(tmp_path, **few), read(teacher_path).network
    for name in ("a", "b"):
        run.fit(name, network)
    run.sub_run("short", run.training).fit("a", network)
    with pytest.raises(kdtool.Error, match=r"^run\.fit\('a'\): another phase has this name"):
        run.with_training(lr=0.5).fit("a", network)
    with pytest.raises(kdtool.Error, match="another phase has this name"):
        run.sub_run("short", run.training).fit("a", network)
    Run(tmp_path, **few).fit("a", network)  # the command is run again


def test_a_phase_of_another_release_is_refused_in_words(tmp_path):
    phase = Phase(tmp_path, "kd", "key", log=lambda row: None)
    phase.directory.mkdir(parents=True)
    write_tensors(phase.directory / "state.pt", {"key": "key", "state": {"epoch": 1}})
    with pytest.raises(kdtool.Error, match="phase 'kd' was begun by another release of kdtool.*--force"):
        phase.load()
    assert (phase.directory / "state.pt").exists()
