"""The forms of plain data that a file may hold: what the code will read of it is checked when it is read."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Mapping
from typing import Any

from kdtool.utils.formatting import printable

# Deeper data could not be copied or written again.
DEEPEST = 32


class Each:
    """A list of values of one form, or a dictionary of them by text."""

    def __init__(self, form: Any) -> None:
        self.form = form


class Named(Each):
    """A dictionary of values of one form by text."""


class Either:
    """One of several forms."""

    def __init__(self, *forms: Any) -> None:
        self.forms = forms


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


# The largest number that a format can show, whole or not.
_LARGEST = 1e300

NUMBER, TEXT, FLAG, COUNT = _is_number, str, bool, lambda value: type(value) is int and 0 <= value < 1 << 63

SECONDS = lambda value: _is_number(value) and abs(value) <= 1e10  # noqa: E731
"""Some hundred years at most: a duration that can be shown."""

# A cell of a table; what is none is left out of the table.
CELL = Either(None, TEXT, FLAG, NUMBER, lambda value: isinstance(value, float) and not math.isfinite(value))

ROWS = Each({})


def exact(value: Any) -> Any:
    """Return a number or a text of another type, such as numpy's or a member of an enum, as int, float or str.

    Everything else is returned as it is. The reader of checkpoints takes no numbers and texts of other types.
    """
    if type(value) in (bool, int, float, str):
        return value
    numpy = sys.modules.get("numpy")  # what a program has not imported, it does not give
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if isinstance(value, str):
        return str.__str__(value)  # not that of an enum, which names the member
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def misfit(value: Any, form: Any, where: str = "") -> str | None:
    """Return the place where a value has not its form, None if it has.

    A form is a type, None, a function that says whether a value is right, `Each`, `Named`, `Either`, or a dictionary of
    forms by key. In such a dictionary keys may be missing, unless they end in ``!``, and there may be others, whose
    values are any plain data.
    """
    if isinstance(form, Either):
        return None if any(misfit(value, one) is None for one in form.forms) else where
    if isinstance(form, Each):
        items = value.items() if isinstance(value, Mapping) and isinstance(form, Named) else None
        if items is None and (isinstance(form, Named) or not isinstance(value, list | tuple)):
            return where
        for key, item in items if items is not None else enumerate(value):
            if items is not None and not isinstance(key, str):
                return where
            place = misfit(item, form.form, _inside(where, key))
            if place is not None:
                return place
        return None
    if isinstance(form, Mapping):
        return _misfit_in(value, form, where)
    if form is None:
        return None if value is None else where
    right = isinstance(value, form) if isinstance(form, type) else form(value)
    return None if right else where


def _misfit_in(value: Any, form: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return where
    for name in form:
        if name.endswith("!") and name[:-1] not in value:
            return _inside(where, name[:-1])
    forms = {name.removesuffix("!"): one for name, one in form.items()}
    for key, item in value.items():
        place = misfit(item, forms[key], _inside(where, key)) if key in forms else _unplain(item, _inside(where, key))
        if place is not None:
            return place
    return None


def _unplain(value: Any, where: str) -> str | None:
    """Return the place of a value that is no plain data, or is nested too deeply."""
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > DEEPEST:
            return where
        if isinstance(item, Mapping):
            if not all(isinstance(key, str | int | float | bool | None) for key in item):
                return where
            pending += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            pending += [(inner, depth + 1) for inner in item]
        elif (isinstance(item, int) and abs(item) >= 1 << 63) or not isinstance(item, str | int | float | bool | None):
            return where
    return None


def _inside(where: str, key: Any) -> str:
    name = str(key + 1) if type(key) is int else printable(str(key), 40)
    return f"{where}.{name}" if where else name
