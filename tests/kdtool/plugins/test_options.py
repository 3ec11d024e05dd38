from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from kdtool.errors import UsageError
from kdtool.plugins.options import OptionInfo, Options, option
from kdtool.plugins.registry import nested


class Everything(Options):
    whole: int = option(3, minimum=1, maximum=5, help="a number")
    part: float = option(0.5, above=0, below=1, help="a fraction")
    flag: bool = option(False, help="a switch")
    word: str = option("mean", choices=("mean", "max"), help="a choice")
    place: Path | None = option(None, help="a file")
    keep: tuple[int, ...] | None = option(None, minimum=0, help="several numbers")
    shares: tuple[float, ...] = option((0.5, 1.0), help="several fractions")


def info(cls: type[Options], name: str) -> OptionInfo:
    return next(option for option in cls.describe() if option.name == name)


def test_options_are_described_in_their_order_with_types_and_defaults() -> None:
    described = Everything.describe()

    assert [info.name for info in described] == ["whole", "part", "flag", "word", "place", "keep", "shares"]
    assert [info.type for info in described] == [int, float, bool, str, Path, int, float]
    assert [info.default for info in described] == [3, 0.5, False, "mean", None, None, (0.5, 1.0)]
    assert [info.optional for info in described] == [False, False, False, False, True, True, False]
    assert [info.many for info in described] == [False, False, False, False, False, True, True]
    assert not any(info.required for info in described)
    assert described[3].choices == ("mean", "max")


def test_an_option_without_a_default_is_required() -> None:
    class Needs(Options):
        ratio: float = option(help="a fraction")

    assert info(Needs, "ratio").required
    assert not info(Needs, "ratio").optional
    with pytest.raises(UsageError, match=r"^Needs needs --ratio: a fraction$"):
        Needs()  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="--ratio: expected a number, got None"):
        Needs(ratio=None)  # type: ignore[arg-type]


def test_options_are_frozen_and_compared_by_value() -> None:
    method = Everything(whole=4)

    with pytest.raises(dataclasses.FrozenInstanceError):
        method.whole = 5  # type: ignore[misc]
    assert method == Everything(whole=4) != Everything(whole=5)


def test_a_subclass_adds_to_the_options_it_inherits() -> None:
    class More(Everything):
        word: str = option("max", choices=("mean", "max"), help="another default")
        extra: int = option(1, help="one more")

    assert [info.name for info in More.describe()][-1] == "extra"
    assert len(More.describe()) == len(Everything.describe()) + 1
    assert More().word == "max"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("whole", 0, "--whole: 0 is out of range (1 <= x <= 5)"),
        ("whole", 6, "--whole: 6 is out of range (1 <= x <= 5)"),
        ("whole", 2.0, "--whole: expected a whole number, got 2.0; write 2"),
        ("whole", "2", "--whole: expected a whole number, got '2'; write 2"),
        ("whole", True, "--whole: expected a whole number, got True"),
        ("whole", None, "--whole: expected a whole number, got None"),
        ("part", 0, "--part: 0.0 is out of range (0 < x < 1)"),
        pytest.param("part", 10**400, "--part: inf is out of range (0 < x < 1)", id="an integer too large for a float"),
        pytest.param("part", -(10**400), "--part: -inf is out of range (0 < x < 1)", id="and its negative"),
        ("part", 1.0, "--part: 1.0 is out of range (0 < x < 1)"),
        ("part", float("nan"), "--part: nan is out of range (0 < x < 1)"),
        ("part", True, "--part: expected a number, got True"),
        ("flag", 1, "--flag: expected True or False, got 1"),
        ("word", "man", "--word: 'man' is not a choice; did you mean mean, max?"),
        ("word", "sum", "--word: 'sum' is not a choice; one of mean, max"),
        ("place", 3, "--place: expected a path, got 3"),
        ("keep", 1, "--keep: expected a list of int, got 1"),
        ("keep", (1, -1), "--keep: -1 is out of range (0 <= x)"),
        ("keep", (1, 2.5), "--keep: expected a whole number, got 2.5"),
        ("shares", None, "--shares: expected a list of float, got None"),
        ("shares", (float("inf"),), "--shares: inf is out of range (a finite number)"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Everything(**{name: value})

    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "value"), [("whole", 1), ("whole", 5), ("part", 1e-9), ("part", 1 - 1e-9)])
def test_inclusive_bounds_hold_their_ends_and_exclusive_ones_the_rest(name: str, value: float) -> None:
    assert getattr(Everything(**{name: value}), name) == value  # type: ignore[arg-type]


def test_values_become_the_declared_type() -> None:
    method = Everything(
        part=0.25,
        place="a/b",  # type: ignore[arg-type]
        keep=[1, 2],  # type: ignore[arg-type]
        shares=(1, 2),
    )

    assert method.place == Path("a/b")
    assert method.keep == (1, 2)
    assert [type(share) for share in method.shares] == [float, float]


