"""What `kdtool trust` does."""

from __future__ import annotations

from typing import Any

from kdtool.errors import UsageError
from kdtool.plugins import trust as trusted


def trust(*packages: str, remove: bool = False) -> list[dict[str, Any]]:
    """Trust packages of your own code from now on, or no more with ``remove``, and return all that are trusted.

    A package is given by its name or its path. kdtool may then import it to build networks that commands and
    checkpoints name, such as ``mypackage.nets:make_net``. Each entry has ``package``, ``path`` and ``there``: whether
    it is still in its place.

    Raises:
        UsageError: there is no such package, or it is not trusted.
        Error: it cannot be remembered.
    """
    if remove and not packages:
        raise UsageError("--remove: name the packages to stop trusting")
    for package in packages:
        if remove:
            trusted.distrust(package)
        else:
            trusted.trust(package)
    return [
        {"package": place.package, "path": str(place), "there": trusted.is_there(place)}
        for place in trusted.remembered()
    ]
