from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdtool.cli.method_options import Section, method_options
from kdtool.errors import UsageError
from kdtool.plugins.budget import Budget
from kdtool.plugins.options import Options, option

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]


def api_options(api: Any, run: Run, line: str) -> dict[str, Any]:
    """Run one command and return the options that the API was called with."""
    result = run(line)
    assert result.exit_code == 0, result.output
    options: dict[str, Any] = api.calls[-1][2]
    options.pop("resume", None)
    return options


def test_only_what_was_typed_is_passed(api: Any, run: Run) -> None:
    assert api_options(api, run, "prune student.pt") == {}
    assert api_options(api, run, "prune -f student.pt --ratio 0.5 --epochs 3 --data digits") == {
        "ratio": 0.5,
        "epochs": 3,
        "data": "digits",
    }
    assert api.calls[-1][:2] == ("prune", (Path("student.pt"), "magnitude"))


def test_a_switch_has_a_negative(api: Any, run: Run) -> None:
    assert api_options(api, run, "prune student.pt --no-teacher") == {"teacher": False}
    assert api_options(api, run, "prune student.pt -f --teacher --no-download") == {"teacher": True, "download": False}


def test_a_list_is_written_with_commas(api: Any, run: Run) -> None:
    options = api_options(api, run, "refine teacher.pt --method depth --keep 1,1,2,2")

    assert options == {"keep": (1, 1, 2, 2)}


def test_a_list_of_words_can_be_given_several_times(api: Any, run: Run) -> None:
    assert api_options(api, run, "prune student.pt --skip conv1 --skip fc,layer1.*") == {
        "skip": ("conv1", "fc", "layer1.*")
    }
    assert api_options(api, run, "prune student.pt -f --only fc") == {"only": ("fc",)}


def test_a_budget_is_read_where_it_is_typed(api: Any, run: Run, fails: Fails) -> None:
    assert api_options(api, run, "refine teacher.pt --method width-depth --target-macs 0.25x") == {
        "target_macs": Budget(0.25, relative=True)
    }
    assert api_options(api, run, "distill teacher.pt --refiner width-depth --target-params 250k") == {
        "refiner": {"name": "width-depth", "target_params": Budget(250_000)}
    }
    assert "--target-macs BUDGET " in run("refine --method width-depth --help").stdout
    for value in ("0.25y", "-1", "2x", "0x"):
        message = fails(f"refine teacher.pt --method width-depth --target-macs {value}")
        assert message.startswith(("--target-macs: ", "Invalid value for '--target-macs'"))
    assert "two budgets" in fails("refine teacher.pt --method width-depth --target-macs 0.5x --target-params 0.5x")
    assert "needs a budget" in fails("refine teacher.pt --method width-depth")
    assert "needs a budget" in fails("distill teacher.pt --refiner width-depth")


def test_a_role_takes_a_method_and_brings_its_options(api: Any, run: Run) -> None:
    options = api_options(
        api,
        run,
        "distill --iters 2 --method ikd --keep 1,1,1,1 --refiner depth --temperature 5 teacher.pt"
        " --pruner-objective-alpha 0.5 --pruner magnitude",
    )

    assert options == {
        "iters": 2,
        "refiner": {"name": "depth", "keep": (1, 1, 1, 1)},
        "objective": {"name": "kd", "temperature": 5.0},
        "pruner": {"name": "magnitude", "objective": {"name": "kd", "alpha": 0.5}},
    }


def test_a_role_without_options_is_a_name(api: Any, run: Run) -> None:
    assert api_options(api, run, "distill --method ikd teacher.pt --pruner magnitude") == {"pruner": "magnitude"}
    assert api_options(api, run, "distill teacher.pt --refiner halve") == {"refiner": "halve"}


