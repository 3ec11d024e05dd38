"""Networks that functions of the user's own code build, without a plugin."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kdtool import Error, Source, UsageError, option
from kdtool.errors import first_line
from kdtool.plugins import function_at
from kdtool.utils import as_keywords, read_keywords

if TYPE_CHECKING:
    from torch import nn

PARAMETERS = {
    "classes": ("classes", "num_classes", "n_classes"),
    "in_channels": ("in_channels", "in_chans"),
    "image_size": ("image_size", "img_size"),
}
"""How a function may call what kdtool tells it."""


class Python(Source):
    """Build a network by a function or class of your own code, such as mypackage.nets:make_net.

    It gets the number of classes as ``classes`` or ``num_classes`` and, if it has such parameters, the shape of the
    images as ``in_channels`` or ``in_chans`` and ``image_size`` or ``img_size``. Its package has to be trusted:
    --trust mypackage.
    """

    arguments: str = option("", help="keyword arguments of the function, such as width=32,depths=(2,2)")

    def __post_init__(self) -> None:
        """Check the form of the arguments."""
        super().__post_init__()
        try:
            read_keywords(self.arguments)
        except UsageError as error:
            raise UsageError(f"--arguments: {error}") from error

    @classmethod
    def collected(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the source: all are arguments of the function."""
        others = {name: value for name, value in options.items() if name != "arguments"}
        return {"arguments": as_keywords({**read_keywords(str(options.get("arguments", ""))), **others})}

    def networks(self) -> list[str]:
        """Return no names: any function is one."""
        return []

    def prepare(self, network: str) -> None:
        """Import the function.

        Raises:
            UsageError: there is none, or it does not look like one that builds networks.
            Error: its package is not trusted, or cannot be imported.
        """
        self._factory(network)

    def defaults(self, network: str) -> dict[str, Any]:
        """Return the classes and the shape of the images, as far as the function or ``arguments`` have values."""
        _, parameters = self._factory(network)
        own = read_keywords(self.arguments)
        values = {}
        for key, names in PARAMETERS.items():
            for name in names:
                value = own.get(name, parameters[name].default if name in parameters else None)
                if type(value) is int:
                    values[key] = value
        return values

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, as the function makes it.

        Raises:
            UsageError: there is no such function, or it does not take these arguments.
            Error: its package is not trusted, or the function fails or returns something else.
        """
        from torch import nn

        if pretrained:
            raise UsageError(f"{network}: kdtool knows no pretrained weights of your code; give a file with --weights")
        factory, parameters = self._factory(network)
        arguments = read_keywords(self.arguments)
        told = {"classes": classes, "in_channels": in_channels, "image_size": image_size}
        for key, names in PARAMETERS.items():
            arguments |= {name: told[key] for name in names if name in parameters and name not in arguments}
        try:
            inspect.signature(factory).bind(**arguments)
        except TypeError as error:
            raise UsageError(f"{network}: {error}; arguments are given behind a comma: {network},name=value") from error
        try:
            # What a function prints is no result of a command.
            with contextlib.redirect_stdout(sys.stderr):
                module = factory(**arguments)
        except (Exception, SystemExit) as error:  # the code of a user may fail in any way
            raise Error(f"{network}: fails with {type(error).__name__}: {first_line_of(error)}") from error
        if not isinstance(module, nn.Module):
            raise Error(f"{network}: returns {type(module).__name__}, and a network is a torch.nn.Module")
        return module.eval()

    def _factory(self, network: str) -> tuple[Callable[..., Any], Mapping[str, inspect.Parameter]]:
        """Return the function and its parameters.

        A checkpoint may name any function of a package that is trusted, and its arguments. So it must be one that is
        meant to build networks.
        """
        from torch import nn

        function = function_at(network)
        try:
            signature = _signature(function)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{network}: does not tell its parameters ({error})") from error
        is_network = isinstance(function, type) and issubclass(function, nn.Module)
        told = signature.return_annotation
        promises = (isinstance(told, type) and issubclass(told, nn.Module)) or str(told).rpartition(".")[2] == "Module"
        if not (is_network or promises or {*PARAMETERS["classes"]} & {*signature.parameters}):
            raise UsageError(
                f"{network}: does not look like a function that builds a network: it has no parameter classes or "
                "num_classes, and is not annotated with -> nn.Module; add one of them"
            )
        return function, signature.parameters


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the parameters of a function; annotations that are texts become types where that is possible."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # an annotation is code, and may name what is imported for type checkers only
        return inspect.signature(function)


def first_line_of(error: BaseException) -> str:
    """Return the first line of what an error or an exit says."""
    return first_line(error) if isinstance(error, Exception) else f"sys.exit({getattr(error, 'code', None)!r})"
