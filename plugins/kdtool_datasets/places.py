"""Find the files of a published data set, and download them on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdtool import Error


def find(root: Path | None, folder: str, *, download: Callable[[str], object] | None = None) -> Path:
    """Return ``root / folder``, after a call of ``download(root)``, which must skip files that are already there.

    Raises:
        kdtool.Error: no root is given, the folder is missing, or the download fails.
    """
    if root is None:
        raise Error(f"no data directory is set; name the one that holds {folder} with --data-dir or KDTOOL_DATA")
    path = root / folder
    if download is not None:
        _fetch(root, download)
    if not path.is_dir():
        raise Error(
            f"there is no {path}; name the directory that holds {folder} with --data-dir or KDTOOL_DATA"
            ", or download it with --download"
        )
    return path


def _fetch(root: Path, download: Callable[[str], object]) -> None:
    """Call ``download``; turn its many kinds of failure into one error."""
    import tarfile
    import zlib
    from http.client import HTTPException

    try:
        root.mkdir(parents=True, exist_ok=True)
        download(str(root))
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise Error(f"cannot be downloaded ({reason}); put its files into {root} by hand") from error
