"""Converters are silent whatever stands in the place of Python's streams."""

import contextlib
import os

from kdtool_exporters.native_output import silenced


def test_a_program_without_streams(capfd):
    with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None), silenced():
        os.write(2, b"from native code")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
