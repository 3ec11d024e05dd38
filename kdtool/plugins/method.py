"""The base class of all methods: a named, frozen dataclass of options."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Self

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import BrokenPlugin, installed
from kdtool.plugins.options import Options
from kdtool.plugins.reserved import hidden_by

COMBINING = re.compile(r"\+(?=[A-Za-z])|:")
"""Separates the terms of a combined name: a colon, or a plus before a letter (so that 1e+3 remains a number)."""


def bad_name(cls: type[Method], reason: str) -> BrokenPlugin:
    """Return the error of a name that a method, or an option of it, cannot have; it names the distribution."""
    package = cls.__module__.partition(".")[0]
    same = [plugin for plugin in installed() if (plugin.kind, plugin.name) == (cls.kind, cls.name)]
    owners = [plugin for plugin in same if plugin.module.partition(".")[0] == package]
    return BrokenPlugin(f"{owners[0] if owners else cls.name}: {reason}; the plugin must choose another name")


class _Name:
    """The name of a method: that of its entry point, else the name of its class in lower case with hyphens."""

    def __get__(self, instance: object, owner: type[Method]) -> str:
        for plugin in installed():
            if (plugin.kind, plugin.module, plugin.attribute) == (owner.kind, owner.__module__, owner.__qualname__):
                return plugin.name
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", owner.__name__).lower()


class Method(Options):
    """Base class of all methods: a frozen dataclass of its options.

    Its ``name`` is that of its entry point. A class without an entry point, as in a test, is named after the class.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str]
    also_called: ClassVar[tuple[str, ...]] = ()
    """Other words for the method, for the message where a user writes one of them instead of its name."""
    hides: ClassVar[tuple[str, ...]] = ()
    """Options of kdtool that options of this method hide on purpose, such as ``momentum``; no other may be hidden."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "name" not in cls.__dict__:
            cls.name = _Name()  # type: ignore[assignment]
        super().__init_subclass__(**kwargs)

    @classmethod
    def summary(cls) -> str:
        """Return the help text: the first paragraph of the class's docstring, which is one sentence."""
        text = (cls.__doc__ or "").strip()
        if not text or text.startswith(f"{cls.__name__}("):
            # dataclass() writes the signature into a missing docstring.
            return cls.name
        return " ".join(text.split("\n\n")[0].split())

    @classmethod
    def check_beside(cls, groups: Collection[type[Options]]) -> None:
        """Check that no option hides one of the kind's command, or of its settings ``groups``, but those in ``hides``.

        Raises:
            BrokenPlugin: an option does.
        """
        allowed = {f"--{name.replace('_', '-')}" for name in cls.hides}
        if hidden := [flag for flag in hidden_by(cls, cls.kind, groups) if flag not in allowed]:
            raise bad_name(cls, f"its option {hidden[0]} would hide kdtool's own")

    @classmethod
    def fills_role(cls) -> bool:
        """Return whether this method can be the value of an option of another method."""
        return True

    @classmethod
    def combine(cls, text: str, find: Callable[[str], type[Self]]) -> type[Self]:
        """Return the method of a combined name such as ``kd:0.9+at:1000``, whose first term is this method.

        ``find`` returns the method with a given name.

        Raises:
            UsageError: methods of this kind cannot be combined.
        """
        raise UsageError(f"{text}: {cls.name} cannot be combined with a weight or another method; write {cls.name}")

    @classmethod
    def from_old_form(cls) -> type[Self]:
        """Return the class in its present form; a kind may override this to accept classes for an earlier release."""
        return cls
