"""The checks of how a method can be sized to a cost tell what is wrong."""

import pytest

from kdtool import Distiller, Error, Refiner, make, option
from kdtool.testing.checks import _network
from kdtool.testing.ladders import check_ladders, check_within


@pytest.fixture(scope="module")
def network():
    return _network("kdtool:lenet-300-100", 8)


def check(refiner, network):
    check_ladders(refiner, lambda options: refiner(**options).refine(network), network)


class Thin(Refiner):
    """Narrow every layer."""

    part: float = option(0.5, above=0, below=1, help="part of the widths to keep")
    steps = (0.9, 0.5, 0.1)

    @classmethod
    def ladders(cls, network):
        return [[{"part": part} for part in cls.steps]]

    def refine(self, network):
        return make("refiners", "halve", ratio=self.part).refine(network)


def test_a_ladder_from_large_to_small_passes(network):
    check(Thin, network)


def test_a_ladder_from_small_to_large_is_told(network):
    class Upside(Thin):
        """Narrow every layer."""

        steps = (0.1, 0.5, 0.9)

    with pytest.raises(AssertionError, match="ladder 0 does not go from the largest result to the smallest"):
        check(Upside, network)


@pytest.mark.parametrize("step", [{"part": 2.0}, {"width": 1}, {"part": object()}])
def test_a_step_that_makes_no_method_is_told(network, step):
    class Odd(Thin):
        """Narrow every layer."""

        @classmethod
        def ladders(cls, network):
            return [[step]]

    with pytest.raises(AssertionError, match="step 0 of ladder 0, .* makes no method from plain data"):
        check(Odd, network)


def test_a_step_may_be_an_error_but_not_all(network):
    class Picky(Thin):
        """Narrow every layer."""

        refuses = (0.9,)

        def refine(self, network):
            if self.part in self.refuses:
                raise Error("not this one")
            return super().refine(network)

    class Unable(Picky):
        """Narrow every layer."""

        refuses = Thin.steps

    check(Picky, network)
    with pytest.raises(AssertionError, match="no step of its ladders can be made"):
        check(Unable, network)


def test_a_refiner_that_says_nothing_has_its_defaults_as_the_only_step(network):
    class Plain(Refiner):
        """Halve."""

        def refine(self, network):
            return make("refiners", "halve").refine(network)

    assert Plain.ladders(network) == [[{}]]
    check(Plain, network)


def test_options_of_a_method_that_makes_its_student_must_make_it(network):
    class Wrong(Distiller):
        """Make a student."""

        makes_student = True

        @classmethod
        def options_within(cls, teacher, cost, share, *, epochs, exporter):
            return {"no_such_option": share}

    class Given(Distiller):
        """Train a student."""

        @classmethod
        def options_within(cls, teacher, cost, share, *, epochs, exporter):
            return {}

    with pytest.raises(AssertionError, match="gives options that are refused"):
        check_within(Wrong, network)
    with pytest.raises(AssertionError, match="is for makers of a student"):
        check_within(Given, network)
