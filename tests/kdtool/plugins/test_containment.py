"""Code of plugins cannot write results, nor end the process by a mistake."""

import os
import threading

import pytest

from kdtool.plugins import entry_points, registry
from kdtool.plugins.containment import ProcessExit, contained


def test_what_is_written_past_python_goes_to_stderr_and_stdout_comes_back(capfd):
    print("before")
    with contained():
        os.write(1, b"one\n")
        with contained():
            os.system("echo two")
            print("three")
        os.write(1, b"four\n")
    print("after")
    out, err = capfd.readouterr()
    assert out == "before\nafter\n"
    assert err == "one\ntwo\nthree\nfour\n"


def test_blocks_of_several_threads_end_in_any_order(capfd):
    begun, ended = threading.Event(), threading.Event()

    def other():
        with contained():
            begun.set()
            ended.wait(10)

    thread = threading.Thread(target=other)
    with contained():
        thread.start()
        begun.wait(10)
    os.write(1, b"kept apart\n")  # the other block is open
    ended.set()
    thread.join()
    os.write(1, b"result\n")
    assert capfd.readouterr() == ("result\n", "kept apart\n")
    assert os._exit.__module__ == "posix"


def test_a_closed_stdout_is_left_as_it_is():
    kept = os.dup(1)
    os.close(1)
    try:
        with contained():
            pass
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(1)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_os_exit_raises_but_in_a_process_that_the_code_forked():
    with contained():
        with pytest.raises(ProcessExit) as error:
            os._exit(7)
        assert error.value.code == 7
        child = os.fork()
        if child == 0:
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_a_plugin_that_ends_the_process_when_it_is_imported_is_broken(site, capfd):
    site.install("leaves", "import os\nos.write(1, b'no result\\n')\nos._exit(0)")
    site.install("listens", "import os\nos._exit(0)", kind="")
    with pytest.raises(entry_points.BrokenPlugin, match=r"plugin 'leaves' .*ProcessExit: os\._exit\(0\) was called"):
        registry.method_class("distillers", "leaves")
    (broken,) = entry_points.always_on()
    assert "ProcessExit: os._exit(0) was called" in str(broken)
    assert capfd.readouterr().out == ""


def test_a_listener_that_ends_the_process_is_named(site, capfd):
    from kdtool.plugins.listeners import notify

    code = "import os\nfrom kdtool import hookimpl\n@hookimpl\ndef epoch_ended(epoch):\n    os._exit(0)\n"
    site.install("ends", code, kind="")
    assert entry_points.always_on() == []
    facts = dict.fromkeys(["run", "phase", "loss", "val_loss", "val_accuracy", "lr"])
    notify("epoch_ended", epoch=1, **facts)
    assert "epoch_ended() failed: ProcessExit: os._exit(0) was called; it is not called again" in capfd.readouterr().err
