"""The base of all methods: a frozen dataclass of its options that has a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Self

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import installed
from kdtool.plugins.options import Options

# A plus before a letter or a colon: 1e+3 is a number, 2:4 is the name of a pruner.
COMBINING = re.compile(r"\+(?=[A-Za-z])|:")


class _Name:
    """The name of a method's class: that of its entry point, else its class's own in lower case with hyphens."""

    def __get__(self, instance: object, owner: type[Method]) -> str:
        for plugin in installed():
            if (plugin.kind, plugin.module, plugin.attribute) == (owner.kind, owner.__module__, owner.__qualname__):
                return plugin.name
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", owner.__name__).lower()


class Method(Options):
    """Base of all methods: a frozen dataclass of its options.

    Its ``name`` is that of its entry point. A class that has none, as in a test, is named after itself.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "name" not in cls.__dict__:
            cls.name = _Name()  # type: ignore[assignment]
        super().__init_subclass__(**kwargs)

    @classmethod
    def summary(cls) -> str:
        """Return the first paragraph of the class's docstring, one sentence, which is its help text."""
        text = (cls.__doc__ or "").strip()
        if not text or text.startswith(f"{cls.__name__}("):
            # A dataclass without a docstring is given its signature.
            return cls.name
        return " ".join(text.split("\n\n")[0].split())

    @classmethod
    def fills_role(cls) -> bool:
        """Return whether this method can be an option of another method."""
        return True

    @classmethod
    def combine(cls, text: str, find: Callable[[str], type[Self]]) -> type[Self]:
        """Return the method that a text such as ``kd:0.9+at:1000`` describes, whose first term is this method.

        ``find`` returns the method of a name.

        Raises:
            UsageError: methods of this kind cannot be combined.
        """
        raise UsageError(f"{text}: {cls.name} cannot be combined with a weight or another method; write {cls.name}")

    @classmethod
    def from_old_form(cls) -> type[Self]:
        """Return the class as it has to be now, where a plugin brings it in the form of an earlier release."""
        return cls
