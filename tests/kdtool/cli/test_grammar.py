from __future__ import annotations

import pytest

from kdtool.cli.grammar import cut

ARITY = {"--method": 1, "--ratio": 1, "-o": 1, "--output": 1, "-f": 0, "--force": 0, "--box": 2}
STEPS = ("distill", "prune", "export")


@pytest.mark.parametrize(
    ("line", "segment"),
    [
        ("a.pt prune b", "a.pt"),
        ("--method ikd a.pt export", "--method ikd a.pt"),
        ("a.pt --method ikd export", "a.pt --method ikd"),
        # A value with the name of a command is a value.
        ("a.pt -o prune export", "a.pt -o prune"),
        ("-oprune export", "-oprune"),
        ("-fo prune export", "-fo prune"),
        ("-of prune export", "-of"),
        ("--output=x prune", "--output=x"),
        ("--force prune", "--force"),
        ("--box prune export distill", "--box prune export"),
        # A file with the name of a command.
        ("./prune export", "./prune"),
        ("-- prune", "-- prune"),
        ("-f -- prune export", "-f -- prune export"),
        # --times is not known yet, so its value may be any word except the name of a command.
        ("--times 2 prune", "--times 2"),
        ("--times prune", "--times"),
        ("- prune", "-"),
        ("prune", ""),
        ("", ""),
        ("a.pt -o", "a.pt -o"),
    ],
)
def test_a_step_ends_where_the_next_begins(line: str, segment: str) -> None:
    words = line.split()

    step = cut(words, ARITY, STEPS)

    assert step.words == segment.split()
    assert step.words + step.rest == words


def test_values_are_noted_the_last_one_last() -> None:
    line = "a --method kd --ratio 1 -f --method=ikd --odd b -- --ratio"

    step = cut(line.split(), ARITY, STEPS)

    assert list(step.values.items()) == [("--ratio", "1"), ("-f", ""), ("--method", "ikd")]
    assert step.loose == ["a", "--ratio"]
    assert step.doubtful == ["b"]
