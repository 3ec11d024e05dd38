"""Downloads of pretrained weights on a machine without a network connection, which should fail at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

WAIT = 3.0
"""Seconds that a server may take to accept a connection."""


@contextlib.contextmanager
def without_retries() -> Iterator[None]:
    """Keep huggingface_hub from asking a server that cannot be reached from here; it finds files in its cache.

    It would try each file six times, for a minute in all, and print a line for every try.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before and not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(url: str) -> bool:
    """Return whether a server, or the proxy in front of it, accepts a connection."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=WAIT).close()
    except (OSError, ValueError):
        return False
    return True


def is_missing(error: BaseException) -> bool:
    """Return whether a file is neither in the cache of huggingface_hub nor can be downloaded."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    return isinstance(error, HfHubHTTPError | LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError)
