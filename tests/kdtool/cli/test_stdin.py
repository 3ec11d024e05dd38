from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdtool.cli import stdin
from kdtool.errors import Error, UsageError

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]


def test_a_path_comes_through_a_pipe(api: Any, run: Run) -> None:
    result = run("prune --ratio 0.8", stdin="student.pt\n")

    assert result.exit_code == 0, result.output
    assert result.stdout == "student-magnitude.pt\n"


def test_a_reporting_command_takes_every_line(api: Any, run: Run) -> None:
    assert run("evaluate", stdin="student.pt\n\n  teacher.pt \n").exit_code == 0
    assert api.calls[-1][1] == (Path("student.pt"), Path("teacher.pt"))
    assert run("compare teacher.pt", stdin="student.pt\n").exit_code == 0
    assert api.calls[-1][1] == (Path("teacher.pt"), Path("student.pt"))


def test_a_pipe_is_left_alone_where_a_checkpoint_is_named(api: Any, run: Run) -> None:
    assert run("prune student.pt", stdin="teacher.pt\n").exit_code == 0
    assert api.calls[-1][1][0] == Path("student.pt")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", 1, "the pipe was closed without a path: the command before it failed"),
        ("\n \n", 1, "the pipe was closed without a path"),
        ("gone.pt\n", 2, "gone.pt: there is no such file"),
    ],
)
def test_what_came_through_is_checked(api: Any, fails: Fails, text: str, code: int, message: str) -> None:
    assert fails("prune", code, text).startswith(message)


def test_two_are_too_many_for_what_takes_one(api: Any, fails: Fails) -> None:
    message = "refine takes one checkpoint, not 2: student.pt, teacher.pt"
    assert fails("refine", 2, "student.pt\nteacher.pt\n") == message


def test_what_is_no_pipe_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as devnull:
        for stream in (devnull, None):
            monkeypatch.setattr("sys.stdin", stream)
            with pytest.raises(UsageError, match="say where"):
                stdin.piped_paths("say where")


def test_a_file_is_read_as_a_pipe_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paths").write_text("a.pt\n")
    with open(tmp_path / "paths") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert stdin.piped_paths("") == (Path("a.pt"),)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the latter in the locale C
def test_bytes_of_a_file_are_no_path(monkeypatch: pytest.MonkeyPatch, errors: str) -> None:
    file = io.BytesIO(b"PK\x03\x04\x00\xff\xfe")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file, encoding="utf-8", errors=errors))

    with pytest.raises(Error, match="pipe the path of a checkpoint, not the file itself"):
        stdin.piped_paths("")


def test_it_is_said_when_a_pipe_takes_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stdin, "NOTICE_AFTER", 0.01)
    reading, writing = os.pipe()
    threading.Timer(0.2, lambda: (os.write(writing, b"a.pt\n"), os.close(writing))).start()
    with open(reading) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        assert stdin.piped_paths("") == (Path("a.pt"),)

    assert capsys.readouterr().err == "waiting for a path on stdin\n"
