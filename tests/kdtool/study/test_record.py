"""What a study remembers of runs that were begun: which of them go on, and how long all their processes took."""

import json
import threading

import filelock
import pytest

import kdtool
from kdtool.errors import Error
from kdtool.models.checkpoint import read, write
from kdtool.study.record import opened, wait_for
from kdtool.study.start import refusal
from kdtool.training import phase
from kdtool.training.phase import Phase
from kdtool.training.run_directory import run_directory

ONE = '[[step]]\nname = "one"\nrun = "teacher {}"\n'
DATA = {"splits": {"train": {"images": 1, "hash": "0" * 32}}}


def _other_command(tmp_path):
    _in_run(tmp_path, {"training": {"lr": 2}})


def _other_images(tmp_path):
    _in_run(tmp_path, {"data": {"splits": {"train": {"images": 2, "hash": "1" * 32}}}})


def _in_run(tmp_path, changes):
    about = {"command": "teacher", "training": {"lr": 1}, "data": DATA}
    for identity, resume in ((about, False), ({**about, **changes}, True)):
        with run_directory(tmp_path / "one.pt", identity, force=False, resume=resume):
            (tmp_path / "one.run" / "phases").mkdir(exist_ok=True)


def _other_release(tmp_path):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(phase, "FORMAT", -1)
        _phase(tmp_path, "key").save_result({})
    _phase(tmp_path, "key").load_result()


def _other_teacher(tmp_path):
    _phase(tmp_path, "key").save_result({})
    _phase(tmp_path, "other").load_result()


def _phase(tmp_path, key):
    return Phase(tmp_path, "a", key, lambda row: None)


def _damaged_run(tmp_path):
    (tmp_path / "one.run").mkdir()
    (tmp_path / "one.run" / "run.json").write_text("{")
    _in_run(tmp_path, {})


def _damaged_checkpoint(tmp_path):
    """The run of a teacher is finished, but its file was damaged afterwards."""
    settings = {"name": "kdtool:lenet-300-100", "data": "digits", "epochs": 0, "output": tmp_path / "one.pt"}
    kdtool.teacher(**settings)
    (tmp_path / "one.pt").write_bytes(b"damaged")
    kdtool.teacher(**settings, resume=True)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (_other_command, "one.run: --resume needs the same command: training.lr was 1, now 2"),
        (_other_images, "one.run: --resume needs the same images: train: 2 images, 1 before"),
        (_other_release, ": phase 'a' was begun by another release of kdtool"),
        (_other_teacher, ": phase 'a' was begun with another teacher, student or options"),
        (_damaged_run, "run.json: is damaged"),
        (_damaged_checkpoint, None),
    ],
)
def test_a_study_knows_the_errors_of_runs_that_cannot_be_resumed(refused, reason, tmp_path):
    with pytest.raises(Error) as caught:
        refused(tmp_path)
    found = refusal(str(caught.value))
    assert found is not None
    assert reason is None or found.endswith(reason)
    assert "--force" not in found
    assert "--resume trains again" not in found


def test_the_way_out_is_no_part_of_the_reason():
    ways = ("start again with --force", "name another output with -o, or start again with --force")
    assert {refusal(f"one.run: lr was 1, now 2; epochs was 3, now 4; {way}") for way in ways} == {
        "one.run: lr was 1, now 2; epochs was 3, now 4"
    }


def test_other_errors_are_no_refusals():
    assert refusal("the loss is not finite; the weights of epoch 2 are kept in one-last-good.pt") is None
    assert refusal(None) is None


def test_what_refuses_to_go_on_begins_anew_at_once(stand_in, run, tmp_path, capsys):
    assert len(run(ONE.format("fail stale"))["failed"]) == 1
    (tmp_path / "calls.mended").touch()
    stand_in()
    assert run(ONE.format("fail stale"))["failed"] == []
    assert [line.endswith("--resume") for line in stand_in()] == [True, False]
    assert "one: cannot go on, so it begins anew: x.run: phase 'a' was begun by another release\n" in (
        capsys.readouterr().err
    )


def test_a_run_of_which_a_part_was_removed_begins_anew(stand_in, run, tmp_path, capsys):
    """A kill while the study removes a run may leave it without run.json, which no command resumes."""
    run(ONE.format("fail"))
    (tmp_path / "recipe.study" / "one.run" / "metrics.jsonl").touch()
    (tmp_path / "calls.mended").touch()
    stand_in()
    run(ONE.format("fail"))
    assert stand_in() == ["teacher fail -o one.pt"]
    assert "one.run: a part of it was removed" in capsys.readouterr().err


def test_the_seconds_of_a_row_are_those_of_all_processes(stand_in, run, tmp_path, teacher_path, monkeypatch):
    directory = tmp_path / "recipe.study" / "one.run"
    spent = directory / "spent.json"
    run(ONE.format("fail"))
    (directory / "run.json").write_text('{"finished": false}')
    spent.write_text(json.dumps({"seconds": 1000.0, "cpu_seconds": 1.0}))  # of a study that was killed
    run(ONE.format("fail"))
    spent.unlink()
    (tmp_path / "calls.mended").touch()
    [row] = run(ONE.format("fail"))["rows"]
    assert 1000 <= row["seconds"] < 1100

    # Of a run that was finished before its study was killed, only the checkpoint tells it.
    checkpoint = read(teacher_path)
    checkpoint.history[-1]["seconds"] = 5000.0
    write(tmp_path / "long.pt", checkpoint)
    monkeypatch.setenv("CHECKPOINT", str(tmp_path / "long.pt"))
    [row] = run(ONE.format("again"))["rows"]
    assert row["seconds"] == 5000


def test_what_begins_anew_does_not_count_what_it_threw_away(stand_in, run, tmp_path):
    directory = tmp_path / "recipe.study" / "one.run"
    run(ONE.format("fail stale"))
    (directory / "run.json").write_text('{"finished": false}')
    (directory / "spent.json").write_text('{"seconds": 1000.0, "cpu_seconds": 1.0}')
    (tmp_path / "calls.mended").touch()
    [row] = run(ONE.format("fail stale"))["rows"]
    assert row["seconds"] < 100


def test_who_looks_on_for_a_moment_keeps_nobody_from_a_study_or_a_run(tmp_path, capsys):
    def looking():
        lock = filelock.FileLock(tmp_path / "lock", thread_local=False)
        lock.acquire()
        threading.Timer(0.2, lock.release).start()

    looking()
    with opened(tmp_path):
        pass
    looking()
    wait_for(tmp_path)
    assert capsys.readouterr().err == ""
