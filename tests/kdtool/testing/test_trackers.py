from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kdtool.plugins import Tracked, Tracker
from kdtool.testing import check_tracker


class Good(Tracker):
    """Count numbers in a file of the current directory."""

    def start(self, tracked: Tracked) -> None:
        self.file = Path(self.place or "numbers")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.file.open("a").write(f"{len(values)}\n")


def test_a_good_tracker_passes_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    check_tracker(Good)
    check_tracker(Good("kept"))

    assert list(tmp_path.iterdir()) == []


class Printing(Good):
    """Print."""

    def facts(self, values: Mapping[str, str]) -> None:
        print(values)


class Unable(Good):
    """Not go on with a run."""

    def start(self, tracked: Tracked) -> None:
        if tracked.resumed:
            raise OSError("no such record")
        super().start(tracked)


class Silent(Good):
    """Need a library."""

    needs = "json"


class Bare(Good):
    __doc__ = None


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        (Printing, "Printing printed .* on stdout"),
        (Unable, "Unable.start failed: .*no such record"),
        (Silent, "Silent needs json, and says no command that installs it"),
        (Bare, "Bare has no docstring"),
        (int, "int is not a Tracker"),
    ],
)
def test_what_is_wrong_is_said(tracker: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_tracker(tracker)
