"""Where options belong: sort them by group, and those of a method in a role into the role."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.plugins.options import OptionInfo, Options
from kdtool.plugins.registry import method_class

# How deep roles may nest in names of options; the methods in deeper roles keep their defaults.
DEPTH = 4

Place = tuple[str, ...]
"""The path of an option: the names of the roles that lead to it, then its own name."""


def spellings(places: Sequence[Place], taken: Collection[str] = ()) -> dict[Place, list[str]]:
    """Return the names of each option, the full one first; ``places`` begin with those of the outer options.

    Every option of a role's method has a full name (``refiner_keep``). It also has a short name (``keep``) if no outer
    option, no other role and nothing in ``taken`` has that name.
    """
    full = {"_".join(place) for place in places}
    plain: dict[str, list[Place]] = {}
    for place in places:
        same = plain.setdefault(place[-1], [])
        if not same or len(same[0]) == len(place):
            same.append(place)
    names = {place: ["_".join(place)] for place in places}
    for place in places:
        short = place[-1]
        if len(place) > 1 and short not in full and short not in taken and plain[short] == [place]:
            names[place].append(short)
    return names


def split(values: Mapping[str, Any], *groups: type[Options]) -> list[dict[str, Any]]:
    """Return a dictionary of values for each group; a value belongs to the first group that has its option.

    An option of a method in a role may stand beside the role, as on the command line (see `spellings`):
    ``refiner="halve", ratio=0.9`` is ``refiner={"name": "halve", "ratio": 0.9}``.

    Raises:
        UsageError: no group has an option of that name, or several roles have it, or it is given twice, or only another
            one makes use of it, which is not given.
        BrokenPlugin: a method has an option of a name that kdtool itself uses.
    """
    for group in groups:
        group.check_beside([other for other in groups if other is not group])
    known = [[info.name for info in group.describe()] for group in groups]
    outer = {name for names in known for name in names}
    values, inner = (
        {name: value for name, value in values.items() if (name in outer) is wanted} for wanted in (True, False)
    )
    if inner:
        values = _in_roles(values, inner, [info for group in groups for info in group.describe()])
    sorted_out: list[dict[str, Any]] = [{} for _ in groups]
    for name, value in values.items():
        sorted_out[next(index for index, names in enumerate(known) if name in names)][name] = value
    for group, own in zip(groups, sorted_out, strict=True):
        _check_used(group, own)
    return sorted_out


def _check_used(group: type[Options], given: Mapping[str, Any]) -> None:
    """Check that the options which make use of given ones are given too, unless they are on by default.

    Their values do not matter: a study has ``--repair {repair} --repair-images 64`` for all values in one line.

    Raises:
        UsageError: one is not given.
    """
    for name, user in group.used_with.items():
        partner = group.info(user)
        if name in given and user not in given and partner.default in (None, "none"):
            raise UsageError(f"{group.info(name).flag}: belongs to {partner.flag}; give that too, or leave it out")
    for info in group.describe():
        value = given.get(info.name)
        if info.kind and isinstance(value, Mapping) and (method := value.get("name", info.method)):
            _check_used(method_class(info.kind, method), value)


def _in_roles(values: dict[str, Any], inner: Mapping[str, Any], infos: Sequence[OptionInfo]) -> dict[str, Any]:
    """Return the values with the options of methods in roles inside of their roles."""
    chosen: dict[Place, str] = {}
    for _ in range(DEPTH):
        # A method that is named in a role has options, roles among them, of its own.
        places = list(_places(infos, values, chosen))
        names = {name: place for place, words in spellings([place for place, _ in places]).items() for name in words}
        roles = {place for place, info in places if info.kind}
        named = {names[name]: value for name, value in inner.items() if names.get(name) in roles}
        named = {place: value for place, value in named.items() if isinstance(value, str)}
        if named == chosen:
            break
        chosen = named
    for name, value in inner.items():
        if name not in names:
            alike = ["_".join(place) for place, _ in places if place[-1] == name]
            if len(alike) > 1:
                raise UsageError(f"option {name!r} is ambiguous; write {' or '.join(alike)}")
            raise UsageError(f"there is no option {name!r}{nearest(name, list(names))}")
        values = _with(values, names[name], value, name, dict(places))
    return values


def _places(
    infos: Iterable[OptionInfo], values: Mapping[str, Any], chosen: Mapping[Place, str]
) -> Iterable[tuple[Place, OptionInfo]]:
    """Yield every option with its place, outer options first; a method that is given whole takes no more options."""
    level: list[tuple[Place, Iterable[OptionInfo], Mapping[str, Any]]] = [((), infos, values)]
    seen: set[Place] = set()
    for _ in range(DEPTH):
        below: list[tuple[Place, Iterable[OptionInfo], Mapping[str, Any]]] = []
        for path, options, given in level:
            for info in options:
                place = (*path, info.name)
                if place in seen:  # a method's option comes before one of the same name in a group of settings
                    continue
                seen.add(place)
                yield place, info
                value = given.get(info.name)
                name = value.get("name", info.method) if isinstance(value, Mapping) else value
                name = name or chosen.get(place, info.method)
                if info.kind and isinstance(name, str):
                    of_role = value if isinstance(value, Mapping) else {}
                    below.append((place, method_class(info.kind, name).describe(), of_role))
        level = below


def _with(
    values: Mapping[str, Any], place: Place, value: Any, name: str, infos: Mapping[Place, OptionInfo], above: Place = ()
) -> dict[str, Any]:
    """Return values with one more at ``place``, below the role ``above``."""
    first, *rest = place
    if not rest:
        if values.get(first) is not None:
            raise UsageError(f"option {name!r} is given twice; leave one out")
        return {**values, first: value}
    role = values.get(first)
    if not isinstance(role, Mapping):
        role = {"name": role or infos[*above, first].method}
    return {**values, first: _with(role, tuple(rest), value, name, infos, (*above, first))}
