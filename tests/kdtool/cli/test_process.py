"""Whatever surrounds the process, it ends with its result and code 0, or with one line and another code."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from kdtool.cli import launcher
from kdtool.cli.main import cli
from kdtool.cli.process import SIGNALS, Stopped, exhausted, exit_code_of, wait_briefly

KDTOOL = shlex.join([sys.executable, "-m", "kdtool"])


def shell(line, **variables):
    """Return the exit code, stdout and stderr of a line for bash in which ``kdtool`` stands for the command."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        ["bash", "-c", line.replace("kdtool", KDTOOL, 1)], capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", ["--help", "--version", "plugins --json"])
def test_a_result_that_cannot_be_printed_is_no_success(words):
    assert shell(f"kdtool {words} > /dev/full") == (
        1,
        "",
        "Error: stdout: the result cannot be written: No space left on device\n",
    )
    code, _, err = shell(f"kdtool {words} >&-")
    assert (code, err) == (
        1,
        "Error: stdout is closed, so no result can be printed; redirect it to a file or to /dev/null\n",
    )


@pytest.fixture(scope="module")
def listed():
    """What ``kdtool plugins`` prints."""
    return shell("kdtool plugins")[1]


@pytest.mark.parametrize("redirection", [pytest.param("2>&-", marks=pytest.mark.slow), "2>/dev/full", "<&- 2>&-"])
def test_messages_that_nobody_can_read_change_nothing(redirection, listed):
    code, out, _ = shell(f"kdtool plugins {redirection}")
    assert code == 0
    assert out == listed
    code, out, _ = shell(f"kdtool inspect /no/such/file {redirection}")
    assert (code, out) == (2, "")


def test_a_closed_stream_is_not_the_place_of_the_next_file(tmp_path):
    """Without care the first file that is opened gets the number of stderr, and what libraries print there."""
    script = (
        "import os; from kdtool.cli.process import check_streams; check_streams(); "
        f"file = open({str(tmp_path / 'precious')!r}, 'w'); os.write(2, b'noise'); print(file.fileno())"
    )
    done = subprocess.run(["bash", "-c", f"{sys.executable} -c {shlex.quote(script)} 2>&-"], capture_output=True)
    assert int(done.stdout) > 2
    assert (tmp_path / "precious").read_bytes() == b""


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        *(pytest.param(other, marks=pytest.mark.slow) for other in ({"LC_ALL": "C"}, {"PYTHONUTF8": "0"})),
    ],
)
def test_characters_that_the_terminal_lacks(variables, tmp_path):
    code, out, err = shell("kdtool plugins", **variables)
    assert (code, err) == (0, "")
    assert "distiller" in out
    name = os.fsencode(str(tmp_path)) + b"/caf\xe9-\xff.pt"
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"kdtool", b"inspect", name], capture_output=True, env=os.environ | variables
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"Error: ")


def test_a_folder_that_was_removed_is_said_in_one_line(tmp_path, teacher_path):
    """MKL ends the process there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code, out, err = shell(f"cd {gone}; rmdir {gone}; kdtool inspect {teacher_path}")
    assert (code, out, err) == (1, "", "Error: the current folder was removed; go to another one\n")


def test_a_foreign_directory_without_home_or_rights(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    bare = f"env -i PATH={shlex.quote(os.environ['PATH'])}"
    assert shell(f"cd {gone}; rmdir {gone}; {bare} kdtool plugins")[::2] == (0, "")
    code, out, err = shell(f"cd {gone.parent}; {bare} kdtool inspect /no/such/file")
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), "memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
        (OSError(12, "Cannot allocate memory"), "memory"),
        (RuntimeError("can't start new thread"), "threads or memory"),
        (OSError(24, "Too many open files"), "open files"),
        (ValueError("a mistake"), None),
    ],
)
def test_what_is_used_up_is_known(error, what):
    assert exhausted(error) == what
    outer = ImportError("cannot be imported")
    outer.__cause__ = error
    assert exhausted(outer) == what


@pytest.mark.parametrize("kilobytes", [100_000, 1_000_000])
def test_too_little_memory_is_one_line(kilobytes, teacher_path):
    code, out, err = shell(f"ulimit -v {kilobytes}; kdtool inspect {teacher_path}", OMP_NUM_THREADS="1")
    assert (code, out) == (1, "")
    assert re.match("Error: (there is not enough|the system gives no more) memory", err.splitlines()[-1])
    assert "unexpected" not in err
    assert "Traceback" not in err


def test_a_signal_has_its_own_exit_code():
    assert exit_code_of(Stopped(signal.SIGTERM)) == 143
    assert exit_code_of(Stopped(signal.SIGHUP)) == 129
    assert exit_code_of(KeyboardInterrupt()) == 130


def test_an_error_is_said_to_its_end_whatever_signals_come(monkeypatch):
    """Also those that a launcher passes on twice; afterwards they do what they did."""
    heard = []

    def signalled(line, code):
        for number in SIGNALS:
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                heard.append(number)
        return False

    monkeypatch.setattr(launcher, "handed_on", signalled)
    before = [signal.getsignal(number) for number in SIGNALS]
    done = CliRunner().invoke(cli, ["inspect", "/no/such/file"])
    assert (done.exit_code, heard) == (2, [])
    assert done.stderr.startswith("Error: /no/such/file")
    assert [signal.getsignal(number) for number in SIGNALS] == before


TRAIN = "teacher kdtool:lenet-300-100 --data digits --subset 0.1 --epochs 100000 --schedule constant -o t.pt"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_training_in_order(number, code, tmp_path):
    """It says how to go on, which works; and a signal that is ignored, as by nohup, stays so.

    Python tells what it imports, so that this also shows that a training does not import torch's compiler.
    """
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "kdtool", *TRAIN.split()], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=stderr, text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "t.run").rglob("state.pt")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate()
    err = (tmp_path / "stderr").read_text()
    assert (process.returncode, out) == (code, "")
    imported = re.findall(r"^import time: .*\| +(\S+)$", err, re.MULTILINE)
    assert "torch" in imported
    assert "torch._dynamo" not in imported
    assert err.endswith("Error: teacher was interrupted; run the same command with --resume to continue\n")
    assert "Traceback" not in err
    assert list((tmp_path / "t.run").rglob(".*")) == []


@pytest.mark.parametrize(
    ("by_user", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_wait_as_the_user_says_or_briefly(monkeypatch, by_user, expected):
    monkeypatch.setattr(os, "environ", dict(by_user))
    wait_briefly()
    assert os.environ == expected
