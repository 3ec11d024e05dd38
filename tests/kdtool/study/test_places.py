"""Which share of the machine each job of a study gets. Stand-ins take the place of GPUs and of kdtool."""

import sys

import pytest

import kdtool
from kdtool.study import places
from kdtool.study.places import Slot, reason, slots, visible_gpus

RECIPE = """
[matrix]
seed = [0, 1, 2, 3]
[[step]]
name = "teacher"
run = "teacher {seed}"
[[step]]
name = "other"
run = "teacher --device cuda:1 {seed}"
"""

STAND_IN = """
import os, shutil, sys, time
words = sys.argv[1:]
target = words[words.index("-o") + 1]
gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
with open(os.environ["CALLS"], "a") as calls:
    calls.write(f"{os.path.basename(target)} {os.environ.get('OMP_NUM_THREADS')} {gpu} {time.time()} begins\\n")
time.sleep(0.1)
shutil.copy(os.environ["CHECKPOINT"], target)
with open(os.environ["CALLS"], "a") as calls:
    calls.write(f"{os.path.basename(target)} {os.environ.get('OMP_NUM_THREADS')} {gpu} {time.time()} ends\\n")
"""


@pytest.fixture
def run(tmp_path, teacher_path, monkeypatch):
    """Run the recipe with so many jobs; return the rows of what the stand-in saw: name, threads, GPU, time, event."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("CHECKPOINT", str(teacher_path))
    monkeypatch.setattr(places, "KDTOOL", (sys.executable, "-S", str(tmp_path / "stand_in.py")))
    monkeypatch.setattr(places, "usable_cores", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")

    def run_it(jobs):
        assert kdtool.run_study(tmp_path / "recipe.toml", jobs=jobs, force=True)["failed"] == []
        return [line.split() for line in (tmp_path / "calls").read_text().splitlines()]

    return run_it


def test_each_job_has_its_cores_and_a_gpu_of_its_own(run, capsys):
    rows = run(2)
    assert {row[1] for row in rows} == {"4"}
    own = [row for row in rows if row[0].startswith("teacher")]
    assert {row[2] for row in own} == {"3", "GPU-5"}
    busy = set()
    for _, _, gpu, _, event in sorted(own, key=lambda row: float(row[3])):
        assert (gpu in busy) == (event == "ends")
        busy ^= {gpu}
    # A command that names its device sees all of them.
    assert {row[2] for row in rows if row[0].startswith("other")} == {"3,GPU-5"}
    assert "--jobs 2: each has 4 of 9 cores and a GPU of its own\n" in capsys.readouterr().err


def test_more_jobs_than_gpus_share_them(run, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    rows = run(3)
    assert {row[1] for row in rows} == {"7"}
    assert "--jobs 3: each has OMP_NUM_THREADS=7 and one of 2 GPUs, which jobs share\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_single_job_has_all_of_the_machine(run, capsys):
    assert {(row[1], row[2]) for row in run(1)} == {("None", "3,GPU-5")}
    assert "--jobs" not in capsys.readouterr().err


@pytest.mark.parametrize("placement", [{"jobs": 2}, {"ray": "auto"}])
def test_a_step_that_would_take_the_whole_machine_is_alone(placement, tmp_path):
    step = '[[step]]\nname = "teacher"\nrun = "teacher kdtool:lenet-5 --processes {number}"'
    (tmp_path / "recipe.toml").write_text(f'[matrix]\nnumber = ["2", "auto"]\n{step}')
    with pytest.raises(kdtool.UsageError, match="step 'teacher': --processes auto takes the whole machine"):
        kdtool.run_study(tmp_path / "recipe.toml", **placement)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_slots():
    assert slots(3, 8, []) == [Slot(2), Slot(2), Slot(2)]
    assert slots(4, 2, ["0", "1"]) == [Slot(1, "0"), Slot(1, "1"), Slot(1, "0"), Slot(1, "1")]


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["teacher", "x"], True),
        (["teacher", "--device", "cuda"], True),
        (["teacher", "--device=auto"], True),
        (["teacher", "--device", "cpu"], False),
        (["teacher", "--device=cuda:1", "x"], False),
        (["teacher", "--device", "cuda:1", "--device", "auto"], True),
    ],
)
def test_a_command_that_names_its_device_chooses_it(words, own, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert Slot(1, "1").environment(words)["CUDA_VISIBLE_DEVICES"] == ("1" if own else "0,1")


@pytest.mark.parametrize(
    ("words", "threads"),
    [([], 4), (["--processes", "2"], 2), (["--processes=8"], 1)],
)
def test_the_processes_of_a_command_share_its_threads(words, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Slot(4).environment(["teacher", *words])["OMP_NUM_THREADS"] == str(threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Slot(4).environment(["teacher", *words])["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("", []), ("-1", []), ("0", ["0"]), ("2, 0", ["2", "0"]), ("1,-1,0", ["1"]), ("MIG-a", ["MIG-a"])],
)
def test_the_gpus_that_cuda_shows(named, gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def test_without_a_list_all_gpus_of_the_machine(monkeypatch):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_gpus() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (1, "a warning\nError: out of luck\n\n", "out of luck"),
        (3, "", "ended with exit code 3"),
        (3, "about 4 min, 829 MB of memory\n", "ended with exit code 3: about 4 min, 829 MB of memory"),
        (-9, "about 4 min, 829 MB of memory\n", "killed by signal 9 (Killed); the memory may have run out"),
        (-11, "", "killed by signal 11 (Segmentation fault)"),
    ],
)
def test_why_a_command_failed(code, said, why):
    assert reason(code, said) == why
