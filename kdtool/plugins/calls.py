"""What every function of the Python API does around its work."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from kdtool.errors import UsageError
from kdtool.plugins.options import exactly
from kdtool.utils.formatting import printable
from kdtool.utils.seeds import alone

P = ParamSpec("P")
T = TypeVar("T")


def public(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that works whatever its caller has set of torch (see `alone`).

    Numbers of numpy and members of enums in its arguments become plain ones: as they are, they would be another option
    in the history, give another seed, and make a file that nobody can read.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with alone():
                return function(*map(_exact, args), **{name: _exact(value) for name, value in kwargs.items()})
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise UsageError(f"{printable(str(error.filename), 40)}: the name is too long for a file") from error

    return call


def _exact(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(_exact, value))
    if type(value) is dict:
        return {exactly(key): _exact(item) for key, item in value.items()}
    return exactly(value)
