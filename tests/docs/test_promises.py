"""Every promise names a test, and there is such a test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PROMISES = PAGE.partition("## What is tried")[0].split("\n- ")[1:]
NAMED = re.compile(r"<small>`(tests/[\w/]+\.py)::(test_\w+)`</small>")


def test_there_are_promises():
    assert len(PROMISES) > 25
    assert len(NAMED.findall(PAGE)) == len(PROMISES)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_names_a_test_that_exists(promise):
    (named,) = NAMED.findall(promise)
    file, test = named
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), test
