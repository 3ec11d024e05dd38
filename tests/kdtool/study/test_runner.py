"""Studies whose commands are run by a stand-in for kdtool, which copies a checkpoint."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest

import kdtool
from kdtool.errors import Error, UsageError
from kdtool.models.checkpoint import read, write
from kdtool.study import places
from kdtool.study.record import opened
from kdtool.utils.kinds import DESCRIPTION, TENSORS, WEIGHTS

RECIPE = """
[matrix]
seed = [0, 1]
ratio = [0.5, 0.8]
[[step]]
name = "teacher"
run = "teacher {seed}"
[[step]]
name = "pruned"
from = "teacher"
run = "prune {ratio}"
[[step]]
name = "again"
from = "pruned"
run = "prune"
"""


def test_what_is_done_is_not_done_again(stand_in, run, tmp_path, teacher_path, capsys):
    result = run(RECIPE)
    calls = stand_in()
    assert len(calls) == 10
    assert calls[0] == "teacher 0 -o teacher_seed=0.pt"
    assert "prune teacher_seed=1.pt 0.8 -o pruned_seed=1_ratio=0.8.pt" in calls
    assert (result["failed"], result["not_run"]) == ([], [])
    assert [row["name"] for row in result["rows"]][:3] == [
        "teacher_seed=0",
        "teacher_seed=1",
        "pruned_seed=0_ratio=0.5",
    ]
    row = result["rows"][2]
    assert row["values"] == {"seed": 0, "ratio": 0.5}
    assert row["accuracy"] == kdtool.load(teacher_path).metric("test", "accuracy")
    assert row["parameters"] == kdtool.inspect(teacher_path)["parameters"]
    assert json.loads((tmp_path / "recipe.study" / "results.json").read_text()) == result
    stderr = capsys.readouterr().err
    assert re.search(r"\[10/10\] again_seed=1_ratio=0.8: \d s\n", stderr)
    assert re.search(r"\[1/10\] teacher_seed=0: \d s; about \d+ s left\n", stderr)

    assert run(RECIPE)["rows"] == result["rows"]
    assert stand_in() == []


def test_a_changed_recipe_redoes_what_changed_and_what_comes_from_it(stand_in, run):
    run(RECIPE)
    stand_in()
    result = run(RECIPE.replace("[0.5, 0.8]", "[0.5, 0.9]").replace("seed = [0, 1]", "seed = [0]"))
    assert [line.split(" -o ")[1] for line in stand_in()] == ["pruned_seed=0_ratio=0.9.pt", "again_seed=0_ratio=0.9.pt"]
    assert len(result["rows"]) == 5

    run(RECIPE.replace("prune {ratio}", "prune {ratio} --hard"))
    assert len(stand_in()) == 8
    run(RECIPE.replace("prune {ratio}", "prune {ratio} --hard"), force=True)
    assert len(stand_in()) == 10


def test_a_changed_file_is_made_again(stand_in, run, tmp_path, teacher_path, monkeypatch):
    recipe = RECIPE.replace("teacher {seed}", f"teacher {{seed}} --weights={tmp_path / 'w.pth'}")
    (tmp_path / "w.pth").write_text("weights")
    run(recipe)
    stand_in()
    pruned, again = (tmp_path / "recipe.study" / f"{name}_seed=0_ratio=0.5.pt" for name in ("pruned", "again"))
    pruned.write_bytes(b"something else")
    (tmp_path / "recipe.study" / "again_seed=1_ratio=0.8.pt").unlink()
    run(recipe)
    # A command after it is not run again, since its input has the same weights as before.
    made = sorted(line.split(" -o ")[1] for line in stand_in())
    assert made == ["again_seed=1_ratio=0.8.pt", "pruned_seed=0_ratio=0.5.pt"]
    other = read(teacher_path)
    next(other.module.parameters()).data += 1
    write(tmp_path / "other.pt", other)
    monkeypatch.setenv("CHECKPOINT", str(tmp_path / "other.pt"))
    pruned.unlink()
    run(recipe)
    assert [line.split(" -o ")[1] for line in stand_in()] == [pruned.name, again.name]
    (tmp_path / "w.pth").write_text("others")
    run(recipe)
    assert len(stand_in()) == 10


def test_what_had_not_started_is_done_when_a_change_is_taken_back(stand_in, run, tmp_path):
    recipe = RECIPE.replace("seed = [0, 1]", "seed = [0]")
    run(recipe)
    stand_in()
    assert len(run(recipe.replace("teacher {seed}", "teacher {seed} fail"))["not_run"]) == 4
    stand_in()
    assert len(run(recipe)["rows"]) == 5
    assert stand_in() == ["teacher 0 -o teacher_seed=0.pt"]

    # An earlier release recorded the hash of the file alone.
    record = tmp_path / "recipe.study" / "study.json"
    content = json.loads(record.read_text())
    made = {f"{name}.pt": entry["made"] for name, entry in content["commands"].items()}
    for entry in content["commands"].values():
        del entry["content"]
        entry["told"]["inputs"] = {name: made[name] for name in entry["told"]["inputs"]}
    record.write_text(json.dumps(content))
    assert len(run(recipe)["rows"]) == 5
    assert stand_in() == []


def test_a_changed_file_of_a_network_of_ones_own_is_noticed(stand_in, run, tmp_path):
    source = tmp_path / "net.py"
    source.write_text("one")
    recipe = f'[[step]]\nname = "own"\nrun = "teacher {source}:Small"\n'
    run(recipe)
    assert len(stand_in()) == 1
    run(recipe)
    assert stand_in() == []
    source.write_text("another")
    run(recipe)
    assert len(stand_in()) == 1


def test_a_changed_folder_of_a_checkpoint_is_noticed(stand_in, run, tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    for name in (DESCRIPTION, WEIGHTS, TENSORS):
        (folder / name).write_text("one")
    recipe = f'[[step]]\nname = "own"\nrun = "prune {folder}/"\n'
    run(recipe)
    assert len(stand_in()) == 1
    (folder / "README.md").write_text("it is no part of the checkpoint")
    run(recipe)
    assert stand_in() == []
    for name in (DESCRIPTION, WEIGHTS, TENSORS):
        (folder / name).write_text("another")
        run(recipe)
        assert len(stand_in()) == 1


def test_a_failing_command_does_not_lose_the_others(stand_in, run, tmp_path, capsys):
    recipe = RECIPE.replace("[0.5, 0.8]", '[0.5, "fail"]')
    result = run(recipe, jobs=3)
    names = [f"seed={seed}_ratio=fail" for seed in (0, 1)]
    assert [row["name"] for row in result["failed"]] == [f"pruned_{name}" for name in names]
    assert {row["error"] for row in result["failed"]} == {"out of luck"}
    assert "a warning" in Path(result["failed"][0]["log"]).read_text()
    assert result["not_run"] == [f"again_{name}" for name in names]
    assert len(result["rows"]) == 6
    assert len(stand_in()) == 8
    assert "failed: out of luck" in capsys.readouterr().err

    (tmp_path / "calls.mended").write_text("")
    assert run(recipe)["failed"] == []
    # The runs that had begun are resumed.
    assert [line.split(" ")[-1] for line in stand_in()] == ["--resume", "--resume"] + [
        f"again_{name}.pt" for name in names
    ]


def test_a_command_that_breaks_off_without_a_word(stand_in, run, monkeypatch):
    monkeypatch.setattr(places, "KDTOOL", (sys.executable, "-c", "import sys; sys.exit(3)"))
    result = run(RECIPE)
    assert [row["error"] for row in result["failed"]] == ["ended with exit code 3"] * 2
    assert len(result["not_run"]) == 8
    monkeypatch.setattr(places, "KDTOOL", (sys.executable, "-c", ""))
    assert "no such file" in run(RECIPE)["failed"][0]["error"].lower()


@pytest.mark.slow
def test_what_was_cut_goes_on_and_the_other_command_does_not(stand_in, run, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("seed = [0, 1]", "seed = [0]").replace("prune {ratio}", "prune {ratio} slow"))
    code = (
        f"from kdtool.study import places, runner; places.KDTOOL = {places.KDTOOL!r}; "
        f"runner.run_study({str(path)!r}, jobs=2)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    directory = tmp_path / "recipe.study"
    try:
        deadline = time.monotonic() + 60
        while len(list(directory.glob("pruned*.run"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        killed.send_signal(signal.SIGINT)
    assert killed.wait(30) != 0
    assert [line.split()[0] for line in stand_in()] == ["teacher", "prune", "prune"]

    # Commands that had begun with the same words are resumed; otherwise the stand-in would sleep.
    result = run(path.read_text())
    assert len(result["rows"]) == 5
    assert [line.endswith("--resume") for line in stand_in() if " slow " in line] == [True] * 2

    assert len(run(RECIPE.replace("prune {ratio}", "prune {ratio} --other"))["rows"]) == 10
    assert not any(line.endswith("--resume") for line in stand_in())


def test_a_directory_of_something_else_is_left_alone(stand_in, run, tmp_path):
    (tmp_path / "recipe.study").mkdir()
    (tmp_path / "recipe.study" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not a study of kdtool"):
        run(RECIPE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "study.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        run(RECIPE, output=tmp_path / "other")
    with pytest.raises(UsageError, match="cannot be created"):
        run(RECIPE, output=tmp_path / "no" / "such")
    assert stand_in() == []


def test_one_process_runs_a_study(stand_in, run, tmp_path):
    with opened(tmp_path / "recipe.study"), pytest.raises(Error, match="another process runs this study"):
        run(RECIPE)


def test_a_process_whose_study_was_killed_is_waited_for(stand_in, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdtool.study.record.PATIENCE", 0.1)
    run(RECIPE)
    held, ended = threading.Event(), []

    def still_at_work():
        with filelock.FileLock(tmp_path / "recipe.study" / "teacher_seed=0.run" / "lock"):
            held.set()
            time.sleep(0.5)
            ended.append(stand_in())

    thread = threading.Thread(target=still_at_work)
    thread.start()
    held.wait()
    assert run(RECIPE.replace("teacher {seed}", "teacher {seed} --other"))["failed"] == []
    thread.join()
    assert not any("teacher_seed=0.pt" in line for line in ended[0][10:])
    assert (
        "teacher_seed=0.run: a process of an earlier study still works there; waiting for it" in capsys.readouterr().err
    )


def test_comparisons_are_made_for_all_values_and_kept(stand_in, run, monkeypatch):
    from kdtool.commands import compare

    compared = []
    real = compare.compare
    monkeypatch.setattr(compare, "compare", lambda *paths: compared.append([p.stem for p in paths]) or real(*paths))
    text = RECIPE + '[[compare]]\nof = ["teacher", "pruned", "again"]\n[[compare]]\nof = ["again", "teacher"]\n'
    result = run(text)
    assert compared[0] == ["teacher_seed=0", "pruned_seed=0_ratio=0.5", "again_seed=0_ratio=0.5"]
    pairs = [(row["a"], row["b"], row["values"]) for row in result["comparisons"]]
    assert len(pairs) == 16
    assert pairs[1] == ("teacher", "again", {"seed": 0, "ratio": 0.5})
    assert {row["classified_differently"] for row in result["comparisons"]} == {0}
    assert {row["seeds"] for row in result["comparison_means"]} == {2}
    del compared[:]
    assert run(text)["comparisons"] == result["comparisons"]
    assert compared == []


def test_an_export_gives_a_row_with_its_latency(stand_in, run, tmp_path, monkeypatch):
    costs = {
        **{"parameters": 10, "nonzero": 9, "macs": 8, "compression": 2.0, "file_bytes": 7, "gzip_bytes": 5},
        "accuracy": {"split": "test", "accuracy": 0.75, "error": 0.25},
        "latency": {"student": {"p50_ms": 1.5}, "ratio": 0.5},
    }
    monkeypatch.setenv("COSTS", json.dumps(costs))
    step = '[[step]]\nname = "file"\nfrom = "pruned"\nrun = "export"\n'
    result = run(RECIPE + step)
    assert "export pruned_seed=0_ratio=0.5.pt -o file_seed=0_ratio=0.5.onnx --json" in stand_in()
    assert (result["failed"], result["not_run"]) == ([], [])
    (row, *_) = [row for row in result["rows"] if row["step"] == "file"]
    sizes = {"file_bytes": 7, "gzip_bytes": 5, "macs": 8}
    expected = {"accuracy": 0.75, "error": 0.25, "latency_ms": 1.5, "latency_ratio": 0.5, **sizes}
    assert {name: row[name] for name in expected} == expected
    assert row["checkpoint"].endswith("file_seed=0_ratio=0.5.onnx")
    (mean, *_) = [mean for mean in result["means"] if mean["step"] == "file"]
    assert (mean["latency_ratio"], mean["seeds"]) == (0.5, 2)
    assert run(RECIPE + step)["rows"] == result["rows"]
    assert stand_in() == []


def test_an_export_that_prints_no_costs_failed(stand_in, run, monkeypatch):
    monkeypatch.setenv("COSTS", "oh no")
    text = '[[step]]\nname = "teacher"\nrun = "teacher"\n[[step]]\nname = "file"\nfrom = "teacher"\nrun = "export"\n'
    result = run(text)
    assert [row["name"] for row in result["failed"]] == ["file"]
    assert "file.json: is damaged or missing" in result["failed"][0]["error"]
