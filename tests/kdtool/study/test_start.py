"""What an older command left at a command's place stays until that command starts."""

import json
import os
import shutil
import signal
import sys

import pytest

import kdtool
from kdtool.study import on_ray, places, ray_worker, runner
from kdtool.study.on_ray import OnRay
from kdtool.study.places import Exit
from kdtool.study.ray_worker import Outcome
from kdtool.study.recipe import read_recipe
from kdtool.study.record import done_already, opened
from kdtool.study.start import Start

RECIPE = """
[matrix]
seed = [0, 1, 2, 3]
[[step]]
name = "teacher"
run = "teacher {seed}"
"""
NAMES = [f"teacher_seed={seed}" for seed in range(4)]
CHANGED = RECIPE.replace("{seed}", "{seed} --typo")

# The stand-in for kdtool is interrupted as a person would do it, at once.
INTERRUPTED = "import os, signal; os.kill(os.getppid(), signal.SIGINT); import time; time.sleep(60)"


def _content(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "recipe.study").glob("*.pt")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_leaves_the_results_of_what_has_not_started(jobs, stand_in, run, tmp_path, monkeypatch):
    made = run(RECIPE)["rows"]
    before = _content(tmp_path)
    stand_in()
    with monkeypatch.context() as patched:
        patched.setattr(places, "KDTOOL", (sys.executable, "-S", "-c", INTERRUPTED))
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
        with pytest.raises(KeyboardInterrupt):
            run(CHANGED, jobs=jobs)
        signal.signal(signal.SIGINT, handler)
    kept = _content(tmp_path)
    assert kept == {name: before[name] for name in kept}
    assert set(NAMES[jobs:]) <= {name.removesuffix(".pt") for name in kept}
    so_far = json.loads((tmp_path / "recipe.study" / "results.json").read_text())
    assert (so_far["rows"], so_far["not_run"]) == ([], NAMES)

    # With the old recipe, what is there is done; with the new one, it is not taken for the new one's.
    assert [row for row in run(RECIPE)["rows"] if row["name"] in NAMES[jobs:]] == made[jobs:]
    assert all(f"-o {name}.pt" not in line for line in stand_in() for name in NAMES[jobs:])
    run(CHANGED)
    assert len(stand_in()) == 4


