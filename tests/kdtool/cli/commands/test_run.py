from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]

RECIPE = """
[matrix]
seed = [0, 1]
[[step]]
name = "teacher"
run = "teacher kdtool:lenet-5 --data digits --seed {seed}"
[[step]]
name = "second"
from = "teacher"
run = "COMMAND"
"""
ROW = {"name": "teacher_seed=0", "step": "teacher", "values": {"seed": 0}, "accuracy": 0.5, "seconds": 3.0}
RESULT = {"rows": [ROW], "means": [], "comparisons": [], "comparison_means": [], "failed": [], "not_run": []}


def write(here: Path, command: str) -> None:
    (here / "r.toml").write_text(RECIPE.replace("COMMAND", command))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("prunes --ratio 0.5", "there is no command 'prunes'; did you mean prune"),
        ("prune --rati 0.5", "prune has no option --rati; did you mean --ratio?"),
        ("prune --ratio 1.5", "Invalid value for '--ratio': 1.5 is out of range"),
        ("prune --method magnitud", "no pruner is called 'magnitud'"),
        ("prune --epochs 1 -o x.pt", "the study sets --output itself; leave it out"),
        ("prune --force", "the study sets --force itself; leave it out"),
        ("prune evaluate", "evaluate begins another command; write it as a [[step]] of its own"),
        ("prune student.pt", "prune takes one checkpoint in a step, not 2"),
        ("evaluate", "evaluate makes no checkpoint, so it cannot be a step"),
        ("export --json", "the study sets --json itself; leave it out"),
        ("export --rati 2", "export has no option --rati"),
        ("export --int8 --fp16", "--int8 and --fp16: choose one"),
        ("demo", "demo makes no checkpoint, so it cannot be a step"),
        ("run r.toml", "run makes no checkpoint, so it cannot be a step"),
        ("prune --help", "--help makes no checkpoint, so it cannot be a step"),
        ("distill --student none.pt", "none.pt: there is no such file"),
        ("distill", "--method kd needs a student"),
        ("distill --student kdtool:lenet-6", "kdtool knows no network 'lenet-6'; did you mean lenet-5"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_before_any_is(
    api: Any, fails: Fails, here: Path, command: str, says: str
) -> None:
    write(here, command)

    message = fails("run r.toml")

    assert message.startswith("r.toml: step 'second': ")
    assert says in message
    assert api.calls == []


def test_a_step_needs_what_it_works_on(fails: Fails, here: Path) -> None:
    (here / "r.toml").write_text('[[step]]\nname = "one"\nrun = "prune --ratio 0.5"\n')
    assert "step 'one': prune needs a checkpoint; name the step that makes it" in fails("run r.toml")
    (here / "r.toml").write_text('[[step]]\nname = "one"\nrun = "teacher kdtool:lenet-6"\n')
    assert "lenet-5" in fails("run r.toml")
    assert fails("run").startswith("run: no recipe given")
    assert fails("run none.toml").startswith("none.toml: cannot be read")
    assert "cannot be part of a chain" in fails("run r.toml prune")


def test_a_dry_run_prints_the_commands(run: Run, here: Path) -> None:
    write(here, "prune --ratio 0.5")

    result = run("run r.toml -o out --dry-run")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "kdtool teacher kdtool:lenet-5 --data digits --seed 0 -o out/teacher_seed=0.pt",
        "kdtool teacher kdtool:lenet-5 --data digits --seed 1 -o out/teacher_seed=1.pt",
        "kdtool prune out/teacher_seed=0.pt --ratio 0.5 -o out/second_seed=0.pt",
        "kdtool prune out/teacher_seed=1.pt --ratio 0.5 -o out/second_seed=1.pt",
    ]
    assert not (here / "out").exists()


def test_the_check_of_many_steps_has_a_bar(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdtool.utils.meters import Screen

    moved = []
    monkeypatch.setattr(Screen, "advance", lambda self, meter, *more: moved.append((meter.title, meter.total)))
    write(here, "prune --ratio 0.5")

    assert run("run r.toml --dry-run").exit_code == 0
    assert moved == [("check the steps", 4)] * 4


def test_a_dry_run_has_no_json(fails: Fails, here: Path) -> None:
    write(here, "prune --ratio 0.5")
    assert fails("run r.toml --dry-run --json").startswith("--dry-run and --json: a dry run has no results")


def test_a_dry_run_marks_what_is_done(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "prune --ratio 0.5")
    names = {"teacher_seed=0", "second_seed=0"}
    monkeypatch.setattr("kdtool.study.record.done_already", lambda recipe: names)

    lines = run("run r.toml -o out --dry-run").stdout.splitlines()

    assert [line.partition("  # ")[2] for line in lines] == ["done", "", "done", ""]
    assert lines[2] == "kdtool prune out/teacher_seed=0.pt --ratio 0.5 -o out/second_seed=0.pt  # done"
    assert shlex.split(lines[2], comments=True) == shlex.split(lines[2].removesuffix("  # done"))
    assert "#" not in run("run r.toml -o out --dry-run --force").stdout


def test_a_dry_run_prints_the_comparisons_as_commands(run: Run, here: Path) -> None:
    write(here, "prune --ratio 0.5")
    with (here / "r.toml").open("a") as recipe:
        recipe.write('[[compare]]\nof = ["teacher", "second"]\n')
        recipe.write('[[step]]\nname = "third"\nfrom = "teacher"\nrun = "prune --method {method}"\n')
        recipe.write('[[compare]]\nof = ["third"]\nalong = "method"\n')
    text = (here / "r.toml").read_text().replace("seed = [0, 1]", 'seed = [0, 1]\nmethod = ["magnitude", "random"]')
    (here / "r.toml").write_text(text)

    result = run("run r.toml -o out --dry-run")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-4:] == [
        "kdtool compare out/teacher_seed=0.pt out/second_seed=0.pt",
        "kdtool compare out/teacher_seed=1.pt out/second_seed=1.pt",
        "kdtool compare out/third_seed=0_method=magnitude.pt out/third_seed=0_method=random.pt",
        "kdtool compare out/third_seed=1_method=magnitude.pt out/third_seed=1_method=random.pt",
    ]


