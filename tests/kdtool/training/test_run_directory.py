"""What a process that was killed at any moment leaves, and what the next call makes of it."""

import contextlib
import json
import shutil
import threading

import filelock
import pytest

import kdtool
from kdtool.cli.files import check_target
from kdtool.models.checkpoint import read
from kdtool.training import run_directory as run_directories
from kdtool.training.run_directory import BEGINS, LOCK, directory_of, run_directory

IDENTITY = {"a": 1}


def opened(output, *, force=False, resume=False):
    return run_directory(output, IDENTITY, force=force, resume=resume)


def names(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.mark.parametrize("left", [(), (LOCK,), (LOCK, ".run.json.0123abcd.77.tmp")])
@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_whose_run_never_began_begins_anew(tmp_path, left, resume):
    """A kill between the directory and the first write of run.json leaves these."""
    output = tmp_path / "s.pt"
    directory_of(output).mkdir()
    for name in left:
        (directory_of(output) / name).touch()
    with opened(output, resume=resume) as directory:
        assert not directory.finished
        assert names(directory.path) == [LOCK, "run.json"]


@pytest.mark.parametrize("how", [{"resume": True}, {"force": True}])
def test_a_folder_in_which_a_killed_process_was_exporting_goes(tmp_path, how):
    output = tmp_path / "s.pt"
    with opened(output) as directory:
        folder = directory.path / ".teacher-exported.onnx.0123abcd.77.tmp"
        folder.mkdir()
        (folder / ".teacher-exported.onnx.4567abcd.77.tmp").touch()
    with opened(output, **how) as directory:
        assert names(directory.path) == [LOCK, "run.json"]


@pytest.mark.parametrize("added", [{BEGINS: {"network": "x"}}, {"training": {"norm_decay": True}}])
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("prune", r"s\.run was begun by another release of kdtool; finish it"),
        ("distill", r'--resume needs the same command: command was "prune", now "distill"'),
    ],
)
def test_a_run_without_what_is_always_written_is_of_an_earlier_release(tmp_path, command, message, added):
    output = tmp_path / "s.pt"
    with run_directory(output, {"command": "prune", "training": {}}, force=False, resume=False):
        pass
    identity = {"command": command, "training": {}, **added}
    with (
        pytest.raises(kdtool.UsageError, match=message),
        run_directory(output, identity, force=False, resume=True),
    ):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_of_something_else_is_left_alone(tmp_path, resume):
    strange = tmp_path / "s.run"
    strange.mkdir()
    (strange / "precious").touch()
    with pytest.raises(kdtool.UsageError, match="is not a run of kdtool"), opened(tmp_path / "s.pt", resume=resume):
        pass
    assert names(strange) == ["precious"]


@pytest.mark.parametrize("left", ["precious", ".mine.tmp", None])
def test_a_link_to_something_else_is_not_taken_for_a_run(tmp_path, left):
    if left is not None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / left).touch()
    before = names(tmp_path)
    (tmp_path / "s.run").symlink_to(tmp_path / "elsewhere")
    for how in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(kdtool.UsageError, match="is not a run of kdtool"), opened(tmp_path / "s.pt", **how):
            pass
    with pytest.raises(kdtool.UsageError, match="is not a run of kdtool"):
        check_target(tmp_path / "s.pt", ".pt", force=False, resume=False)
    assert [name for name in names(tmp_path) if not name.startswith("s.run")] == before


def test_a_run_may_be_a_link_to_an_empty_folder(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "s.run").symlink_to(tmp_path / "scratch")
    check_target(tmp_path / "s.pt", ".pt", force=False, resume=False)
    with pytest.raises(kdtool.Error), opened(tmp_path / "s.pt"):
        raise kdtool.Error
    assert names(tmp_path) == ["s.run", "scratch", f"scratch/{LOCK}"]
    finished_run(tmp_path / "s.pt")
    assert names(tmp_path / "scratch") == KEPT
    with pytest.raises(kdtool.UsageError, match="holds an earlier run"):
        check_target(tmp_path / "s.pt", ".pt", force=False, resume=False)
    with opened(tmp_path / "s.pt", resume=True) as directory:
        assert directory.finished
    with opened(tmp_path / "s.pt", force=True):
        assert names(tmp_path / "scratch") == [LOCK, "run.json"]
    assert (tmp_path / "s.run").is_symlink()


