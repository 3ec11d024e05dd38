"""What `kdtool models` does."""

from __future__ import annotations

import fnmatch
import warnings
from typing import TYPE_CHECKING, Any

from kdtool.errors import FAILURES, Error
from kdtool.models import names as network_names
from kdtool.plugins.entry_points import names, reason_of
from kdtool.plugins.registry import make
from kdtool.utils.progress import progress, say

if TYPE_CHECKING:
    from kdtool.models.source import Source

KEPT_EACH = 20
"""After so many networks the numbers are written, so that little is lost where a long count is interrupted."""


def networks(pattern: str = "", *, most: int | None = None) -> list[dict[str, Any]]:
    """Return ``{network, parameters}`` for the networks of all sources whose names match.

    ``pattern`` is a part of the name, or a pattern of the whole name with ``*`` and ``?``; with a colon it begins with
    the source. The parameters are those of the network for its own classes and images, None if it cannot be built for
    them. Up to ``most`` networks (None: all) are built to count those that are not known yet, without memory for their
    weights; if there are more, their rows have no ``parameters``.
    """
    rows: list[dict[str, Any]] = []
    missing: list[tuple[Source, str]] = []
    for name in names("teachers"):
        try:
            source: Source = make("teachers", name)
            stored = network_names.read(name) or network_names.remember(source)
        except Exception as error:  # a plugin and its library may fail in any way
            say(f"{name} is left out: {reason_of(error)}")
            continue
        for network in stored.names:
            spec = f"{name}:{network}"
            if not _matches(spec, network, pattern):
                continue
            rows.append({"network": spec})
            if network in stored.parameters:
                rows[-1]["parameters"] = stored.parameters[network]
            else:
                missing.append((source, network))
    if missing and (most is None or len(missing) <= most):
        counted = _count_all(missing)
        for row in rows:
            row.setdefault("parameters", counted.get(row["network"]))
    return rows


def _matches(spec: str, network: str, pattern: str) -> bool:
    name, pattern = (spec if ":" in pattern else network).lower(), pattern.lower()
    return fnmatch.fnmatchcase(name, pattern if {*"*?["} & {*pattern} else f"*{pattern}*")


def _count_all(missing: list[tuple[Source, str]]) -> dict[str, int | None]:
    counted: dict[str, int | None] = {}
    fresh: dict[Source, dict[str, int | None]] = {}
    with progress("counting parameters", len(missing)) as advance:
        for number, (source, network) in enumerate(missing, start=1):
            fresh.setdefault(source, {})[network] = counted[f"{source.name}:{network}"] = count(source, network)
            advance()
            if number % KEPT_EACH == 0 or number == len(missing):
                for kept, parameters in fresh.items():
                    network_names.remember(kept, parameters)
                fresh.clear()
    return counted


def count(source: Source, network: str) -> int | None:
    """Return the parameters of a network for its own classes and images, or None if it cannot be built for them.

    It is built on the meta device, which stores no weights.
    """
    # Not at the top: names alone are listed without torch.
    import torch

    from kdtool.utils.seeds import seeded

    try:
        defaults = source.defaults(network)
        shape = {name: defaults[name] for name in ("classes", "in_channels", "image_size")}
        with seeded(0, "count"), warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            module = source.build(network, **shape)
    except (Error, *FAILURES):
        return None
    return sum(weight.numel() for weight in module.parameters())