def test_an_export_is_a_step(run: Run, here: Path) -> None:
    write(here, "export --int8 --no-latency")

    result = run("run r.toml -o out --dry-run")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[2] == (
        "kdtool export out/teacher_seed=0.pt --int8 --no-latency -o out/second_seed=0.onnx"
    )


def test_results_are_a_table_or_json(api: Any, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "prune --ratio 0.5")
    calls: dict[str, Any] = {}
    mean = {"step": "teacher", "values": {}, "seeds": 3, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    result = {**RESULT, "means": [mean]}
    monkeypatch.setattr(api, "run_study", lambda recipe, **options: calls.update(options) or result, raising=False)

    text = run("run r.toml --jobs 2").stdout

    assert calls == {"jobs": 2, "force": False}
    assert text.splitlines()[0].split() == ["step", "seed", "accuracy", "seconds"]
    assert "0.50 ± 0.10" in text
    assert json.loads(run("run r.toml --json").stdout) == result


def test_settings_are_a_column_where_they_differ(
    api: Any, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "prune --ratio 0.5")
    settings = {"epochs": 4, "trial_epochs": 6, "optimizer": "adam", "batch_size": 64, "chosen": "temperature=1"}
    rows = [{**ROW, **settings, "recipe": recipe} for recipe in ("quick", "none")]
    monkeypatch.setattr(api, "run_study", lambda recipe, **options: {**RESULT, "rows": rows}, raising=False)

    head, _, first, _ = run("run r.toml").stdout.splitlines()

    assert head.split() == ["step", "seed", "accuracy", "epochs", "trial", "epochs", "recipe", "chosen", "seconds"]
    assert first.split() == ["teacher", "0", "0.5000", "4", "6", "quick", "temperature=1", "3.0"]


def test_a_mean_of_counts_that_is_not_whole_has_a_decimal(
    api: Any, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "prune --ratio 0.5")
    pairs = [
        {"a": "x", "b": "y", "values": {}, "seeds": 2, "classified_differently": 82.5, "accuracy_difference": 0.25}
    ]
    monkeypatch.setattr(
        api, "run_study", lambda recipe, **options: {**RESULT, "comparison_means": pairs}, raising=False
    )

    assert run("run r.toml").stdout.splitlines()[-1].split() == ["x", "y", "2", "0.2500", "82.5"]


def test_a_setting_stands_beside_the_measurement_of_its_name(
    api: Any, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "prune --ratio 0.5")
    mean = {"step": "half", "values": {"epochs": 1}, "seeds": 3, "epochs": 2, "epochs_low": 1.0, "epochs_high": 3.0}
    spread = {
        "classified_differently": 547.3,
        "classified_differently_low": 207.0,
        "classified_differently_high": 887.6,
    }
    monkeypatch.setattr(
        api, "run_study", lambda recipe, **options: {**RESULT, "rows": [], "means": [mean | spread]}, raising=False
    )

    _, head, _, row = run("run r.toml").stdout.splitlines()

    assert head.split() == ["step", "epochs", "(setting)", "seeds", "classified", "differently", "epochs"]
    assert row.split() == ["half", "1", "3", "547.3", "±", "340.3", "2"]


def test_failures_are_told_beside_the_results(api: Any, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "prune --ratio 0.5")
    result = {**RESULT, "failed": [{"name": "x", "error": "no luck", "log": "x.log"}], "not_run": ["y"]}
    monkeypatch.setattr(api, "run_study", lambda recipe, **options: result, raising=False)

    process = run("run r.toml --json")

    assert process.exit_code == 1
    assert json.loads(process.stdout) == result
    assert process.stderr.splitlines() == [
        "failed: x: no luck",
        "not run: y",
        "Error: 1 failed, 1 not run; run the same command to try them again",
    ]
