"""Write tensor files atomically, and read them without running code that they contain."""

from __future__ import annotations

import json
import mmap
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdtool.errors import Error
from kdtool.utils.files import atomic
from kdtool.utils.formatting import printable as printable
from kdtool.utils.forms import exact
from kdtool.utils.stand_ins import STAND_INS

# The pickle with a large checkpoint's names and shapes has a few megabytes. The limit bounds the memory that reading it
# takes, since the objects are far larger than their bytes in the pickle.
PICKLE_LIMIT = 64 << 20

# What is stored as it is.
_STORED = (Tensor, torch.Size, torch.dtype, torch.device, bool, int, float, str, bytes, set, type(None))

# Tensors may share memory (tied weights), but a small file must not claim a huge network in this way.
SHARING_LIMIT = 16

# The only object for which the safe reader allocates memory by a mere number in the pickle: bytearray(10**11).
_BYTEARRAY = b"\nbytearray\n"

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# How the reader's error names what the pickle would import: "... GLOBAL posix.system ..."
_IMPORTS = re.compile(r"GLOBAL ([\w.]*\w)")

# What Python's reader of zip archives raises.
_ZIP_DAMAGE = (
    *(zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, UnicodeDecodeError),
    *(RuntimeError, struct.error, zlib.error, OverflowError),
)

_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer instead of the file; run git lfs pull",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
    b"\x89HDF": "an HDF5 file (Keras?)",
    b"<": "a web page or other markup, so the download failed",
    b"{": "JSON",
    b"\x80": "a bare pickle, which could run code",
}


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain containers to a file atomically; numbers of numpy and the like become plain ones.

    Raises:
        Error: the file cannot be written, for example because the disk is full; or it could not be read again, since
            the content holds something else. A file that is there already stays.
    """
    content = storable(content, path.name)
    with atomic(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(content, file)
        except RuntimeError as error:
            # torch's writer hides the operating system's error.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def storable(value: Any, place: str) -> Any:
    """Return a value with plain numbers and texts, which `safe_load` reads again; ``place`` names it in the message.

    Raises:
        Error: it holds an object that the reader refuses.
    """
    value = exact(value)
    if isinstance(value, _STORED):
        return value
    if isinstance(value, OrderedDict) and all(isinstance(item, Tensor) for item in value.values()):
        return value  # weights, with the versions of their modules
    if isinstance(value, Path):
        return str(value)
    if type(value) in (list, tuple):
        return type(value)(storable(item, f"{place}[{number}]") for number, item in enumerate(value))
    if isinstance(value, dict):
        return {exact(key): storable(item, f"{place}.{printable(str(key), 40)}") for key, item in value.items()}
    raise Error(
        f"{place}: is a {type(value).__name__}, with which the file could not be read again; give numbers, texts or "
        "tensors, or lists and dicts of them"
    )


def safe_load(path: str | Path, *, foreign: bool = False) -> Any:
    """Return the content of a file written by `torch.save` or safetensors: tensors on the CPU and plain containers.

    Code in the file never runs. ``foreign`` files may also hold what training scripts save beside weights, such as
    numbers of numpy, paths and dates (see `kdtool.utils.stand_ins`). The sizes that the file claims are checked against
    its own size before and after it is read, and each record of a zip archive against its checksum. Nothing stays
    mapped from the file, so that it may be overwritten.

    Raises:
        Error: the file is missing, damaged or of another format; the message says which format.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise Error(f"{path}: a directory; name a file in it")
        if not path.is_file():
            raise Error(f"{path}: not a regular file; copy it to disk first")
        with open(path, "rb") as file:
            head = file.read(32)
    except FileNotFoundError as error:
        raise Error(f"{path}: no such file") from error
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise Error(f"{path}: the file is empty")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
        content = _load_torch(path, zipped=True, foreign=foreign)
    elif head.startswith(_LEGACY_MAGIC):
        content = _load_torch(path, zipped=False, foreign=foreign)
    elif _is_safetensors(head):
        content = _load_safetensors(path)
    else:
        kind = next((kind for start, kind in _KINDS.items() if head.lstrip().startswith(start)), "")
        raise Error(f"{path}: not a file of PyTorch or safetensors{': ' * bool(kind)}{kind}")
    _check_tensors(path, content, size)
    return content