def test_a_full_name_always_works_and_a_short_one_where_it_is_free(api: Any, run: Run, fails: Fails) -> None:
    line = "distill --method ikd teacher.pt --pruner magnitude"

    options = api_options(api, run, f"{line} --pruner-ratio 0.5 --refiner-ratio 0.25")

    assert options["pruner"] == {"name": "magnitude", "ratio": 0.5}
    assert options["refiner"] == {"name": "halve", "ratio": 0.25}
    assert fails(f"{line} -f --ratio 0.5") == "--ratio is ambiguous; write --refiner-ratio or --pruner-ratio"


def test_a_source_has_options_and_stands_before_the_colon(api: Any, run: Run, fails: Fails) -> None:
    assert api_options(api, run, "teacher --width 19 kdtool:conv4-fc2 --classes 10") == {"width": 19, "classes": 10}
    assert fails("teacher timm:resnet18 --width 19") == "--width is an option of kdtool:NAME, not of timm:NAME"


def test_a_command_keeps_its_own_names() -> None:
    class Greedy(Options):
        output: str = option("x", help="in the way")

    with pytest.raises(UsageError, match="Options of greedy: --output is an option of the command itself"):
        method_options([Section("Options of greedy", Greedy)], {}, {"--output"})


EXPORTER = '''
from kdtool import Exporter

class Json(Exporter):
    """Write JSON."""
    suffix = ".json"
'''

SEEDED = '''
from kdtool import LossDistiller, option

class Seeded(LossDistiller):
    """Copy the teacher."""
    seed: int = option(0, help="a seed of its own")
'''


def test_a_plugin_takes_no_option_of_kdtool_over(site: Any, api: Any, run: Run, fails: Fails) -> None:
    site.install("json", EXPORTER, kind="exporters")
    site.install("seeded", SEEDED, version="0.3")

    assert run("export student.pt --onnx --json").exit_code == 0
    assert api.calls[-1][:2] == ("export", (Path("student.pt"), "onnx"))
    assert fails("export -f student.pt --method json") == (
        "plugin 'json' of kdtool-json 1.0 is broken: kdtool export has an option --json; the plugin must choose "
        "another name"
    )
    assert fails("distill teacher.pt --method seeded --seed 1") == (
        "plugin 'seeded' of kdtool-seeded 0.3 is broken: its option --seed would hide kdtool's own; the plugin must "
        "choose another name"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("distill --iters 4 teacher.pt", "--iters is an option of --method ikd, not of --method kd"),
        ("distill teacher.pt --refiner halve --keep 1,1", "--keep is an option of --refiner depth"),
        (
            "distill --method ikd --pruner-ratio 0.5 teacher.pt",
            "--pruner-ratio is an option of --pruner bn-scale or filter-l1 or",
        ),
        ("distill --method ikdd teacher.pt", "no distiller is called 'ikdd'; did you mean ikd?"),
        ("distill --method ikd --refiner half teacher.pt", "no refiner is called 'half'; did you mean halve?"),
        ("distill --method ikd --epoch 3 teacher.pt", "distill has no option --epoch; did you mean --epochs?"),
        ("teacher tim:resnet18", "no teacher source is called 'tim'; did you mean timm?"),
        ("prune student.pt --ratio 1.5", "Invalid value for '--ratio': 1.5 is out of range (0 < x < 1)"),
        ("prune student.pt --ratio much", "Invalid value for '--ratio': expected a number, got 'much'"),
        ("prune student.pt --epochs 1.5", "Invalid value for '--epochs': expected a whole number, got '1.5'"),
        (
            "prune student.pt --optimizer sdg",
            "Invalid value for '--optimizer': 'sdg' is not a choice; did you mean sgd?",
        ),
        ("prune student.pt --milestones 0.5,2", "Invalid value for '--milestones': 2.0 is out of range (0 < x < 1)"),
        ("prune student.pt --objective-alpha 2", "Invalid value for '--objective-alpha' / '--alpha': 2.0 is out of"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_before_anything_runs(
    api: Any, fails: Fails, line: str, message: str
) -> None:
    assert fails(line).startswith(message)
    assert api.calls == []
