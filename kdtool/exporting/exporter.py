"""The contract of an exporter, and the choice of one by the files that it writes."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.errors import UsageError, first_line
from kdtool.exporting.names import option_names
from kdtool.plugins.entry_points import BrokenPlugin, installed
from kdtool.plugins.method import Method, bad_name
from kdtool.plugins.method_code import misreturned, not_overridden, returned
from kdtool.plugins.options import Options
from kdtool.plugins.registry import method_class
from kdtool.utils.files import check_output, check_output_folder, left_over
from kdtool.utils.strict_json import dumps

if TYPE_CHECKING:
    from kdtool.models.architecture import Network


class Exporter(Method):
    """Write a network in another format and measure it."""

    kind: ClassVar[str] = "exporters"
    suffix: ClassVar[str] = ""
    """The suffix of its files, such as ``.onnx``; empty if it writes folders."""
    companions: ClassVar[tuple[str, ...]] = ()
    """The suffixes of the files that it writes beside its own, under the same name, such as ``.bin``.

    Where its own file cannot hold the metadata, one of them does, with the SHA-256 of that file as hexadecimal digits:
    so ``--resume`` knows a finished one.
    """
    folder: ClassVar[bool] = False
    """Whether it writes a folder; then ``--NAME DIR`` names the folder on the command line."""
    needs: ClassVar[str] = ""
    """The module that has to be installed."""
    install: ClassVar[str] = ""
    """What a user types to install it, such as ``pip install 'kdtool[openvino]'``."""

    @property
    def ending(self) -> str:
        """The end of the default names of its files, such as ``-int8.onnx``; by default the suffix alone."""
        return self.suffix

    @property
    def uses_validation(self) -> bool:
        """Whether `export` takes ``val``: validation images, as ``test`` has those of the test split."""
        return False

    @property
    def uses_content(self) -> bool:
        """Whether `export` takes ``content``: what a checkpoint holds, without the paths of this machine."""
        return False

    @classmethod
    def check_beside(cls, groups: Collection[type[Options]]) -> None:
        """Check the names of the options, and that of the exporter, which is an option of ``kdtool export`` too.

        Raises:
            BrokenPlugin: an option of kdtool has the name.
        """
        super().check_beside(groups)
        if cls.name in option_names():
            raise bad_name(cls, f"kdtool export has an option --{cls.name}")

    def check(self, output: Path, *, force: bool) -> None:
        """Check that what it needs is installed, and that ``output`` can be written.

        Raises:
            UsageError: a package is missing, or ``output`` has another suffix, exists already or cannot be written.
        """
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise UsageError(f"--{self.name}: {self.needs} is not installed; {self.install}")
        try:
            str(output).encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"-o {output}: libraries write no name that is not UTF-8; choose another one") from error
        if self.folder:
            check_output_folder(output, force=force)
            return
        if output.suffix != self.suffix:
            raise UsageError(f"-o {output}: the name of this file must end in {self.suffix}")
        for path in (output, *(output.with_suffix(suffix) for suffix in self.companions)):
            check_output(path, force=force)

    def is_cut_short(self, output: Path) -> bool:
        """Return whether an export was killed when it had moved a file beside ``output``, but not yet ``output``."""
        companions = [output.with_suffix(suffix) for suffix in self.companions]
        moved = [file.name for file in companions if file.exists()]
        left = [{file.name for file in folder.iterdir()} for folder in left_over(output) if folder.is_dir()]
        return any(output.name in names and not names.intersection(moved) for names in left)

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Any = None,
    ) -> dict[str, Any]:
        """Write ``output`` and return the measurements as plain data.

        ``metadata`` is stored in the file. ``teacher`` is the network with which the latency is compared. ``test``
        yields (images, labels) batches of the test split each time it is iterated: images float32 [batch, channels,
        height, width], normalised, and labels int64 [batch]. An exporter that `uses_validation` takes ``val`` too,
        such batches of the validation split; it is None if there is none. One that `uses_content` takes ``content``.
        """
        raise not_overridden(self, "export")

    def draft(self, network: Network, output: Path, *, val: Any = None) -> None:
        """Write a file that is about as large and as fast as that of `export`, for a measurement alone.

        It may be made in a quicker way and without the checks. Without ``val``, the validation images as `export` takes
        them, the weights and ranges of a file of lower precision may be any. By default it is what `export` writes.

        Raises:
            Error: the network cannot be written.
        """
        extra = {"val": val} if self.uses_validation else {}
        self.export(network, output, metadata={}, **extra)

    def export_unchecked(self, network: Network, output: Path, *, metadata: Mapping[str, str]) -> None:
        """Write a file that has as many bytes as that of `export`, for a measurement of its size alone.

        It may be made without the checks, and its weights may be any. By default it is what `export` writes.

        Raises:
            Error: the network cannot be written.
        """
        self.export(network, output, metadata=metadata)


GROUPS = ("accuracy", "latency")
"""The measurements that are numbers by name, or None."""


def check_exported(exporter: Exporter, output: Path, measured: Any) -> None:
    """Check that an exporter wrote the files that it declares, and returned measurements as plain data.

    Raises:
        Error: it did not.
    """
    returned(exporter, measured, Mapping, "measurements by name")
    for path in (output, *(output.with_suffix(suffix) for suffix in exporter.companions)):
        if not (path.is_dir() if exporter.folder and path == output else path.is_file()):
            raise misreturned(exporter, f"without writing {path}")
    for name in GROUPS:
        returned(exporter, measured.get(name), (Mapping, type(None)), f"numbers by name as {name}")
    for name, value in measured.items():
        try:
            dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise misreturned(
                exporter, f"measurements of which {name} is no plain data: {first_line(error)}"
            ) from error


def exporter_of_suffix(suffix: str) -> type[Exporter]:
    """Return the first installed exporter that writes files with ``suffix``, such as ``.onnx``; kdtool's own first.

    So the core can ask for a file that onnxruntime reads without knowing an exporter by name.

    Raises:
        UsageError: no installed exporter writes such files.
    """
    plugins = [plugin for plugin in installed() if plugin.kind == Exporter.kind]
    for plugin in sorted(plugins, key=lambda plugin: not plugin.builtin):
        try:
            exporter: type[Exporter] = method_class(Exporter.kind, plugin.name)
        except BrokenPlugin:
            continue
        if exporter.suffix == suffix:
            return exporter
    raise UsageError(f"no installed exporter writes {suffix} files; install one, or see what is wrong: kdtool plugins")


def check_measurable(exporter: Exporter) -> None:
    """Check that an exporter's options tell how files that are not made yet are to be measured here.

    Raises:
        UsageError: they name a measurement of another device, or a provider that is not installed, or its files are not
            for onnxruntime, in which they are measured.
    """
    if exporter.suffix != ".onnx":
        what = f"{exporter.suffix} files" if exporter.suffix else "folders"
        raise UsageError(
            f"--exporter {exporter.name}: writes {what}, and latency is measured in onnxruntime; name onnx"
        )
    if getattr(exporter, "latency_from", None) is not None:
        raise UsageError(
            "--exporter-latency-from: the networks that are measured are made while it runs; measure on the device "
            "itself (--exporter-provider, --exporter-threads, --exporter-batch), or give a budget of MACs"
        )
    from kdtool.exporting.sessions import check_provider

    check_provider(getattr(exporter, "provider", "cpu"))
