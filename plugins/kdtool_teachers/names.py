"""The error for the name of a network that a source does not have."""

from __future__ import annotations

from collections.abc import Iterable

from kdtool import UsageError
from kdtool.errors import nearest


def unknown(source: str, network: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name; it lists the most similar names, or says what the network is for."""
    from kdtool.models import other_task

    known = list(known)
    if task := other_task(network):
        return UsageError(f"{source} has no network {network!r}{task}")
    others = f"; there are {', '.join(known)}" if len(known) <= 12 else f"; it has {len(known)} others"
    return UsageError(f"{source} knows no network {network!r}{nearest(network, known) or others}")
