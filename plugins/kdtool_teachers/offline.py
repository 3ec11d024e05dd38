"""Downloads of pretrained weights on a machine without a network connection, which should fail at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from kdtool import Error

WAIT = 3.0
"""Seconds that a server may take to accept a connection."""

UNAVAILABLE = "its pretrained weights are not here and cannot be downloaded; give a downloaded file with --weights"


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


def check_timm(network: str) -> None:
    """Check that pretrained weights of a network of timm may be had: from a cache, or from the Hugging Face Hub.

    Raises:
        Error: no cache can have them, and the Hub cannot be reached.
    """
    # They are in timm/NETWORK.TAG, or in the repository of their authors, whose name is not known before timm is.
    may_be_cached = any(user != "timm" or name.startswith(network) for user, name in cached_repositories())
    if not may_be_cached and not _torch_has_files() and not hub_answers():
        raise Error(f"timm:{network}: {UNAVAILABLE}")


def check_torchvision(network: str) -> None:
    """Check that pretrained weights of a network of torchvision may be had: from a cache, or from its server.

    Raises:
        Error: torch's cache is empty, and the server cannot be reached.
    """
    if not _torch_has_files() and not _reachable("https://download.pytorch.org"):
        raise Error(f"torchvision:{network}: {UNAVAILABLE}")


def cached_repositories() -> list[tuple[str, str]]:
    """Return user and name of each repository of a network in the cache of huggingface_hub."""
    from huggingface_hub import constants

    found = Path(constants.HF_HUB_CACHE).expanduser().glob("models--*--*")
    return [(user, name) for _, user, name in (path.name.split("--", 2) for path in found)]


def hub_answers() -> bool:
    """Return whether the Hugging Face Hub may be asked, and accepts a connection."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT)


def _torch_has_files() -> bool:
    """Return whether there are weights where ``torch.hub`` keeps its downloads."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return any(Path(home).expanduser().glob("hub/checkpoints/*"))


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
