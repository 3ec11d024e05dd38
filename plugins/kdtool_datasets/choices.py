"""What a user adds to the name of a data set, as in ``parquet:photos.parquet,label=breed``."""

from __future__ import annotations

import re
from pathlib import Path

from kdtool import UsageError

_ADDED = re.compile(r"(.*?)((?:,[A-Za-z_]+=[^,]*)*)", re.DOTALL)


def split_choices(argument: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Return the text before the first ``,NAME=VALUE``, and these values by their names.

    Raises:
        kdtool.UsageError: a name is not in ``known``, or is there twice, or has no value.
    """
    # A path may look like this too.
    if Path(argument).exists():
        return argument, {}
    match = _ADDED.fullmatch(argument)
    assert match is not None
    choices: dict[str, str] = {}
    for added in match[2].split(",")[1:]:
        name, _, value = added.partition("=")
        if name not in known:
            raise UsageError(f"there is no {name}= in the name of this data set, only {', '.join(known)}")
        if name in choices or not value:
            raise UsageError(f"{name}= needs one value, as in ,{name}=NAME")
        choices[name] = value
    return match[1], choices


def joined(argument: str, choices: dict[str, str]) -> str:
    """Return the text that `split_choices` takes apart."""
    return argument + "".join(f",{name}={value}" for name, value in choices.items())
