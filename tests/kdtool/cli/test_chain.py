from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdtool.cli import launcher

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]


def test_each_step_takes_the_checkpoint_of_the_one_before(api: Any, run: Run, here: Path) -> None:
    result = run("distill --method ikd --iters 4 teacher.pt prune --ratio 0.8 export --onnx")

    assert result.exit_code == 0, result.output
    assert [(name, args) for name, args, _ in api.calls] == [
        ("distill", (Path("teacher.pt"), "ikd")),
        ("prune", (Path("teacher-ikd.pt"), "magnitude")),
        ("export", (Path("teacher-ikd-magnitude.pt"), "onnx")),
    ]
    assert result.stdout == "teacher-ikd-magnitude.onnx\n"
    assert (here / "teacher-ikd-magnitude.onnx").exists()


def test_the_output_of_a_step_is_named_with_o(api: Any, run: Run) -> None:
    result = run("distill teacher.pt --student timm:resnet18 -o made.pt refine --times 2 -o prune.pt prune")

    assert result.exit_code == 0, result.output
    assert [args[0] for _, args, _ in api.calls] == [Path("teacher.pt"), Path("made.pt"), Path("prune.pt")]
    assert result.stdout == "prune-magnitude.pt\n"


def test_several_checkpoints_are_pruned_one_by_one(api: Any, run: Run) -> None:
    result = run("prune teacher.pt student.pt --ratio 0.5")

    assert result.exit_code == 0, result.output
    assert [args[0] for _, args, _ in api.calls] == [Path("teacher.pt"), Path("student.pt")]
    assert result.stdout == "teacher-magnitude.pt\nstudent-magnitude.pt\n"


def test_several_checkpoints_come_through_a_pipe_too(api: Any, run: Run) -> None:
    result = run("prune --method 2:4", stdin="teacher.pt\nstudent.pt\n")

    assert result.exit_code == 0, result.output
    assert result.stdout == "teacher-2-4.pt\nstudent-2-4.pt\n"


def test_several_checkpoints_need_no_name_and_no_step_behind_them(fails: Fails, here: Path) -> None:
    assert "two of the 2 outputs would have the same name" in fails("prune teacher.pt student.pt -o one.pt")
    assert "no step can follow" in fails("prune teacher.pt student.pt evaluate")
    assert "leave out student.pt" in fails("refine teacher.pt prune student.pt")
    (here / "student-magnitude.pt").write_text("mine")
    assert "exists already" in fails("prune teacher.pt student.pt")


def test_the_file_in_8_bits_of_a_compression_is_not_overwritten(fails: Fails, here: Path) -> None:
    (here / "teacher-halve-compressed-int8.onnx").write_text("mine")
    message = fails("refine teacher.pt compress --max-macs 0.5x")
    assert message.endswith("-int8.onnx: exists already; choose another name with -o, or overwrite it with --force")
    assert "int8.onnx" not in fails("refine teacher.pt compress --max-macs 0.5x --no-quantised -o nowhere/s.pt")


def test_a_reporting_step_prints_its_table_and_hands_the_checkpoint_on(api: Any, run: Run) -> None:
    result = run("refine teacher.pt evaluate --json prune")

    assert result.exit_code == 0, result.output
    table, path = result.stdout.rsplit("\n", 2)[:2]
    assert json.loads(table)[0]["checkpoint"] == "teacher-halve.pt"
    assert path == "teacher-halve-magnitude.pt"
    assert api.calls[-1][1][0] == Path("teacher-halve.pt")


def test_an_exporting_step_hands_on_the_checkpoint_and_not_its_file(api: Any, run: Run) -> None:
    result = run("export student.pt evaluate")

    assert result.exit_code == 0, result.output
    assert api.calls[-1][1] == (Path("student.pt"),)


