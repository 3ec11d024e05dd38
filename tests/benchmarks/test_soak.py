"""A few kills of a command; ``make soak`` makes many."""

import os

import pytest

if not hasattr(os, "fork"):
    pytest.skip("commands run in forked processes", allow_module_level=True)

from benchmarks.safety.soak import WORDS, make_teachers, soak


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    make_teachers(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "kills"), [("kd", 2), *(pytest.param(name, 10, marks=pytest.mark.slow) for name in WORDS)]
)
def test_a_killed_command_goes_on_to_the_same_weights(name, kills, teachers):
    came, lost = soak(name, teachers, kills, seed=1)
    assert came >= kills
    assert lost == []
