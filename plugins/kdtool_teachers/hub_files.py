"""The files of a network on the Hugging Face Hub, from its cache, from the server or from a folder."""

from __future__ import annotations

import re
from pathlib import Path

from kdtool import Error, UsageError
from kdtool_teachers.offline import cached_repositories, hub_answers, is_missing, without_retries

CONFIG, WEIGHTS, OWN = "config.json", "model.safetensors", "kdtool.json"

_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,96})?")


def is_folder(network: str) -> bool:
    """Return whether a name is that of a folder, such as ``./resnet``, and not USER/NAME."""
    return network.startswith((".", "/", "~")) or not _ID.fullmatch(network)


def file_of(network: str, name: str) -> Path:
    """Return the path of a file of a network; it is downloaded unless it is in the cache of huggingface_hub.

    Raises:
        UsageError: the name is neither USER/NAME nor a folder.
        Error: there is no such file, or the Hub cannot be reached.
    """
    return _in_folder(network, name) if is_folder(network) else _downloaded(network, name)


def check_cached(network: str) -> None:
    """Check that the files of ``USER/NAME`` may be had, without any library of networks.

    Raises:
        Error: its repository is not in the cache, and the Hub cannot be reached.
    """
    user, name = network.partition("@")[0].split("/")
    if (user, name) not in cached_repositories() and not hub_answers():
        raise Error(f"hf:{network}: {_UNREACHED.format(CONFIG)}")


def _in_folder(network: str, name: str) -> Path:
    folder = Path(network).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"hf:{network}: is written as hf:USER/NAME for the Hub, or hf:./FOLDER, and there is no such folder"
        )
    path = folder / name
    if not path.is_file():
        raise Error(f"hf:{network}: {_lacks(name, (folder / OWN).is_file(), str(folder))}")
    return path


def _lacks(name: str, has_own: bool, folder: str) -> str:
    if name == WEIGHTS:
        return f"has no {WEIGHTS}, and kdtool reads no pickle of a stranger; convert its weights to safetensors"
    if has_own:
        return f"holds a network that kdtool edited; use its folder in place of a checkpoint: kdtool inspect {folder}"
    return f"has no {name}, which describes a network of timm"


def _downloaded(network: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = network.partition("@")
    try:
        with without_retries():
            return Path(hf_hub_download(repository, name, revision=revision or None))
    except LocalEntryNotFoundError as error:
        raise Error(f"hf:{network}: {_UNREACHED.format(name)}") from error
    except RevisionNotFoundError as error:
        raise Error(f"hf:{network}: the Hub has no revision {revision} of it") from error
    except RepositoryNotFoundError as error:
        raise Error(f"hf:{network}: the Hub has no such network, or it is private: hf auth login") from error
    except EntryNotFoundError as error:
        raise Error(f"hf:{network}: {_lacks(name, name == CONFIG and _has_own(network), 'FOLDER')}") from error
    except Exception as error:  # of three download libraries, in any way
        if is_missing(error):
            raise Error(f"hf:{network}: {_UNREACHED.format(name)}") from error
        raise Error(f"hf:{network}: {name} cannot be downloaded: {' '.join(str(error).split())[:200]}") from error


def _has_own(network: str) -> bool:
    try:
        _downloaded(network, OWN)
    except Error:
        return False
    return True


_UNREACHED = (
    "{} is not in the cache, and the Hub cannot be reached; copy the network's folder from elsewhere: hf:./FOLDER"
)
