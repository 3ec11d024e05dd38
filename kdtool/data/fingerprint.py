"""The fingerprint of a split, and what changed between two of them.

A checkpoint remembers the fingerprint of each split. The list of files behind a fingerprint is kept in the user's cache
directory, so that a change can be told file by file where the checkpoint was made on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kdtool.data.dataset import without_path
from kdtool.data.file_index import FileInfo
from kdtool.data.raw import UNLABELLED, RawSplit
from kdtool.errors import Error
from kdtool.utils.files import atomic, cache_directory
from kdtool.utils.formatting import printable

# How many lists of files are kept, and the longest one that is read.
KEPT_LISTS = 200

LONGEST_LIST = 2**28

Fingerprint = dict[str, Any]
"""``images`` (their number) and ``hash`` (32 hexadecimal digits), as plain data."""


def fingerprint_of(split: RawSplit, classes: Sequence[str], infos: Sequence[FileInfo] | None) -> Fingerprint:
    """Return the fingerprint of a split: of the names, the contents and the classes of its images.

    It does not depend on where the files lie, nor on the order of the classes. ``infos`` are those of the files; None
    for images in memory, whose bytes are hashed in their order.
    """
    if infos is None:
        assert isinstance(split.images, Tensor)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{tuple(split.images.shape)}".encode())
        digest.update(split.images.contiguous().numpy().tobytes())
        digest.update("\n".join(_class_of(label, classes) for label in split.labels.tolist()).encode())
        return {"images": len(split), "hash": digest.hexdigest()}
    files = _files(split, classes, infos)
    lines = (f"{key}\t{content}\n" for key, content in sorted(files.items()))
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape"))
    fingerprint = {"images": len(split), "hash": digest.hexdigest()}
    _remember(fingerprint, files)
    return fingerprint


def checked(content: Any) -> dict[str, Fingerprint]:
    """Return the fingerprints of splits that a file holds.

    Raises:
        Error: they are malformed.
    """
    fits = isinstance(content, Mapping) and all(
        isinstance(name, str)
        and isinstance(entry, Mapping)
        and set(entry) == {"images", "hash"}
        and type(entry["images"]) is int
        and isinstance(entry["hash"], str)
        and len(entry["hash"]) == 32
        and set(entry["hash"]) <= set("0123456789abcdef")
        for name, entry in content.items()
    )
    if not fits or len(content) > 8:
        raise Error("data description: the fingerprints of its splits are malformed; the file is damaged")
    return {name: dict(entry) for name, entry in content.items()}


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """Return in words what changed in each split that both describe; an empty list if nothing did."""
    texts = []
    for name in before:
        if name in now and before[name] != now[name]:
            texts.append(f"{name}: {_change(before[name], now[name])}")
    return texts


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identified a command ``before``, with the paths of ``now`` where only the place of images differs.

    Both are plain data, with the description of the data set in ``data`` and the name of the images without labels in
    ``unlabelled``. Only fingerprints tell whether the images in both places are the same, so without them nothing is
    replaced.
    """
    result = dict(before)
    old, new = prints_in(before), prints_in(now)
    if not old or set(old) != set(new):
        return result
    for part, key in (("data", "name"), ("unlabelled", "data")):
        name, other = _entry(before, part, key), _entry(now, part, key)
        if isinstance(name, str) and isinstance(other, str) and without_path(name) == without_path(other):
            result[part] = {**before[part], key: other}
    return result


def prints_in(about: Mapping[str, Any]) -> dict[str, Fingerprint]:
    """Return the fingerprints of the images in what identifies a command, see `moved`.

    Raises:
        Error: they are malformed.
    """
    return checked(_entry(about, "data", "splits") or {})


def _entry(about: Mapping[str, Any], part: str, key: str) -> Any:
    """Return an entry of a part of plain data, which a file may hold in another form; None if it is not there."""
    content = about.get(part)
    return content.get(key) if isinstance(content, Mapping) else None