def finished_run(output):
    with opened(output) as directory:
        (directory.path / "M1.pt").write_text("a model")
        (directory.path / "metrics.jsonl").write_text("{}\n")
        (directory.path / "phases" / "a").mkdir(parents=True)
        (directory.path / "phases" / "a" / "result.pt").touch()
        directory.finish()
    return directory.path


def fails_in(output, failure, work, *, resume=False):
    """Do ``work`` in a run, and then fail."""
    with opened(output, resume=resume) as directory:
        work(directory)
        raise failure


KEPT = ["M1.pt", LOCK, "metrics.jsonl", "run.json"]


def test_a_finished_run_that_fails_when_it_is_resumed_keeps_its_models(tmp_path):
    output = tmp_path / "s.pt"
    path = finished_run(output)
    for failure in (KeyboardInterrupt, kdtool.Error, SystemExit):
        with pytest.raises(failure):
            fails_in(output, failure, lambda directory: None, resume=True)
        assert names(path) == KEPT
    with pytest.raises(kdtool.Error):  # its output was removed
        fails_in(output, kdtool.Error, lambda directory: directory.reopen(), resume=True)
    assert names(path) == KEPT
    assert json.loads((path / "run.json").read_text())["finished"] is False


def test_a_new_run_that_trained_nothing_leaves_nothing_and_only_what_it_made_is_removed(tmp_path):
    with pytest.raises(kdtool.Error), opened(tmp_path / "s.pt"):
        raise kdtool.Error
    assert names(tmp_path) == []
    (tmp_path / "s.run").mkdir()  # somebody else's, and empty
    with pytest.raises(kdtool.Error), opened(tmp_path / "s.pt"):
        raise kdtool.Error
    assert [path.name for path in tmp_path.iterdir()] == ["s.run"]


@pytest.mark.parametrize("trained", ["phases/a/state.pt", "kd-last-good.pt"])
def test_a_new_run_that_trained_keeps_it(tmp_path, trained):
    def train(directory):
        (directory.path / trained).parent.mkdir(parents=True, exist_ok=True)
        (directory.path / trained).touch()

    with pytest.raises(kdtool.Error):
        fails_in(tmp_path / "s.pt", kdtool.Error, train)
    assert (tmp_path / "s.run" / trained).exists()


def test_what_a_kill_left_after_the_end_is_removed_by_the_next_call(teacher_path, tmp_path):
    options = {"method": "ikd", "iters": 1, "epochs": 1, "output": tmp_path / "s.pt"}
    kdtool.distill(teacher_path, **options)
    run = tmp_path / "s.run"
    before = names(run)
    for folder in ("phases/M1-from-M0", "cache"):
        (run / folder).mkdir(parents=True)
        (run / folder / "left.pt").touch()
    (run / ".M1.pt.0123abcd.77.tmp").touch()
    kdtool.distill(teacher_path, **options, resume=True)
    assert names(run) == before


def test_a_damaged_output_of_a_finished_run_is_refused_and_its_models_stay(teacher_path, tmp_path):
    options = {"method": "ikd", "iters": 2, "epochs": 1, "output": tmp_path / "s.pt"}
    first = kdtool.distill(teacher_path, **options)
    before = names(tmp_path / "s.run")
    content = (tmp_path / "s.pt").read_bytes()
    (tmp_path / "s.pt").write_bytes(content[:-500])
    with pytest.raises(kdtool.Error, match=r"s\.pt: truncated.*or remove it, and the same command with --resume"):
        kdtool.distill(teacher_path, **options, resume=True)
    assert names(tmp_path / "s.run") == before
    (tmp_path / "s.pt").unlink()
    again = kdtool.distill(teacher_path, **options, resume=True)
    assert again.metrics == first.metrics
    assert names(tmp_path / "s.run") == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"finished": 1}', "[" * 100_000, "\xff"])