def test_a_comparison_takes_one_name_and_the_checkpoint_of_the_step_before(api: Any, run: Run) -> None:
    result = run("prune student.pt compare --json teacher.pt")

    assert result.exit_code == 0, result.output
    assert api.calls[-1][:2] == ("compare", (Path("teacher.pt"), Path("student-magnitude.pt")))
    assert json.loads(result.stdout) == {"classified_differently": 3, "l2": None, "agreement": 0.9}


def test_a_file_called_like_a_command(api: Any, run: Run, fails: Fails, here: Path) -> None:
    for name in ("prune", "export"):
        (here / name).write_text("a checkpoint")

    assert run("evaluate ./prune prune").exit_code == 0
    assert api.calls[-1][1][0] == Path("prune")
    assert run("evaluate -- prune export").exit_code == 0
    assert api.calls[-1][1] == (Path("prune"), Path("export"))
    assert run("prune -f --student x -- prune").exit_code == 2
    assert run("compare --split test -- prune student.pt").exit_code == 0


def test_resume_anywhere_holds_for_every_step(api: Any, run: Run, here: Path) -> None:
    line = "distill --method ikd teacher.pt prune export"
    assert run(line).exit_code == 0
    for name in ("teacher-ikd.run", "teacher-ikd-magnitude.run"):
        (here / name).mkdir()
        (here / name / "run.json").touch()
    assert run(line).exit_code == 2
    del api.calls[:]

    result = run(f"{line} --resume")

    assert result.exit_code == 0, result.output
    assert [options.get("resume") for _, _, options in api.calls] == [True, True, True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("distill teacher.pt --student timm:x export --rati 2", "export has no option --rati"),
        ("distill --method ikd teacher.pt prune --ratio 1.5", "Invalid value for '--ratio'"),
        ("distill --method ikd teacher.pt prune --objective xyz", "no distiller is called 'xyz'"),
        ("distill --method ikd teacher.pt prunes", "prunes: there is no such file; did you mean prune?"),
        (
            "distill --method ikd teacher.pt prune student.pt",
            "prune takes the checkpoint of distill; leave out student.pt",
        ),
        (
            "prune student.pt teacher timm:resnet18",
            "teacher can only be the first step: it takes no checkpoint from prune",
        ),
        ("prune student.pt plugins", "plugins cannot be part of a chain; run it alone"),
        ("plugins prune student.pt", "plugins cannot be part of a chain; run it alone"),
        ("prune student.pt compare", "compare takes 2 checkpoints: the one of prune and one that you name"),
        ("prune student.pt compare missing.pt", "missing.pt: there is no such file"),
        ("prune student.pt -o a.pt prune -o a.pt", "a.pt: two steps would write this file"),
        ("prune student.pt -o a.pt prune -o ./b/../a.pt", "b/../a.pt: two steps would write this file"),
        ("prune student.pt prune -o teacher.pt", "teacher.pt: exists already"),
        ("prune student.pt export -o x.pt", "-o x.pt: the name of this file must end in .onnx"),
        ("prune student.pt -o nowhere/x.pt", "nowhere/x.pt: there is no directory nowhere"),
        ("prune studen.pt", "studen.pt: there is no such file; did you mean student.pt?"),
        ("prune .", ".: is a directory; name a file in it"),
        ("prune", "the pipe was closed without a path"),
        ("compare teacher.pt", "the pipe was closed without a path"),
        ("teacher", "teacher: no network given; write one as hf:NAME or kdtool:NAME or timm:NAME or torchvision:NAME"),
        ("teacher somenet", "somenet: a network is written as hf:NAME or kdtool:NAME or "),
        ("teacher timm:resnet18 --weights none.pth", "none.pth: there is no such file"),
        (
            "teacher timm:resnet18 --weights student.pt --pretrained",
            "--weights and --pretrained both set the initial weights",
        ),
        ("distill teacher.pt", "--method kd needs a student: --student SOURCE:NAME"),
        ("distill teacher.pt --student none.pt", "none.pt: there is no such file"),
        ("distill teacher.pt --student tim:resnet18", "no teacher source is called 'tim'; did you mean timm?"),
        ("distill teacher.pt --student timm:x --refiner halve", "--student and --refiner both give a student"),
        ("prune student.pt --data mnits", "no data set is called 'mnits'; did you mean mnist"),
        ("distil teacher.pt", "there is no command 'distil'; did you mean distill?"),
        (
            "distill teacher.pt --refiner halve --dry-run export --json",
            "--dry-run and --json: a dry run has no results",
        ),
        ("compress teacher.pt --max-macs 0.5x --dry-run --json", "--dry-run and --json: a dry run has no results"),
        ("demo --dry-run --json", "--dry-run and --json: a dry run has no results"),
        ("xyz", "there is no command 'xyz'; the commands are teacher, refine, "),
    ],
)
def test_nothing_runs_where_any_step_is_wrong(api: Any, fails: Fails, line: str, message: str) -> None:
    code = 1 if message.startswith("the pipe") else 2

    assert fails(line, code).startswith(message)
    assert api.calls == []


