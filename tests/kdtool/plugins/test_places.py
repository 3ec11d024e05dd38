from __future__ import annotations

from typing import Any

import pytest

from kdtool.errors import UsageError
from kdtool.plugins.options import Options, option
from kdtool.plugins.places import spellings, split
from kdtool.plugins.registry import make, method_class, nested
from kdtool.surgery.repair.options import RepairOptions


class Settings(Options):
    epochs: int = option(1, help="epochs")


class Student(Options):
    refiner: Any = nested("refiners", help="what makes the student")


def options_of(method: str, **values: Any) -> list[dict[str, Any]]:
    return split(values, method_class("distillers", method), Student, Settings)


def test_a_value_belongs_to_the_first_group_that_has_its_option() -> None:
    assert options_of("kd", temperature=2.0, epochs=3) == [{"temperature": 2.0}, {}, {"epochs": 3}]


def test_an_option_of_a_method_in_a_role_may_stand_beside_the_role() -> None:
    nested_options = {"refiner": {"name": "halve", "ratio": 0.9}}

    assert options_of("kd", refiner="halve", ratio=0.9)[1] == nested_options
    assert options_of("kd", refiner="halve", refiner_ratio=0.9)[1] == nested_options
    assert options_of("kd", refiner={"name": "halve", "scope": "inner"}, ratio=0.9)[1] == {
        "refiner": {"name": "halve", "scope": "inner", "ratio": 0.9}
    }
    assert options_of("ikd", refiner_ratio=0.9, iters=2)[0] == {**nested_options, "iters": 2}


def test_roles_may_be_in_roles_and_named_in_them() -> None:
    own, *_ = options_of("ikd", pruner="magnitude", pruner_objective_alpha=0.5)
    assert own == {"pruner": {"name": "magnitude", "objective": {"name": "kd", "alpha": 0.5}}}

    own, *_ = options_of("ikd", pruner="magnitude", pruner_objective="dkd", pruner_objective_beta=2.0)
    assert own == {"pruner": {"name": "magnitude", "objective": {"name": "dkd", "beta": 2.0}}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pruner": "magnitude", "ratio": 0.5}, "'ratio' is ambiguous; write refiner_ratio or pruner_ratio"),
        ({"refiner": {"name": "halve", "ratio": 0.5}, "ratio": 0.9}, "option 'ratio' is given twice; leave one out"),
        ({"refiner": "halve", "ratio": 0.9, "refiner_ratio": 0.8}, "option 'refiner_ratio' is given twice"),
        ({"refiner_ratoi": 0.5}, "there is no option 'refiner_ratoi'; did you mean refiner_ratio, refiner?"),
        ({"refiner": "depth", "ratio": 0.5}, "there is no option 'ratio'"),
        ({"refiner": "depht", "ratio": 0.5}, "no refiner is called 'depht'; did you mean depth?"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        options_of("ikd", **values)


def test_an_option_of_another_one_needs_that_whatever_its_value() -> None:
    message = "^--repair-images: belongs to --repair; give that too, or leave it out$"
    for options in ({"repair_images": 64}, {"refiner": {"name": "halve", "repair_images": 64}}):
        with pytest.raises(UsageError, match=message):
            options_of("kd", **{"refiner": "halve", **options})
    for repair in ("none", "statistics"):
        assert options_of("kd", refiner="halve", repair=repair, repair_images=64)[1]["refiner"]["repair_images"] == 64

    class Mended(RepairOptions):
        repair: str = option("statistics", help="on by default")

    assert split({"repair_images": 64}, Mended) == [{"repair_images": 64}]


def test_a_method_that_is_given_whole_has_its_options() -> None:
    halve = make("refiners", "halve", ratio=0.25)

    assert options_of("kd", refiner=halve)[1] == {"refiner": halve}
    with pytest.raises(UsageError, match="there is no option 'ratio'"):
        options_of("kd", refiner=halve, ratio=0.5)


def test_a_short_name_is_free_where_no_outer_option_and_no_other_role_has_it() -> None:
    places = [("ratio",), ("refiner",), ("refiner", "ratio"), ("refiner", "keep"), ("pruner", "keep"), ("pruner", "by")]

    names = spellings(places, taken={"by"})

    assert names["refiner", "ratio"] == ["refiner_ratio"]
    assert names["refiner", "keep"] == ["refiner_keep"]
    assert names["pruner", "by"] == ["pruner_by"]
    assert spellings(places)["pruner", "by"] == ["pruner_by", "by"]