def learned_from(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> dict[str, int] | None:
    """Return for each split that is held out how many of its images were in the train split before, byte for byte.

    Splits that are as they were are left out. None if the list of the files that were learned from is not known.
    """
    seen = _recalled(before["train"]) if "train" in before else None
    if seen is None:
        return None
    contents = {content.split()[0] for content in seen.values()}
    counts: dict[str, int] = {}
    for name in ("val", "test"):
        held_out = _recalled(now[name]) if name in now and before.get(name) != now[name] else None
        both = sum(content.split()[0] in contents for content in (held_out or {}).values())
        counts |= {name: both} if both else {}
    return counts


def _change(before: Fingerprint, now: Fingerprint) -> str:
    old, new = _recalled(before), _recalled(now)
    if old is None or new is None:
        if before["images"] != now["images"]:
            return f"{now['images']} images, {before['images']} before"
        return f"other images or labels, as many as before ({now['images']})"
    gone, added = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    other = sorted(key for key in set(old) & set(new) if old[key] != new[key])
    parts = (("gone", gone), ("added", added), ("changed", other))
    return ", ".join(f"{len(keys)} {word} ({_first(keys)})" for word, keys in parts if keys)


def _first(keys: Sequence[str]) -> str:
    return printable(keys[0], 80) + (", ..." if len(keys) > 1 else "")


def duplicates(splits: Mapping[str, tuple[RawSplit, Sequence[FileInfo]]]) -> list[dict[str, Any]]:
    """Return for each pair of splits that share images, byte for byte, how many of the second are in the first.

    Each entry has ``in``, ``of``, ``images`` and the keys of one such pair, ``first`` and ``second``. A split paired
    with itself tells how many of its images are copies of others there.
    """
    names, entries = list(splits), []
    keys_of = {name: {info.digest: key for key, info in zip(_keys(split), infos, strict=True)}
               for name, (split, infos) in splits.items()}  # fmt: skip
    for index, name in enumerate(names):
        split, infos = splits[name]
        counts = Counter(info.digest for info in infos)
        copies = sum(count - 1 for count in counts.values())
        if copies:
            digest = next(digest for digest, count in counts.items() if count > 1)
            pair = [key for key, info in zip(_keys(split), infos, strict=True) if info.digest == digest][:2]
            entries.append({"in": name, "of": name, "images": copies, "first": pair[0], "second": pair[1]})
        for other in names[index + 1 :]:
            shared = [info.digest for info in splits[other][1] if info.digest in counts]
            if shared:
                pair = [keys_of[name][shared[0]], keys_of[other][shared[0]]]
                entries.append({"in": name, "of": other, "images": len(shared), "first": pair[0], "second": pair[1]})
    return entries


def _keys(split: RawSplit) -> Sequence[str]:
    if split.keys is not None:
        return split.keys
    return [str(path) for path in split.images]  # type: ignore[union-attr]


def _class_of(label: int, classes: Sequence[str]) -> str:
    return "" if label == UNLABELLED else classes[label]


def _files(split: RawSplit, classes: Sequence[str], infos: Sequence[FileInfo]) -> dict[str, str]:
    """Return by the key of each file the hash of its content and the name of its class."""
    labels = split.labels.tolist()
    return {
        key: f"{info.digest.hex()} {_class_of(label, classes)}"
        for key, info, label in zip(_keys(split), infos, labels, strict=True)
    }


def _remember(fingerprint: Fingerprint, files: Mapping[str, str]) -> None:
    """Keep the list of files behind a fingerprint; the oldest lists make room."""
    directory = cache_directory()
    if directory is None:
        return
    folder = directory / "splits"
    path = folder / fingerprint["hash"]
    if path.exists():
        return
    with contextlib.suppress(OSError, Error):
        folder.mkdir(exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_bytes(zlib.compress(json.dumps(dict(files)).encode(), 1))
        lists = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime)
        for entry in lists[:-KEPT_LISTS]:
            entry.unlink(missing_ok=True)


def _recalled(fingerprint: Fingerprint) -> dict[str, str] | None:
    """Return the list of files behind a fingerprint, or None if it is not on this machine."""
    directory = cache_directory()
    if directory is None:
        return None
    try:
        data = (directory / "splits" / fingerprint["hash"]).read_bytes()
        content = json.loads(zlib.decompressobj().decompress(data, LONGEST_LIST))
    except (OSError, ValueError, zlib.error):
        return None
    if not isinstance(content, dict) or not all(isinstance(text, str) and text for text in content.values()):
        return None
    return content
