"""Downloads of pretrained weights on a machine without a network connection, which should fail at once."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

HUB = "https://huggingface.co"


@contextlib.contextmanager
def without_retries() -> Iterator[None]:
    """Keep huggingface_hub from asking for files whose server has no address here; it finds those in its cache.

    It would try each file six times, for a minute in all, and print a line for every try.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before and not _reachable(os.environ.get("HF_ENDPOINT", HUB)):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(url: str) -> bool:
    """Return whether the name of a server can be resolved, or a proxy does that."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
    except OSError:
        return False
    return True


def is_missing(error: Exception) -> bool:
    """Return whether a file is neither in the cache of huggingface_hub nor can be downloaded."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    return isinstance(error, HfHubHTTPError | LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError)
