"""What a worker does, in this process and without Ray; a stand-in takes the place of kdtool."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdtool.study import ray_worker
from kdtool.study.ray_worker import Task
from kdtool.study.start import Start

pytest.importorskip("ray")


@pytest.fixture
def study(tmp_path):
    directory = tmp_path / "recipe.study"
    directory.mkdir()
    (directory / ".ray-1").touch()
    return directory


@pytest.fixture
def task(study):
    words = ("prune", str(study / "teacher.pt"))
    start = Start("pruned", "pruned.pt", False, {"told": {"command": ["prune"]}, "status": "begun"})
    return Task(start, words, False, str(study / ".ray-1"), str(study.parent), {"KDTOOL_CACHE": "here"})


@pytest.fixture
def calls(monkeypatch):
    """Replace kdtool; return the list of its words and surroundings."""
    called = []

    def stand_in(words):
        called.append((list(words), os.getcwd(), {k: v for k, v in os.environ.items() if k.startswith("KDTOOL_")}))
        target = Path(words[words.index("-o") + 1])
        print("printed")
        print("said", file=sys.stderr)
        os.write(2, b"said by a library\n")
        if "fail" in words:
            print("Error: out of luck", file=sys.stderr)
            return 1
        run = target.with_suffix(".run")
        run.mkdir(exist_ok=True)
        (run / "metrics.jsonl").write_text("{}\n")
        (run / "lock").touch()
        target.write_bytes(b"weights")
        return 0

    monkeypatch.setattr(ray_worker, "kdtool", stand_in)
    monkeypatch.setattr(ray_worker, "taken", lambda reference: reference)
    monkeypatch.setenv("KDTOOL_DATA", "of the worker")
    return called


def test_a_command_runs_where_the_directory_is_seen(study, task, calls, capfd):
    outcome = ray_worker.run(task)
    (words, cwd, environment) = calls[0]
    assert words == ["prune", str(study / "teacher.pt"), "-o", str(study / "pruned.pt")]
    assert (cwd, environment) == (str(study.parent), {"KDTOOL_CACHE": "here"})
    assert (outcome.code, outcome.error, outcome.files) == (0, None, {})
    log = (study / "pruned.log").read_text().splitlines()
    assert log[0].startswith("pruned: on ")
    assert log[0].endswith(f"process {os.getpid()}")
    assert log[1:] == ["said", "said by a library"]
    assert capfd.readouterr() == ("", "")
    assert os.environ["KDTOOL_DATA"] == "of the worker"
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


def test_a_second_attempt_goes_on(study, task, calls):
    (study / "pruned.pt").write_text("of an attempt that made no run, and whose answer was lost")
    ray_worker.run(task)
    assert "--resume" not in calls[0][0]
    ray_worker.run(task)
    assert calls[1][0][-1] == "--resume"
    assert (study / "pruned.log").read_text().count(": on ") == 2


def test_what_failed_says_why(study, task, calls):
    outcome = ray_worker.run(replace(task, words=("fail",)))
    assert (outcome.code, outcome.error) == (1, "out of luck")


def test_an_export_leaves_what_it_prints(study, task, calls):
    ray_worker.run(replace(task, exports=True, start=replace(task.start, file="file.onnx")))
    assert calls[0][0][-1] == "--json"
    assert (study / "file.json").read_text() == "printed\n"


def test_elsewhere_files_come_and_go(study, task, calls, tmp_path):
    (study / ".ray-1").unlink()
    elsewhere = replace(
        task,
        elsewhere=("prune", "teacher.pt", "--weights=input-1/w.pth"),
        inputs=[{"teacher.pt": b"teacher", "input-1/w.pth": b"more"}],
        data=[{"mnist/images": b"images"}],
    )
    seen = []
    inner = ray_worker.kdtool

    def looking(words):
        data = Path(os.environ["KDTOOL_DATA"])
        seen.extend([Path("teacher.pt").read_bytes(), Path("input-1/w.pth").read_bytes()])
        seen.append((data / "mnist" / "images").read_bytes())
        return inner(words)

    ray_worker.kdtool = looking
    outcome = ray_worker.run(elsewhere)
    assert seen == [b"teacher", b"more", b"images"]
    words, cwd, _ = calls[0]
    assert words[:3] == ["prune", "teacher.pt", "--weights=input-1/w.pth"]
    assert not Path(cwd).exists()
    assert outcome.files.keys() == {"pruned.pt", "pruned.log", "pruned.run/metrics.jsonl"}
    assert outcome.files["pruned.pt"] == b"weights"


def test_data_that_are_on_the_machine_are_not_sent(study, task, calls, tmp_path):
    (study / ".ray-1").unlink()
    own = {"KDTOOL_DATA": str(tmp_path)}
    ray_worker.run(replace(task, elsewhere=("teacher",), inputs=[{}], data=[{"a": b""}], environment=own))
    assert calls[0][2] == own


def test_a_machine_that_joined_later_and_sees_nothing(study, task, calls):
    (study / ".ray-1").unlink()
    outcome = ray_worker.run(task)
    assert (outcome.code, calls) == (1, [])
    assert "joined the cluster after the start; run the same command again" in outcome.error


def test_kdtool_runs_in_this_process(capsys):
    before = list(sys.argv)
    assert ray_worker.kdtool(["--version"]) == 0
    assert capsys.readouterr().out.startswith("kdtool ")
    assert ray_worker.kdtool(["prune", "no-such-file.pt"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert sys.argv == before


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a.pt", True), ("a.run/cache/0.npy", False), ("a.run/lock", False), ("cache/a.run/run.json", True)],
)
def test_the_cache_of_a_run_that_failed_does_not_go_home(name, wanted):
    assert ray_worker._is_wanted(Path(name)) is wanted
