"""Commands on a system that fails; ``make faults`` tries all."""

import os

import pytest

if not hasattr(os, "fork"):
    pytest.skip("commands run in forked processes", allow_module_level=True)

from benchmarks.safety.children import Ended, fail_at, kill_before, run
from benchmarks.safety.faults import COMMANDS, faults, wrong

BY_NAME = {command.name: command for command in COMMANDS}


@pytest.mark.parametrize("name", ["inspect", *(pytest.param(name, marks=pytest.mark.slow) for name in BY_NAME)])
def test_a_command_ends_with_its_result_or_in_one_line(name, teacher_path):
    found = faults(BY_NAME[name], teacher_path, per_code=4)
    assert len(found) > 10
    assert [fault for fault in found if fault[1]] == []


@pytest.mark.slow
def test_the_seed_chooses_the_operations_that_fail(teacher_path):
    first, second = ({name for name, _ in faults(BY_NAME["refine"], teacher_path, 1, seed)} for seed in (0, 1))
    assert {name for name in first - second} == {name for name in first if "operation 1 of" in name}
    assert {name for name in second - first} == {name for name in second if "operation 2 of" in name} != set()


def test_the_operation_that_fails_is_chosen(teacher_path, tmp_path):
    (tmp_path / "t.pt").write_bytes(teacher_path.read_bytes())
    command = BY_NAME["refine"]
    failed = run(command.words, tmp_path, fail_at(1, 28))
    assert (failed.code, failed.out) == (1, "")
    assert failed.err == "Error: o.pt: cannot be written: No space left on device\n"
    killed = run(command.words, tmp_path, kill_before(2))
    assert killed.code == -9
    whole = run(command.words, tmp_path)
    assert (whole.code, whole.out) == (0, "o.pt\n")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["o.pt", "t.pt"]  # what the kill left is swept


def test_a_result_that_was_not_printed_is_seen(tmp_path):
    assert wrong(BY_NAME["inspect"], Ended(0, "", ""), tmp_path, set()) == "ends with 0 without its result"
    assert wrong(BY_NAME["inspect"], Ended(0, "{}\n", ""), tmp_path, set()) == ""


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Ended(0, "", ""), "ends with 0 without its result"),
        (Ended(1, "", "Error: unexpected OSError: x\n"), "says"),
        (Ended(1, "", "Error: a\nError: b\n"), "ends with 1 and says"),
        (Ended(-11, "", ""), "is killed by signal 11"),
        (Ended(1, "", "Error: a\n"), ""),
    ],
)
def test_a_broken_promise_is_seen(ended, problem, tmp_path):
    assert wrong(BY_NAME["refine"], ended, tmp_path, set()).startswith(problem)
    (tmp_path / ".o.pt.0123abcd.7.tmp").touch()
    assert "leaves .o.pt" in wrong(BY_NAME["refine"], Ended(1, "", "Error: a\n"), tmp_path, set())