def test_what_is_done_already_is_known_without_running_or_writing(stand_in, run, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    assert done_already(read_recipe(recipe)) == set()
    assert not (tmp_path / "recipe.study").exists()
    step = '[[step]]\nname = "pruned"\nfrom = "teacher"\nrun = "prune"\n'
    run(RECIPE + step)
    recorded = (tmp_path / "recipe.study" / "study.json").read_bytes()
    (tmp_path / "recipe.study" / f"{NAMES[1]}.pt").unlink()
    recipe.write_text(RECIPE + step.replace('"prune"', '"prune --more"'))
    assert done_already(read_recipe(recipe)) == {NAMES[0], *NAMES[2:]}
    recipe.write_text(RECIPE + step)
    left = {NAMES[0], *NAMES[2:]}
    assert done_already(read_recipe(recipe)) == left | {name.replace("teacher", "pruned") for name in left}
    assert (tmp_path / "recipe.study" / "study.json").read_bytes() == recorded


class Future:
    """A task of a cluster that has ended."""

    def __init__(self, outcome):
        self.outcome = outcome

    def exception(self):
        return self.outcome if isinstance(self.outcome, Exception) else None

    def result(self):
        return self.outcome


class Cluster:
    """A cluster that runs at most so many tasks, each at once in this process, and loses the others."""

    at_once = 1

    def __init__(self, most):
        self.most = most

    def put(self, value):
        return value

    def on_each_machine(self, function, *arguments):
        return [function(*arguments)]

    def submit(self, function, task):
        self.most -= 1
        return Future(function(task) if self.most >= 0 else RuntimeError("lost"))

    def stop(self):
        pass


@pytest.fixture
def on_cluster(run, stand_in, monkeypatch, teacher_path):
    """Run a recipe on a cluster that runs ``most`` tasks; return the results."""

    def kdtool(words):
        target = words[words.index("-o") + 1]
        os.makedirs(target[:-3] + ".run", exist_ok=True)
        shutil.copy(teacher_path, target)
        with open(target, "ab") as file:
            file.write(os.urandom(4))
        return 0

    monkeypatch.setattr(ray_worker, "kdtool", kdtool)
    monkeypatch.setattr(on_ray, "why", str)
    monkeypatch.setattr(runner, "wait", lambda running, return_when: type("Done", (), {"done": list(running)}))

    def run_it(text, most):
        monkeypatch.setattr(runner, "Local", lambda record, jobs: OnRay(record, Cluster(most)))
        return run(text)

    return run_it


def test_on_a_cluster_the_worker_removes_them(on_cluster, tmp_path):
    made = on_cluster(RECIPE, 4)["rows"]
    before = _content(tmp_path)
    result = on_cluster(CHANGED, 1)
    assert [row["name"] for row in result["rows"]] == NAMES[:1]
    assert [(row["name"], row["error"]) for row in result["failed"]] == [(name, "lost") for name in NAMES[1:]]
    after = _content(tmp_path)
    assert [name for name in sorted(before) if before[name] != after[name]] == [f"{NAMES[0]}.pt"]
    assert not list((tmp_path / "recipe.study").glob("*.begun"))
    assert on_cluster(RECIPE, 1)["rows"][1:] == made[1:]
    assert [row["name"] for row in on_cluster(CHANGED, 4)["rows"]] == NAMES


def test_a_study_that_was_killed_on_a_cluster_knows_what_began(stand_in, run, tmp_path):
    run(RECIPE)
    directory = tmp_path / "recipe.study"
    entry = {"told": {"command": ["teacher", "0", "--typo"], "inputs": {}}, "status": "begun"}
    start = Start(NAMES[0], f"{NAMES[0]}.pt", False, entry)
    start.begin_in(directory)
    assert not (directory / f"{NAMES[0]}.pt").exists()
    run_of_it = directory / f"{NAMES[0]}.run"
    assert not run_of_it.exists()
    run_of_it.mkdir()
    start.begin_in(directory)  # the second attempt of a task whose worker was lost
    assert run_of_it.exists()
    (directory / f"{NAMES[1]}.begun").write_text("{")

    assert kdtool.watch(directory)["begun"] == NAMES[:1]  # also while it runs
    with opened(directory) as record:
        assert record.commands[NAMES[0]] == entry
        assert record.commands[NAMES[1]]["status"] == "done"
    assert not list(directory.glob("*.begun"))
    stand_in()
    run(CHANGED)
    assert [line.endswith("--resume") for line in stand_in()] == [True, False, False, False]

    start.begin_in(directory)
    with opened(directory, force=True) as record:
        assert record.commands == {}
    assert not list(directory.glob("*.begun"))


def test_what_was_made_elsewhere_takes_the_place_of_an_older_result_when_it_is_home(stand_in, run, tmp_path):
    pytest.importorskip("ray")
    run(RECIPE)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(CHANGED)
    (first, second, *_) = read_recipe(recipe).commands
    directory = tmp_path / "recipe.study"
    left = directory / f"{first.name}.run" / "metrics.jsonl"
    left.touch()
    with opened(directory) as record:
        place = OnRay(record, Cluster(0))
        futures = [place.submit(command) for command in (first, second)]
        assert left.exists()
        files = {first.file: b"new", f"{first.name}.log": b""}
        ended = place.ended(first, Future(Outcome(0, 1.0, None, files)))
        assert ended == Exit(0, 1.0)
        assert (directory / first.file).read_bytes() == b"new"
        assert not left.exists()
        assert record.commands[first.name]["status"] == "begun"
        assert place.ended(second, futures[1]).began is False
        assert record.commands[second.name]["status"] == "done"


def test_a_folder_of_a_checkpoint_goes_to_a_machine_that_does_not_see_it(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "_mark", lambda directory: directory / "no" / "such")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").mkdir()
    for name in ("kdtool.json", "model.safetensors", "README.md"):
        (tmp_path / "hub" / name).write_text(name)
    (tmp_path / "recipe.toml").write_text('[[step]]\nname = "own"\nrun = "prune ./hub/ --weights=hub/README.md"\n')
    (command,) = read_recipe(tmp_path / "recipe.toml").commands
    with opened(tmp_path / "recipe.study") as record:
        task = OnRay(record, Cluster(0))._task(command, record.start(command))
    assert task.elsewhere == ("prune", "input-0/hub", "--weights=input-1/README.md")
    sent = {f"input-0/hub/{name}": name.encode() for name in ("kdtool.json", "model.safetensors")}
    assert task.inputs == [{**sent, "input-1/README.md": b"README.md"}]


@pytest.mark.parametrize(
    ("command", "left"), [("compress", ["b-int8.onnx"]), ("distill", ["a-int8.onnx", "b-int8.onnx"])]
)
def test_the_file_in_8_bits_of_a_compression_is_removed_with_its_checkpoint(tmp_path, command, left):
    for name in ("a.pt", "a.log", "a-int8.onnx", "b-int8.onnx"):
        (tmp_path / name).touch()
    entry = {"told": {"command": [command, "t.pt"]}, "status": "begun"}
    Start("a", "a.pt", True, entry).clear(tmp_path)
    assert len([*tmp_path.iterdir()]) == 4
    Start("a", "a.pt", False, entry).clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
