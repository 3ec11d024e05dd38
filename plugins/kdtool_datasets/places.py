"""Where the files of a published data set are, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdtool import Error


def find(root: Path | None, folder: str, *, download: Callable[[str], object] | None = None) -> Path:
    """Return ``root / folder``; ``download`` is called with the root first, and leaves alone what is there.

    Raises:
        kdtool.Error: it is not there, or cannot be downloaded.
    """
    if root is None:
        raise Error(f"no directory is known; name the one that holds {folder} with --data-dir or KDTOOL_DATA")
    place = root / folder
    if download is not None:
        _fetch(root, download)
    if not place.is_dir():
        raise Error(
            f"there is no {place}; name the directory that holds {folder} with --data-dir or KDTOOL_DATA"
            ", or fetch it with --download"
        )
    return place


def _fetch(root: Path, download: Callable[[str], object]) -> None:
    import tarfile
    import zlib
    from http.client import HTTPException

    try:
        root.mkdir(parents=True, exist_ok=True)
        download(str(root))
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise Error(f"cannot be downloaded ({reason}); put its files into {root} by hand") from error
