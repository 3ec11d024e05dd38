"""What all methods are, and how one is made of its name and options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from kdtool.errors import UsageError, nearest
from kdtool.options import OptionInfo, Options


class Method(Options):
    """Base of all methods: a frozen dataclass of its options, named after its class."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()
        super().__init_subclass__(**kwargs)

    @classmethod
    def summary(cls) -> str:
        """Return the first paragraph of the class's docstring, one sentence, which is its help text."""
        text = (cls.__doc__ or "").strip()
        if not text or text.startswith(f"{cls.__name__}("):
            # A dataclass without a docstring is given its signature.
            return cls.name
        return " ".join(text.split("\n\n")[0].split())


def make(kind: str, name: str, /, **options: Any) -> Any:
    """Return the method ``name`` of a kind with these options.

    Raises:
        UsageError: there is no such method, or an option is unknown, missing or out of bounds.
    """
    from kdtool.plugins import method_class

    cls = method_class(kind, name)
    known = [info.name for info in cls.describe()]
    for given in options:
        if given not in known:
            raise UsageError(f"{name} has no option {given!r}{nearest(given, known)}")
    return cls(**options)


def resolve(info: OptionInfo, value: Any) -> Any:
    """Return the method that an option of another method names.

    ``value`` is a name, plain data (``{"name": "halve", "init": "inherit"}``) or a method. The defaults
    that the option declares for its own default method hold wherever that method is named.

    Raises:
        UsageError: there is no such method, or it is of another kind.
    """
    from kdtool.plugins import method_class

    kind = info.kind or ""
    if isinstance(value, Method):
        if value.kind != kind:
            raise UsageError(f"{info.flag}: {value.name} is one of the {value.kind}, not of the {kind}")
        return value
    if value is None and info.optional:
        return None
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name", info.method), str):
        raise UsageError(f"{info.flag}: expected the name of one of the {kind}, got {value!r}")
    options = dict(value)
    name = options.pop("name", info.method)
    if not fills_role(method_class(kind, name)):
        raise UsageError(f"{info.flag} {name}: is a strategy and has no loss; use it as --method")
    return make(kind, name, **({**info.defaults, **options} if name == info.method else options))


def fills_role(cls: type[Method]) -> bool:
    """Return whether a method can be an option of another: distillers are for their loss, and strategies have none."""
    from kdtool.methods import Distiller

    return not issubclass(cls, Distiller) or cls.loss is not Distiller.loss