def _is_safetensors(head: bytes) -> bool:
    """Return whether the file starts with the length of a header in eight bytes and then the header, which is JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Not load_file, whose tensors stay mapped from the file.
        tensors: dict[str, Tensor] = load(path.read_bytes())
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise Error(f"{path}: a damaged or truncated safetensors file ({_reason(error)})") from error
    return tensors


def safetensors_bytes(tensors: dict[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file with texts in its header; the same input gives the same bytes.

    The library writes the texts in an order that differs from one process to the next.
    """
    from safetensors.torch import save

    content: bytes = save(tensors, dict(texts))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file by their names; an empty dict for other files."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        if not _is_safetensors(file.read(32)):
            return {}
    try:
        with safe_open(path, framework="pt") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise Error(f"{path}: a damaged or truncated safetensors file ({_reason(error)})") from error


def _check_zip(path: Path, size: int) -> None:
    """Check that this is a zip archive as `torch.save` writes it, and that no bit of it has changed.

    Entries are neither compressed nor overlapping.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive, size)
            damaged = archive.testzip()
    except _ZIP_DAMAGE as error:
        raise Error(f"{path}: truncated or damaged ({_reason(error)}); copy or download it again") from error
    if damaged is not None:
        raise Error(
            f"{path}: damaged: the record {printable(damaged)} does not match its checksum; copy or download it again"
        )


def _check_entries(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    entries, comment = archive.infolist(), archive.comment
    names = [entry.filename for entry in entries]
    members = {name.partition("/")[2] for name in names}
    if "constants.pkl" in members:
        raise Error(f"{path}: a TorchScript archive, which is code; save the state_dict() of the module instead")
    if "data.pkl" not in members:
        raise Error(f"{path}: a zip archive with other content ({printable(', '.join(names[:3])) or 'nothing'})")
    if len(set(names)) < len(names):
        raise Error(f"{path}: damaged: two of its entries have the same name")
    # With a comment, two readers of the archive may find different directories in it.
    if comment or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Error(f"{path}: the archive is compressed or altered, not as torch.save writes it; save it again")
    if sum(entry.file_size for entry in entries) > size:
        raise Error(f"{path}: damaged: its entries claim more bytes than the file has")
    if any(entry.file_size > PICKLE_LIMIT for entry in entries if entry.filename.endswith(".pkl")):
        raise Error(f"{path}: damaged: its index is larger than {PICKLE_LIMIT >> 20} MiB")


def _load_torch(path: Path, *, zipped: bool, foreign: bool) -> Any:
    try:
        if _has_bytearray(path, zipped=zipped):
            raise Error(f"{path}: contains a bytearray; save only tensors and plain containers")
        # An open file: torch takes no name that is not UTF-8.
        with open(path, "rb") as file, torch.serialization.safe_globals([*STAND_INS] if foreign else []):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Error:
        raise
    except pickle.UnpicklingError as error:
        imports = _IMPORTS.findall(str(error))
        if not imports:
            raise Error(f"{path}: damaged: its index cannot be read; copy or download it again") from error
        raise Error(
            f"{path}: a pickled object ({imports[0]}), which would run code when read; "
            "save its state_dict() instead: torch.save(module.state_dict(), FILE)"
        ) from error
    except Exception as error:  # a damaged index can raise any exception in the reader
        raise Error(f"{path}: truncated or damaged ({_reason(error)}); copy or download it again") from error


def _has_bytearray(path: Path, *, zipped: bool) -> bool:
    if zipped:
        with open(path, "rb") as file:
            return _BYTEARRAY in torch._C.PyTorchFileReader(file).get_record("data.pkl")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_BYTEARRAY) >= 0


def _check_tensors(path: Path, content: Any, size: int) -> None:
    """Check that no tensor has more elements than the file can hold, and that all are dense CPU tensors.

    Containers are visited without recursion and each only once, since a pickle can nest them without limit.
    """
    claimed = 0
    seen: set[int] = set()
    pending = [content]
    while pending:
        item = pending.pop()
        if isinstance(item, Tensor):
            if item.layout is not torch.strided or item.device.type != "cpu" or item.is_quantized:
                raise Error(f"{path}: contains a sparse, quantised or empty tensor; save dense CPU tensors")
            claimed += _claimed_bytes(path, item, size)
        elif isinstance(item, dict | list | tuple | set) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item.values() if isinstance(item, dict) else item)
    if claimed > SHARING_LIMIT * size:
        raise Error(f"{path}: damaged: its tensors claim {claimed:,} bytes, the file has {size:,}")


def _claimed_bytes(path: Path, tensor: Tensor, size: int) -> int:
    claimed = tensor.numel() * tensor.element_size()
    stored = tensor.untyped_storage().nbytes()
    if claimed > stored or stored > size:
        raise Error(f"{path}: damaged: a tensor of shape {tuple(tensor.shape)} claims more elements than the file has")
    return claimed


def _reason(error: BaseException) -> str:
    """Return the first sentence of a library's error."""
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text.partition(". ")[0])