def test_as_data_is_json_and_makes_the_same_options_again() -> None:
    method = Everything(whole=2, part=0.75, flag=True, word="max", place=Path("a/b"), keep=(1, 2))

    data = method.as_data()

    assert data == {
        "whole": 2,
        "part": 0.75,
        "flag": True,
        "word": "max",
        "place": "a/b",
        "keep": [1, 2],
        "shares": [0.5, 1.0],
    }
    assert Everything(**json.loads(json.dumps(data))) == method


class Length:
    """A type of an option with its own notation, such as 3cm."""

    def __init__(self, millimetres: int) -> None:
        self.millimetres = millimetres

    @classmethod
    def parse(cls, text: str) -> Length:
        if not text.endswith("cm"):
            raise UsageError(f"{text!r} is no length, such as 3cm")
        return cls(10 * int(text[:-2]))

    def __str__(self) -> str:
        return f"{self.millimetres // 10}cm"


def test_a_type_may_bring_its_own_way_to_be_written() -> None:
    class Measured(Options):
        length: Length | None = option(None, help="x")
        sides: tuple[Length, ...] = option((), help="x")

    measured = Measured(length="3cm", sides=["1cm", Length(20)])  # type: ignore[arg-type,list-item]

    assert info(Measured, "length").type is Length
    assert measured.length is not None
    assert measured.length.millimetres == 30
    assert [side.millimetres for side in measured.sides] == [10, 20]
    assert json.loads(json.dumps(measured.as_data())) == {"length": "3cm", "sides": ["1cm", "2cm"]}
    assert Measured().as_data() == {"length": None, "sides": []}
    for wrong in ("3", 3):
        with pytest.raises(UsageError, match="^--length: '3' is no length, such as 3cm$"):
            Measured(length=wrong)  # type: ignore[arg-type]


def test_flag_has_dashes() -> None:
    class Dashed(Options):
        round_to: int = option(16, help="x")

    assert Dashed.describe()[0].flag == "--round-to"


def test_a_whole_default_of_a_float_becomes_one() -> None:
    class Rated(Options):
        rate: float = option(1, help="x")

    assert type(Rated().rate) is float


def test_class_variables_are_no_options() -> None:
    class Mixed(Options):
        label: ClassVar[str] = "x"
        rate: float = option(0.1, help="x")

    assert [info.name for info in Mixed.describe()] == ["rate"]
    assert Mixed().as_data() == {"rate": 0.1}


def test_a_field_that_is_no_option_is_refused() -> None:
    class Plain(Everything):
        whole: int = 4

    with pytest.raises(TypeError, match=r"field whole: declare it with option"):
        Plain.describe()


@pytest.mark.parametrize(
    ("default", "message"),
    [(3.0, r"--a: 3\.0 is out of range \(x <= 1\)"), (None, "--a: expected a number, got None")],
)
def test_a_default_that_could_not_be_given_is_refused(default: Any, message: str) -> None:
    class Odd(Options):
        a: float = option(default, maximum=1, help="a number")

    with pytest.raises(TypeError, match=f"^option a: its default is refused: {message}"):
        Odd.describe()


def test_a_type_that_no_command_line_has_is_refused() -> None:
    class Mapping(Options):
        table: dict[str, int] = option(None, help="x")

    class Either(Options):
        value: int | str = option(1, help="x")

    class Pair(Options):
        value: tuple[int, int] = option((1, 2), help="x")

    for cls in (Mapping, Either, Pair):
        with pytest.raises(TypeError, match="is none of int, float, bool, str, Path"):
            cls.describe()


def test_bounds_are_told_in_words() -> None:
    class Bounded(Options):
        free: float = option(0.0, help="x")
        low: float = option(0.5, above=0, help="x")
        both: float = option(0.5, minimum=0, below=1, help="x")

    assert [info.bounds for info in Bounded.describe()] == ["", "0 < x", "0 <= x < 1"]


def test_a_nested_option_is_described_by_its_kind_and_default() -> None:
    class Strategy(Options):
        objective: Any = nested("distillers", "kd", help="the loss", temperature=20.0)
        pruner: Any = nested("pruners", help="the pruner")

    objective, pruner = Strategy.describe()

    assert (objective.kind, objective.method, dict(objective.defaults)) == (
        "distillers",
        "kd",
        {"temperature": 20.0},
    )
    assert (objective.type, objective.default, objective.optional) == (str, "kd", False)
    assert (pruner.kind, pruner.method, pruner.optional) == ("pruners", None, True)


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = Everything(whole=np.int64(2), part=np.float32(0.5), word=np.str_("max"), keep=(np.uint8(1),), flag=np.True_)
    assert made.as_data() == {**Everything(whole=2, word="max").as_data(), "keep": [1], "flag": True}
    assert [type(value) for value in (made.whole, made.part, made.word, made.keep[0])] == [int, float, str, int]
