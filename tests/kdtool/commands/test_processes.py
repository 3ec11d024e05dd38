"""A command in two processes: who writes, what is computed once, what happens if one fails, and resuming."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
import torch

import kdtool
from kdtool.commands import foresight
from kdtool.commands.processes import check_alike
from kdtool.errors import Error
from kdtool.training.frozen_network import FrozenNetwork
from kdtool.training.loop import Loop
from kdtool.training.output_cache import Cache, CachedArray
from kdtool.utils.processes import together
from kdtool.utils.verbosity import announcing

OPTIONS: dict[str, Any] = {
    **{"epochs": 4, "views": 2, "batch_size": 64, "lr": 1e-3, "device": "cpu", "precision": "fp32"},
    "subset": 0.32,
}


def distil(teacher, output, **options):
    return kdtool.distill(teacher, "kd", refiner="halve", output=output, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def uninterrupted(teacher_path, tmp_path_factory):
    """The result of one process."""
    path = tmp_path_factory.mktemp("one") / "one.pt"
    distil(teacher_path, path)
    return path


def epochs(path):
    return [json.loads(line) for line in (path.with_suffix(".run") / "metrics.jsonl").read_text().splitlines()]


def agrees(path, expected):
    ours, theirs = kdtool.load(path), kdtool.load(expected)
    assert [row["epoch"] for row in epochs(path)] == [1, 2, 3, 4]
    for name in ("loss", "val_loss"):
        assert [row[name] for row in epochs(path)] == pytest.approx([row[name] for row in epochs(expected)], rel=1e-4)
    for mine, other in zip(ours.module.state_dict().values(), theirs.module.state_dict().values(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    assert ours.metric("test", "accuracy") == theirs.metric("test", "accuracy")
    return True


def test_every_output_is_computed_once_in_all(teacher_path, uninterrupted, tmp_path, in_processes, monkeypatch):
    output, run = tmp_path / "two.pt", FrozenNetwork.run

    def counting(self, begin, end, x, watch):
        with open(tmp_path / f"seen-{os.environ['RANK']}", "a") as file:
            file.write(f"{len(x)}\n")
        return run(self, begin, end, x, watch)

    def work():
        monkeypatch.setattr(FrozenNetwork, "run", counting)
        result = distil(teacher_path, output)
        (tmp_path / f"accuracy-{os.environ['RANK']}").write_text(repr(result.metric("test", "accuracy")))

    assert in_processes(work) == [0, 0]
    seen = [sum(map(int, (tmp_path / f"seen-{number}").read_text().split())) for number in (0, 1)]
    images = kdtool.load(output).data.splits["train"]["images"]
    # Four epochs, of which two read what the others computed.
    assert sum(seen) == 2 * images
    assert min(seen) > 0.9 * images
    assert (tmp_path / "accuracy-0").read_text() == (tmp_path / "accuracy-1").read_text()
    assert agrees(output, uninterrupted)
    assert not list(output.with_suffix(".run").glob("cache*"))


@pytest.mark.slow
def test_an_onnx_file_teaches_two_processes(teacher_path, tmp_path, in_processes):
    file, student = tmp_path / "teacher.onnx", {"student": "kdtool:lenet-300-100", **OPTIONS}
    kdtool.export(teacher_path, output=file, latency=False)
    kdtool.distill(file, **student, output=tmp_path / "one.pt")
    assert in_processes(lambda: kdtool.distill(file, **student, output=tmp_path / "two.pt")) == [0, 0]
    assert agrees(tmp_path / "two.pt", tmp_path / "one.pt")


@pytest.mark.slow
def test_each_machine_has_a_file_of_all_outputs(teacher_path, uninterrupted, tmp_path, in_processes, monkeypatch):
    output, close = tmp_path / "two.pt", CachedArray.close

    def watching(self):
        filled = self.filling
        close(self)
        if filled:
            name = self.path.relative_to(output.with_suffix(".run"))
            (tmp_path / f"file-{os.environ['RANK']}-{name.parent.name}").write_bytes(self.path.read_bytes())

    def work():
        monkeypatch.setattr(CachedArray, "close", watching)
        distil(teacher_path, output)

    assert in_processes(work, LOCAL_WORLD_SIZE="1") == [0, 0]
    first, second = (tmp_path / name for name in ("file-0-cache", "file-1-node-1"))
    # The rows of both processes: each computed half of them, and got the others.
    assert first.read_bytes() == second.read_bytes()
    assert agrees(output, uninterrupted)
    assert not list(output.with_suffix(".run").glob("cache*"))


def killed_after_two_epochs():
    """Let a process be killed when its second epoch is saved."""
    one_epoch = Loop._one_epoch

    def dying(self, *arguments):
        if self.state.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        one_epoch(self, *arguments)

    Loop._one_epoch = dying


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_others_end_if_one_is_killed_and_one_process_goes_on(
    number, teacher_path, uninterrupted, tmp_path, in_processes
):
    output = tmp_path / "two.pt"

    def work():
        if os.environ["RANK"] == str(number):
            killed_after_two_epochs()
        distil(teacher_path, output)

    codes = in_processes(work, seconds=60)
    assert codes[number] == -signal.SIGKILL
    assert codes[1 - number] == 1, "it waits, or did not see it"
    assert not output.exists()

    distil(teacher_path, output, resume=True)
    assert agrees(output, uninterrupted)


def test_two_processes_go_on_where_one_was_killed(teacher_path, uninterrupted, tmp_path, in_processes):
    output = tmp_path / "two.pt"

    def work():
        killed_after_two_epochs()
        distil(teacher_path, output)

    assert in_processes(work, count=1) == [-signal.SIGKILL]
    assert len(epochs(output)) == 2
    assert in_processes(lambda: distil(teacher_path, output, resume=True)) == [0, 0]
    assert agrees(output, uninterrupted)


def test_a_finished_run_is_read_by_all(teacher_path, uninterrupted, in_processes):
    before = uninterrupted.stat().st_mtime_ns

    def work():
        result = distil(teacher_path, uninterrupted, resume=True)
        assert result.metric("test", "accuracy") is not None

    assert in_processes(work) == [0, 0]
    assert uninterrupted.stat().st_mtime_ns == before


def test_an_error_of_one_ends_all(teacher_path, tmp_path, in_processes, capfd):
    def work():
        if os.environ["RANK"] == "1":
            Loop._train_epoch = failing
        distil(teacher_path, tmp_path / "two.pt")

    def failing(*arguments):
        raise Error("images/7.png: cannot be read")

    assert in_processes(work, seconds=60) == [1, 1]
    assert "images/7.png: cannot be read" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "machines", "place"), [("1", 2, "cache/node-1"), pytest.param("0", 1, "cache", marks=pytest.mark.slow)]
)
def test_a_full_disk_on_one_ends_the_cache_of_all(
    number, machines, place, teacher_path, uninterrupted, tmp_path, in_processes, capfd
):
    def work():
        if os.environ["RANK"] == number:  # the first of a machine makes its files
            Cache._make = lambda *arguments: "No space left on device"
        distil(teacher_path, tmp_path / "two.pt")

    assert in_processes(work, LOCAL_WORLD_SIZE=str(2 // machines)) == [0, 0]
    assert agrees(tmp_path / "two.pt", uninterrupted)
    said = capfd.readouterr().err
    assert said.count("no room for a cache") == 1
    assert f"{tmp_path / 'two.run' / place}: no room for a cache (No space left on device)" in said


def test_an_automatic_batch_is_refused_before_anything_is_timed(teacher_path, tmp_path, in_processes):
    def work():
        foresight.rehearse = None
        with announcing(), pytest.raises(kdtool.UsageError, match="--batch-size auto: works in one process"):
            distil(teacher_path, tmp_path / "two.pt", batch_size="auto")

    assert in_processes(work) == [0, 0]


def test_processes_with_other_data_are_found_at_the_start(teacher_path, tmp_path, in_processes, capfd):
    def work():
        distil(teacher_path, tmp_path / "two.pt", subset=0.5 if os.environ["RANK"] == "1" else 1.0)

    assert in_processes(work) == [1, 1]
    error = capfd.readouterr().err
    assert "differs from process 0" in error
    assert "images of train" in error
    assert not (tmp_path / "two.run").exists()


def placed(*machines):
    """Let this process be on a machine as torchrun numbers them; ``machines`` are the sizes of all."""
    rank, first = int(os.environ["RANK"]), 0
    for number, size in enumerate(machines):
        if first <= rank < first + size:
            os.environ.update(LOCAL_WORLD_SIZE=str(size), LOCAL_RANK=str(rank - first), GROUP_RANK=str(number))
        first += size
    os.environ["GROUP_WORLD_SIZE"] = str(len(machines))


def test_machines_with_unlike_numbers_of_processes_cache_each_row(tmp_path, in_processes):
    rows = torch.arange(6.0)[:, None]

    def work():
        placed(1, 2)
        with together("cpu"):
            check_alike({"command": "distill"})
            rank = int(os.environ["RANK"])
            array = Cache(tmp_path / os.environ["GROUP_RANK"], 1 << 20).create("rows", (6, 1), torch.float32)
            array.write(torch.tensor([rank, 5 - rank]), rows[[rank, 5 - rank]])
            array.close()

    assert in_processes(work, count=3, seconds=60) == [0, 0, 0]
    for number in "01":
        made = Cache(tmp_path / number, 1 << 20).open("rows").read(torch.arange(6))
        assert torch.equal(made, rows)


def test_a_launcher_that_does_not_number_unlike_machines_is_refused(in_processes):
    def work():
        placed(1, 2)
        del os.environ["GROUP_RANK"]
        with together("cpu"), pytest.raises(Error, match="machines have unlike numbers of processes; .* torchrun"):
            check_alike({"command": "distill"})

    assert in_processes(work, count=3, seconds=60) == [0, 0, 0]


def test_processes_with_other_versions_are_found(in_processes):
    def work():
        import importlib.metadata

        version = importlib.metadata.version
        if os.environ["RANK"] == "1":
            importlib.metadata.version = lambda name: "1.0" if name == "timm" else version(name)
        with together("cpu"), pytest.raises(Error, match=r'process 1 .* versions.timm is "1.0" instead of'):
            check_alike({"command": "distill"})

    assert in_processes(work) == [0, 0]