def test_an_earlier_run_is_in_the_way_before_the_first_step_runs(api: Any, fails: Fails, here: Path) -> None:
    (here / "student-magnitude-magnitude.run").mkdir()
    (here / "student-magnitude-magnitude.run" / "run.json").write_text('{"finished": false}')

    message = fails("prune student.pt prune")

    assert message.startswith("student-magnitude-magnitude.run: holds an earlier run; continue it with --resume")
    assert api.calls == []


def test_the_network_of_a_later_step_is_looked_up_before_the_first_step_runs(
    api: Any, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kdtool.models.sources")

    message = fails("prune student.pt distill --student kdtool:lenet-6", code=2)

    assert "lenet-5" in message
    assert api.calls == []


def test_a_missing_checkpoint_may_be_a_file_that_was_taken_for_a_command(
    api: Any, fails: Fails, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdtool.cli.stdin._is_pipe", lambda: False)
    (here / "prune").write_text("a checkpoint")

    assert fails("evaluate prune").endswith("; for the file prune write ./prune")
    assert fails("evaluate").startswith(
        "evaluate: no checkpoint given. Name it (kdtool evaluate FILE), put the step that makes it in front "
        "(kdtool distill FILE evaluate), or pipe it in (kdtool distill FILE | kdtool evaluate)"
    )


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let this process be the first of two, which goes on with the tests if it fails."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(launcher, "leave", lambda code: None)
    # The second process is silenced. Up to click 8.3.1 the streams that it had are closed then, and read later.
    kept: list[Any] = []

    def silent(*_: Any, **__: Any) -> Any:
        kept.extend((sys.stdout, sys.stderr))
        return sys.stdout

    monkeypatch.setattr(launcher, "open", silent, raising=False)
    return monkeypatch


def test_of_two_processes_one_waits_on_the_device_of_the_next_training(api: Any, run: Run, two: Any) -> None:
    waits: list[str] = []

    @contextlib.contextmanager
    def together(device: str) -> Iterator[None]:
        waits.append(device)
        yield

    two.setattr(launcher, "together", together)
    result = run("refine teacher.pt distill --refiner halve --device cpu evaluate prune export --onnx")

    assert result.exit_code == 0, result.output
    assert waits == ["cpu", "auto"]


@pytest.mark.parametrize("rank", [0, 1])
def test_of_two_processes_one_does_steps_that_train_nothing_and_neither_waits(
    api: Any, run: Run, two: Any, here: Path, rank: int
) -> None:
    two.setenv("RANK", str(rank))
    if rank:  # the first process was faster
        (here / "small.pt").write_text("a checkpoint")
    result = run("refine teacher.pt -o small.pt export --onnx evaluate")

    assert result.exit_code == 0, result.output
    assert [name for name, *_ in api.calls] == ([] if rank else ["refine", "export", "evaluate"])
