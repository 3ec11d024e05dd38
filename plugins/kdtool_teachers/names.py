"""The error for a network that a source does not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kdtool import UsageError


def unknown(source: str, network: str, known: Iterable[str]) -> UsageError:
    """Return the error that names the networks most like the one that was asked for."""
    known = list(known)
    close = difflib.get_close_matches(network, known, n=3, cutoff=0.5)
    if close:
        hint = f"; did you mean {', '.join(close)}?"
    elif len(known) <= 12:
        hint = f"; there are {', '.join(known)}"
    else:
        hint = f"; it has {len(known)} others"
    return UsageError(f"{source} knows no network {network!r}{hint}")
