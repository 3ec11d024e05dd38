"""Checks of the files that steps read and write, before any step runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdtool.errors import UsageError
from kdtool.utils.kinds import is_checkpoint_folder


def check_file(path: Path) -> None:
    """Check that a file that a step reads exists; a folder that is read as a checkpoint counts as one.

    Raises:
        UsageError: it is missing or another directory; the message has similar names.
    """
    if is_checkpoint_folder(path):
        return
    if path.is_dir():
        from kdtool.cli.explain import directory

        raise UsageError(directory(path))
    if not path.exists():
        from kdtool.cli.explain import missing_file

        raise UsageError(missing_file(path))


def check_target(output: Path, suffix: str, *, force: bool, resume: bool, endings: Sequence[str] = ()) -> None:
    """Check that a step can write its file, and that no run of it exists already.

    Further files beside it have these ``endings`` in place of the suffix.

    Raises:
        UsageError: the file cannot be written, has another suffix, or exists already, or an earlier run exists.
    """
    from kdtool.training.run_directory import check_free, directory_of, is_unused
    from kdtool.utils.files import beside, check_output

    if output.suffix != suffix:
        exported = (suffix, output.suffix) == (".pt", ".onnx")
        hint = "; kdtool export writes ONNX: add export -o FILE.onnx" if exported else ""
        raise UsageError(f"-o {output}: the name of this file must end in {suffix}{hint}")
    earlier = directory_of(output)
    if resume and not is_unused(earlier):
        return
    for file in (output, *(beside(output, ending) for ending in endings)):
        check_output(file, force=force)
    if suffix == ".pt":
        check_free(earlier, force=force)


def has_begun(output: Path, *, recognised: bool) -> bool:
    """Return whether an earlier process was at the step that writes ``output``; its run tells it.

    A step that recognises its result has no run: its file tells it.
    """
    from kdtool.training.run_directory import directory_of, is_unused

    return (recognised and output.exists()) or not is_unused(directory_of(output))
