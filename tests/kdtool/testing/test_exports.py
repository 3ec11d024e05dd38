"""The check of an exporter gives it what it asks for, and tells what is wrong with what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kdtool import Exporter, Network
from kdtool.testing.checks import check_exporter


class Asking(Exporter):
    """Write what it is given."""

    suffix: ClassVar[str] = ".txt"
    companions: ClassVar[tuple[str, ...]] = (".bin",)
    uses_content = True  # type: ignore[assignment]
    uses_validation = True  # type: ignore[assignment]
    measured: ClassVar[Any] = {"file_bytes": 4, "latency": None, "accuracy": {"accuracy": 0.5, "error": 0.5}}

    def export(  # type: ignore[override]
        self, network: Network, output: Path, *, metadata: Mapping[str, str], content: Mapping[str, Any], val: Any
    ) -> dict[str, Any]:
        images, labels = next(iter(val))
        assert images.shape == (len(labels), *network.architecture.input)
        output.write_text(content["format"])
        output.with_suffix(".bin").write_text("numbers")
        return self.measured  # type: ignore[no-any-return]


def test_it_gets_content_and_validation_images() -> None:
    check_exporter(Asking)


def test_a_missing_companion_is_told() -> None:
    class Alone(Asking):
        """Write one file of two."""

        companions: ClassVar[tuple[str, ...]] = (".bin", ".json")

    with pytest.raises(AssertionError, match=r"alone: did not write network\.json, which its companions name"):
        check_exporter(Alone)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (None, r"export\(\) returned NoneType, not measurements by name"),
        ({"latency": 0.5}, r"its latency is 0\.5; it must be numbers by name, or None"),
        ({"accuracy": 0.5}, r"its accuracy is 0\.5; it must be numbers by name, or None"),
        ({"file": Path()}, "its measurements are not plain data: TypeError"),
    ],
)
def test_other_measurements_are_told(returns: Any, message: str) -> None:
    class Odd(Asking):
        """Measure something else."""

        measured: ClassVar[Any] = returns

    with pytest.raises(AssertionError, match=message):
        check_exporter(Odd)


def test_an_export_that_raises_is_told() -> None:
    class Raising(Asking):
        """Raise."""

        def export(self, network: Network, output: Path, **about: Any) -> dict[str, Any]:
            raise KeyError("layer")

    with pytest.raises(AssertionError, match=r"raising: export\(\) fails: KeyError: 'layer'"):
        check_exporter(Raising)
