"""Find the files of a data set: those of a published one, downloaded on request, and those at a user's path."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

from kdtool import Error
from kdtool.utils import printable


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


def located(argument: str, root: Path | None, fits: Callable[[Path], bool], kind: str) -> Path:
    """Return the absolute form of a user's path: as it is given, below ``root``, or ``root`` itself.

    ``fits`` says whether a path is one of those that are meant, ``kind`` what they are.

    Raises:
        kdtool.Error: none fits, or a checkpoint cannot remember the path as one line of text.
    """
    path = Path(argument).expanduser()
    candidates = [path]
    if root is not None:
        # A checkpoint stores the absolute path; if the folder was moved, --data-dir names it or its new parent.
        candidates += [root / path.name] if path.is_absolute() else [root / path]
        candidates += [root] if root.name == path.name else []
    for candidate in candidates:
        if fits(candidate):
            # What belongs to a file lies beside a link to it, which also has the suffix (DVC, git-annex, the Hub).
            return _checked(candidate.resolve() if candidate.is_dir() else candidate.parent.resolve() / candidate.name)
    tried = ", ".join(printable(str(candidate), 400) for candidate in dict.fromkeys(candidates))
    raise Error(f"there is no {kind} {tried}; give its path, or its parent folder with --data-dir")


def _checked(path: Path) -> Path:
    text = str(path)
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise Error(
            f"{printable(text, 400)}: the path has a control character, a line break or is not UTF-8 (shown as ?); "
            "rename the folder"
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
