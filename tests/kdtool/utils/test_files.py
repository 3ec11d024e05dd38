"""Scratch folders beside an output leave nothing behind."""

import os
import subprocess
import sys

import pytest

from kdtool.errors import Error, UsageError
from kdtool.utils import files
from kdtool.utils.files import atomic, check_output, scratch_folder, temporary_folder


def test_the_next_call_removes_the_folder_of_a_killed_process(tmp_path):
    child = os.fork() if hasattr(os, "fork") else pytest.skip("a process is forked")
    if child == 0:
        with scratch_folder(tmp_path / "o.onnx") as folder:
            (folder / "weights").write_text("x")
            os._exit(0)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".o.onnx.")
    with scratch_folder(tmp_path / "other.onnx"):
        assert left.exists()  # of another output
    with scratch_folder(tmp_path / "o.onnx") as folder, scratch_folder(tmp_path / "o.onnx") as second:
        assert {*tmp_path.iterdir()} == {folder, second}
        with atomic(tmp_path / "o.onnx") as file:
            file.write_text("x")
        assert folder.exists()  # of a process that lives
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]


def test_a_link_that_somebody_put_there_is_not_written_through(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    name = f"{files._machine()}.{os.getpid()}.tmp"
    (tmp_path / f".q.pt.{name}").symlink_to(victim)
    files.write_text(tmp_path / "q.pt", "x")
    assert not (tmp_path / "q.pt").is_symlink()
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".r.pt.00000000.{name}").symlink_to(victim)
    with pytest.raises(Error, match=r"r\.pt: cannot be written: File exists"):
        files.write_text(tmp_path / "r.pt", "x")
    assert victim.read_text() == "mine"


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("x")
    files.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_an_error_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="wrong"), scratch_folder(tmp_path / "o.onnx"):
        raise ValueError("wrong")
    assert [*tmp_path.iterdir()] == []


def test_names_where_the_names_of_files_are_not_utf_8(tmp_path):
    code = "import sys, kdtool.utils.files as f, pathlib; f.write_text(pathlib.Path(sys.argv[1]), 'x')"
    path = tmp_path / "m\u00f6del.txt"
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-P", "-c", code, path], check=True, env=ascii_only)
    assert path.read_text() == "x"


def test_a_link_to_nothing_is_not_replaced_without_a_word(tmp_path):
    link = tmp_path / "s.pt"
    link.symlink_to(tmp_path / "disk" / "s.pt")
    with pytest.raises(UsageError, match=r"s\.pt: is a link to .*/disk/s\.pt, which is not there; name that file"):
        check_output(link, force=False)
    check_output(link, force=True)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "s.pt").touch()
    with pytest.raises(UsageError, match="exists already"):
        check_output(link, force=False)


def test_a_temporary_folder_of_a_killed_process_goes_and_that_of_another_user_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for left in ("one", "two"):  # no process has this number
        (tmp_path / f".kdtool-x.{left}.{files._machine()}.999999999.tmp" / "logs").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: -1)
        with temporary_folder("kdtool-x"):
            assert len([*tmp_path.iterdir()]) == 3
    with temporary_folder("kdtool-x") as folder:
        assert [*tmp_path.iterdir()] == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
    assert [*tmp_path.iterdir()] == []


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_the_name_is_too(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(("sync", os.fstat(file).st_ino)) or sync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append(("rename",)) or replace(*paths))
    files.write_text(tmp_path / "a.json", "x")
    file, folder = (path.stat().st_ino for path in (tmp_path / "a.json", tmp_path))
    assert calls == [("sync", file), ("rename",), ("sync", folder)]
