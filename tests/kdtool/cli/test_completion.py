from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from kdtool.cli.main import cli


def completed(line: str) -> list[str]:
    """Return the completions of the last word of a line."""
    *words, incomplete = line.split(" ")
    shell = ShellComplete(cli, {}, "kdtool", "_KDTOOL_COMPLETE")
    return [
        f"<{item.type}>" if item.type != "plain" else item.value for item in shell.get_completions(words, incomplete)
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pru", ["prune"]),
        ("distill --method i", ["ikd"]),
        ("distill --method ikd --refiner d", ["depth"]),
        ("distill --method ikd --it", ["--iters"]),
        ("distill --method ikd --refiner depth --refiner-k", ["--refiner-keep"]),
        ("distill teacher.pt --data cifar", ["cifar10", "cifar100"]),
        ("prune --optimizer s", ["sgd"]),
        ("teacher t", ["timm:", "torchvision:"]),
        ("prune ", ["<file>"]),
        ("prune -o ", ["<file>"]),
        ("distill teacher.pt pru", ["prune"]),
        ("distill --method ikd teacher.pt prune --objective i", ["ikd"]),
        ("distill --method nosuch --epo", []),
        ("export --onn", ["--onnx"]),
    ],
)
def test_a_word_is_completed(line: str, expected: list[str]) -> None:
    assert completed(line) == expected


def test_recipes_are_completed():
    assert completed("teacher --recipe st") == ["standard"]
