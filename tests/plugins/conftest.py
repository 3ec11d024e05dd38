"""Fixtures of all methods: runs that are interrupted."""

import contextlib

import pytest

import kdtool


@pytest.fixture
def cut_after(monkeypatch):
    """A function that returns a context in which a run is interrupted after an epoch of a phase is logged."""

    @contextlib.contextmanager
    def cut(phase, epoch):
        log = kdtool.Run.log

        def die(self, row):
            log(self, row)
            if (row["phase"], row["epoch"]) == (phase, epoch):
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(kdtool.Run, "log", die)
            with pytest.raises(KeyboardInterrupt):
                yield

    return cut