def test_a_damaged_run_is_refused_in_one_line_and_started_again_with_force(tmp_path, content):
    output = tmp_path / "s.pt"
    path = finished_run(output)
    (path / "run.json").write_bytes(content.encode("latin1"))
    for resume in (False, True):
        with pytest.raises(kdtool.UsageError, match=r"run\.json: is damaged; start again with --force") as caught:
            opened(output, resume=resume).__enter__()
        assert "\n" not in str(caught.value)
    assert names(path) == KEPT
    with opened(output, force=True):
        assert names(path) == [LOCK, "run.json"]


class Die(BaseException):
    """Stands for a kill."""


def test_the_seconds_of_a_killed_process_count(teacher_path, tmp_path, monkeypatch):
    from kdtool.training.phase import Phase

    options = {"method": "kd", "student": "kdtool:lenet-300-100", "epochs": 2, "output": tmp_path / "s.pt"}
    save = Phase.save

    def save_then_die(self, state):
        save(self, state)
        raise Die

    monkeypatch.setattr(Phase, "save", save_then_die)
    with pytest.raises(Die):
        kdtool.distill(teacher_path, **options)
    monkeypatch.undo()
    spent = tmp_path / "s.run" / "spent.json"
    told = json.loads(spent.read_text())
    assert set(told) == {"seconds", "cpu_seconds"}
    spent.write_text(json.dumps({"seconds": 1000.0, "cpu_seconds": 500.0}))
    entry = kdtool.distill(teacher_path, **options, resume=True).history[-1]
    assert 1000 <= entry["seconds"] < 1100
    assert 500 <= entry["cpu_seconds"] < 600
    assert not spent.exists()


def test_a_damaged_state_is_trained_again_with_a_line(teacher_path, tmp_path, monkeypatch, capsys):
    from kdtool.training.phase import Phase

    options = {"method": "kd", "student": "kdtool:lenet-300-100", "epochs": 3}
    whole = kdtool.distill(teacher_path, **options, output=tmp_path / "whole.pt")
    log = Phase.save

    def save_then_die(self, state):
        log(self, state)
        raise Die

    monkeypatch.setattr(Phase, "save", save_then_die)
    with pytest.raises(Die):
        kdtool.distill(teacher_path, **options, output=tmp_path / "s.pt")
    monkeypatch.undo()
    (state,) = (tmp_path / "s.run").rglob("state.pt")
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with (tmp_path / "s.run" / "metrics.jsonl").open("a") as log_file:
        log_file.write("[1]\n")
    kdtool.distill(teacher_path, **options, output=tmp_path / "s.pt", resume=True)
    assert "phase 'kd' is trained again from its beginning" in capsys.readouterr().err
    for ours, theirs in zip(read(tmp_path / "s.pt").module.parameters(), whole.module.parameters(), strict=True):
        assert (ours == theirs).all()
    shutil.rmtree(tmp_path / "s.run")


def test_who_looks_on_for_a_moment_keeps_no_process_from_its_run(tmp_path):
    finished_run(tmp_path / "s.pt")
    looking = filelock.FileLock(tmp_path / "s.run" / LOCK, thread_local=False)
    looking.acquire()
    threading.Timer(0.2, looking.release).start()
    with opened(tmp_path / "s.pt", resume=True) as directory:
        assert directory.finished


def test_a_run_that_ends_while_another_process_waits_is_not_begun_again(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directories, "PATIENCE", 0.5)
    output, busy = tmp_path / "s.pt", r"s\.run: another process works there; wait until it ends"
    with opened(output) as first:
        with pytest.raises(kdtool.Error, match=busy), opened(output, resume=True):
            pass
        make = run_directories._make
        monkeypatch.setattr(run_directories, "_make", lambda path: (first.finish(), make(path))[1])
        monkeypatch.setattr(run_directories, "_locked", contextlib.nullcontext)
        with pytest.raises(kdtool.Error, match=busy), opened(output, resume=True):
            pass
        assert json.loads((first.path / "run.json").read_text())["finished"] is True
