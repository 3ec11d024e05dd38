"""The check of how a method can be sized to a cost, as `kdtool compress` does it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdtool.errors import Error, UsageError
from kdtool.models.size import macs
from kdtool.plugins.method_code import MethodError
from kdtool.testing.require import failing, require

if TYPE_CHECKING:
    from kdtool.distillation.distiller import Distiller
    from kdtool.models.architecture import Network
    from kdtool.plugins.method import Method

SAME = 1.02
"""Up to this factor a later step of a ladder may be larger: widths are rounded."""


def check_ladders(cls: type[Method], make: Callable[[Mapping[str, Any]], Network], network: Network) -> None:
    """Check the ladders of a method: plain options, the largest result first, and none larger than the network.

    ``make`` returns the network of a step. The first step of each ladder, one in the middle and the last are made. A
    step may be an `Error`, for example because it would remove too little, but not all of them.
    """
    shape, name = network.architecture.input, cls.name
    whole, made, tried = macs(network.module, shape), 0, 0
    with failing(f"{name}: ladders() fails"):
        ladders = [*cls.ladders(network)]  # type: ignore[attr-defined]
    for number, ladder in enumerate(ladders):
        steps = isinstance(ladder, Sequence) and all(isinstance(step, Mapping) for step in ladder)
        require(steps, f"{name}: ladders() must return lists of dictionaries of options; ladder {number} is {ladder!r}")
        sizes: list[int] = []
        for place in sorted({0, len(ladder) // 2, len(ladder) - 1} if ladder else ()):
            where, tried = f"{name}: step {place} of ladder {number}, {dict(ladder[place])}", tried + 1
            try:
                plain = json.loads(json.dumps(dict(ladder[place])))
                cls(**plain)
            except (TypeError, UsageError) as error:
                raise AssertionError(f"{where}, makes no method from plain data: {error}") from error
            with failing(f"{where}, fails"):
                try:
                    sizes.append(macs(make(plain).module, shape))
                except MethodError:
                    raise
                except Error:  # it removes too little, for example
                    continue
                require(sizes[-1] <= whole, f"{where}, has {sizes[-1]:,} MACs and the network {whole:,}")
        made += len(sizes)
        falls = all(later <= SAME * earlier for earlier, later in itertools.pairwise(sizes))
        require(falls, f"{name}: ladder {number} does not go from the largest result to the smallest: {sizes} MACs")
    require(made or not tried, f"{name}: no step of its ladders can be made")


def check_within(cls: type[Distiller], teacher: Network) -> None:
    """Check that the options which a method asks for to stay within a share of each cost make the method."""
    from kdtool.exporting.exporter import exporter_of_suffix

    exporter = {"name": exporter_of_suffix(".onnx").name}
    for cost in ("latency", "macs", "params"):
        with failing(f"{cls.name}: options_within() fails"):
            options = cls.options_within(teacher, cost, 0.5, epochs=2, exporter=exporter)
        if options is None:
            continue
        require(cls.makes_student, f"{cls.name}: options_within() is for makers of a student; it is given one")
        try:
            cls(**options)
        except (UsageError, TypeError) as error:
            raise AssertionError(
                f"{cls.name}: options_within({cost!r}, 0.5) gives options that are refused: {error}"
            ) from error
