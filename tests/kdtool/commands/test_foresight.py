"""Whether a training from Python is said before it begins."""

import contextlib

from kdtool.commands.foresight import _is_looked_on


class Tee:
    """What programs put in the place of stderr."""

    def write(self, text):
        """Write nothing, and return how much was given."""
        return len(text)


def test_nobody_looks_on_where_stderr_is_no_terminal():
    for stream in (None, Tee()):
        with contextlib.redirect_stderr(stream):
            assert not _is_looked_on()
