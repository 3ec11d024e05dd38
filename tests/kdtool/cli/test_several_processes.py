"""``--processes``: the command line in several processes that torch's elastic launcher starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from click.testing import CliRunner

import kdtool
from kdtool.cli import launcher, several_processes
from kdtool.cli.chain import ChainStep, plan
from kdtool.cli.main import cli
from kdtool.cli.process import ReaderGone
from kdtool.cli.several_processes import Wanted, in_chain, trained
from kdtool.errors import UsageError
from kdtool.training.foresight.trial import Found

KDTOOL = [sys.executable, "-m", "kdtool"]
TWO = Wanted(2, "cpu", None)
AUTO = Wanted(None, "cpu", None)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*several_processes.OF_LAUNCHERS, launcher.PLACE):
        monkeypatch.delenv(name, raising=False)


def chain(*steps):
    return in_chain(("distill", step) for step in steps)


def test_one_number_holds_for_the_whole_chain():
    assert chain(None, None) is None
    assert chain(None, TWO, Wanted(2, "auto", 1)) == TWO
    with pytest.raises(UsageError, match="--processes 2 holds for the whole chain; leave out --processes auto"):
        chain(TWO, AUTO)
    assert in_chain([("compress", TWO)]) == TWO
    with pytest.raises(UsageError, match="--processes auto: compress times its trainings itself; give a number"):
        in_chain([("compress", None), ("prune", AUTO)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--processes 0", "--processes 0: is out of range: at least 1"),
        ("--processes many", "--processes many: is neither auto nor a number"),
        ("--processes 2 --ray auto", "--processes and --ray exclude each other"),
    ],
)
def test_mistakes_are_named(words, message, teacher_path):
    done = CliRunner().invoke(cli, ["distill", str(teacher_path), "--refiner", "halve", *words.split()])
    assert done.exit_code == 2
    assert message in done.output


def test_another_launcher_is_refused_and_ones_own_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with pytest.raises(UsageError, match="--processes 2: another launcher started this process"):
        chain(TWO)
    monkeypatch.setenv(launcher.PLACE, str(tmp_path))
    assert chain(TWO) is None


def test_accelerate_is_asked_for(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--processes 2: needs accelerate; pip install 'kdtool\[distributed\]'"):
        trained(TWO, [], [])


@pytest.mark.parametrize(("gpus", "there"), [(1, "there is one GPU"), (2, "there are 2 GPUs")])
def test_each_process_has_a_gpu_of_its_own(monkeypatch, gpus, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UsageError, match=f"--processes 3: {there}, one for each process; give at most {gpus}"):
        trained(Wanted(3, "auto", None), [], [])
    monkeypatch.setattr(several_processes, "_run", lambda *about, **more: None)
    assert trained(Wanted(3, "cpu", None), [], [])
    assert trained(Wanted(gpus, "cuda", None), [], []) is (gpus > 1)


class Launches:
    """Stands in for the launcher; ``seconds`` are the forecasts by the number of processes, 1 for one alone."""

    def __init__(self, seconds):
        self.seconds, self.tried, self.trained = seconds, [], []

    def __call__(self, number, cores, words, piped, trial=None, *, repeats=False):
        if trial is None:
            self.trained.append((number, repeats))
            return None
        self.tried.append((number, repeats))
        assert trial.alone == (None if len(self.tried) == 1 else self.seconds[1])
        best = trial.best or self.seconds[1]
        pays = best > 1.05 * self.seconds[number]
        if pays and trial.last:
            self.trained.append((number, repeats))
        return Found(self.seconds[number], self.seconds[1], goes_on=pays and trial.last)


@pytest.mark.parametrize(
    ("seconds", "tried", "number", "line"),
    [
        ({1: 10, 2: 6, 4: 4, 8: 3}, [2, 4, 8], 8, ""),
        ({1: 10, 2: 6, 4: 5.9}, [2, 4], 2, "trains in 2 processes, 1.67x as fast as in one (--processes 1: in one)"),
        ({1: 10, 2: 12}, [2], 1, "trains in one process: 2 processes take 1.20x as long"),
        ({1: 10, 2: 9.9}, [2], 1, "trains in one process: 2 processes take 0.99x as long"),
    ],
)
def test_the_fastest_number_trains(monkeypatch, capsys, seconds, tried, number, line):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(several_processes, "usable_cores", lambda: 8)
    launches = Launches(seconds)
    monkeypatch.setattr(several_processes, "_run", launches)

    assert trained(AUTO, [], []) is (number > 1)

    assert [about for about, _ in launches.tried] == tried
    assert [about for about, _ in launches.trained] == [number] * (number > 1)
    # What a trial before has written is written again.
    assert all(repeats for _, repeats in (launches.tried + launches.trained)[1:])
    assert capsys.readouterr().err == (f"{line}\n" if line else "")


def test_more_threads_in_a_process_leave_room_for_fewer(monkeypatch, capsys):
    monkeypatch.setattr(several_processes, "usable_cores", lambda: 8)
    launches = Launches({1: 9, 2: 5})
    monkeypatch.setattr(several_processes, "_run", launches)
    assert trained(Wanted(None, "cpu", 4), [], [])
    assert launches.tried == [(2, False)]
    assert not trained(Wanted(None, "cpu", 8), [], [])
    assert "trains in one process: there is nothing to share" in capsys.readouterr().err


def test_what_cannot_be_timed_trains_in_one_process(monkeypatch, capsys):
    found = Found(None, None, goes_on=False, reason="--batch-size 3: 2 processes need 4 images in each pass")
    monkeypatch.setattr(several_processes, "usable_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(several_processes, "_run", lambda *about, **more: found)
    assert not trained(AUTO, [], [])
    assert capsys.readouterr().err.startswith("trains in one process: --batch-size 3: 2 processes need")


def told(place: Path, monkeypatch, *errors: tuple[str, int]) -> None:
    """Let processes hand on their errors, in this order."""
    monkeypatch.setenv(launcher.PLACE, str(place))
    for number, (line, code) in enumerate(errors):
        monkeypatch.setenv("RANK", str(number))
        assert launcher.handed_on(line, code)
        time.sleep(0.01)


INTERRUPTED = ("distill was interrupted", 143)
GONE = (launcher.LOST, 1)


@pytest.mark.parametrize(
    ("errors", "codes", "message", "code"),
    [
        ([INTERRUPTED, ("x.png: cannot be read", 1)], {0: 143, 1: 1}, "x.png: cannot be read", 1),
        ([("--batch-size 3: too small", 2), GONE], {0: 2, 1: 1}, "--batch-size 3: too small", 2),
        ([INTERRUPTED], {0: 143, 1: -9}, "process 1 of 2 was ended by SIGKILL, often for want of memory", 1),
        ([GONE], {1: -11}, "process 1 of 2 was ended by SIGSEGV; run the same command with --resume$", 1),
        ([GONE], {0: 1}, launcher.LOST, 1),
        ([], {0: 7}, r"the processes ended with the exit codes \[7\]", 1),
        ([], {0: 141, 1: -15}, None, ReaderGone.exit_code),
    ],
)
def test_the_error_that_ended_the_others_is_said(monkeypatch, tmp_path, errors, codes, message, code):
    told(tmp_path, monkeypatch, *errors)
    error = several_processes._cause(tmp_path, codes, 2)
    assert error.exit_code == code
    assert isinstance(error, ReaderGone) is (message is None)
    assert message is None or re.match(message, str(error))


def test_a_process_that_cannot_hand_on_its_error_prints_it(monkeypatch, tmp_path):
    assert not launcher.handed_on("anything", 1), "it was started by the user"
    monkeypatch.setenv(launcher.PLACE, str(tmp_path / "missing"))
    assert not launcher.handed_on("anything", 1)


def test_paths_from_a_pipe_are_handed_on(monkeypatch, tmp_path, teacher_path):
    (tmp_path / launcher.PIPED).write_text(str(teacher_path))
    monkeypatch.setenv(launcher.PLACE, str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    (work,) = plan([ChainStep("distill", lambda work: None)])
    assert work.checkpoints == (teacher_path,)


def test_steps_that_a_trial_has_done_are_repeated(monkeypatch, tmp_path, teacher_path):
    made = tmp_path / "half.pt"
    made.touch()
    steps = [
        ChainStep("refine", lambda work: None, (teacher_path,), output=lambda _: made, makes_checkpoint=True),
        ChainStep("distill", lambda work: None, output=lambda _: tmp_path / "student.pt", resumable=True),
    ]
    with pytest.raises(UsageError, match="half.pt"):
        plan(steps)
    assert [work.force for work in plan(steps, [teacher_path])] == [True, False]
    (tmp_path / launcher.REPEATS).touch()
    monkeypatch.setenv(launcher.PLACE, str(tmp_path))
    assert [work.force for work in plan(steps)] == [True, False]


def test_signals_that_are_ignored_stay_ignored():
    config = SimpleNamespace(__dataclass_fields__={"signals_to_handle": None})
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
        assert several_processes._signals(config) == {"signals_to_handle": "SIGINT,SIGTERM"}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(*words: str, folder: Path, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KDTOOL, *words], cwd=folder, capture_output=True, text=True, timeout=250, **more)


@pytest.mark.slow
def test_two_processes_give_what_torchrun_gives(tmp_path):
    words = ["teacher", "kdtool:lenet-5", "--data", "digits", "--epochs", "2", "-o"]
    ours = run(*words, "ours.pt", "--processes", "2", folder=tmp_path)
    assert (ours.returncode, ours.stdout) == (0, "ours.pt\n"), ours.stderr
    assert ours.stderr.count("makes ours.pt by 2 epochs of 21 steps\n") == 1
    assert " in 2 processes, " in ours.stderr

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kdtool"]
    subprocess.run([*torchrun, *words, "theirs.pt"], cwd=tmp_path, check=True, capture_output=True, timeout=250)
    one, two = (kdtool.load(tmp_path / name) for name in ("ours.pt", "theirs.pt"))
    assert two.history[-1]["processes"] == one.history[-1]["processes"] == 2
    for name, tensor in two.module.state_dict().items():
        assert torch.equal(tensor, one.module.state_dict()[name]), name


@pytest.mark.slow
def test_an_error_is_one_line_with_its_code(tmp_path):
    words = ["teacher", "kdtool:lenet-5", "--data", "digits", "--batch-size", "3", "--processes", "2"]
    done = run(*words, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "Error: --batch-size 3: 2 processes need 4 images in each pass, 2 each; give a larger --batch-size, which "
        "counts all processes"
    ]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_auto_times_both_and_a_chain_from_a_pipe_ends(teacher_path, tmp_path):
    words = ["refine", "--method", "halve", "-o", "half.pt", "prune", "--ratio", "0.5", "--epochs", "1", "-o"]
    words += ["student.pt", "--processes", "auto", "export", "--onnx", "--no-latency", "-o", "student.onnx"]
    done = run(*words, folder=tmp_path, input=str(teacher_path))
    assert (done.returncode, done.stdout) == (0, "student.onnx\n"), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("trains in ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.count("refine: half.pt\n") == 1 + ("one process" in lines[0]) * 0
    assert kdtool.load(tmp_path / "student.pt").history[-1].get("processes", 1) == (
        1 if "one process" in lines[0] else 2
    )


@pytest.mark.slow
def test_a_signal_ends_all_and_the_training_goes_on_in_one_process(teacher_path, tmp_path):
    words = ["distill", str(teacher_path), "--refiner", "halve", "--epochs", "300", "-o", "two.pt", "--processes"]
    log = tmp_path / "two.run" / "metrics.jsonl"
    for number, message in (
        (signal.SIGINT, "Error: distill was interrupted; run the same command with --resume to continue"),
        (signal.SIGKILL, "Error: process 1 of 2 was ended by SIGKILL, often for want of memory; run the same"),
    ):
        before = len(log.read_text().splitlines()) if log.exists() else 0
        command = [*KDTOOL, *words, "2", "--resume"]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 200
            while not (log.exists() and len(log.read_text().splitlines()) > before + 1):
                assert time.monotonic() < deadline
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.1)
            children = psutil.Process(process.pid).children()
            ranks = {child.environ().get("RANK"): child.pid for child in children}
            os.kill(process.pid if number == signal.SIGINT else ranks["1"], number)
            error = process.communicate(timeout=60)[1]
        assert process.returncode == (130 if number == signal.SIGINT else 1)
        assert [line[: len(message)] for line in error.splitlines() if "Error" in line] == [message]
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    assert run(*words, "1", "--resume", folder=tmp_path).returncode == 0
    assert [json.loads(row)["epoch"] for row in log.read_text().splitlines()] == list(range(1, 301))
