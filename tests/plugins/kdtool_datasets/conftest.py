"""What the tests of several data sets share."""

import random

import pytest


@pytest.fixture
def spoilt():
    """Return a function: bytes with a few changed or removed ones, at most ``longest`` at a time, drawn by a seed."""

    def change(content, seed, longest):
        chance, changed = random.Random(seed), bytearray(content)
        for _ in range(chance.choice((1, 3, 30))):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at] = chance.randrange(256)
            else:
                del changed[at : at + chance.randrange(1, longest)]
        return changed

    return change
