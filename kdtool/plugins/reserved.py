"""The names of kdtool's own options, which an option of a method must not have: it would hide kdtool's."""

from __future__ import annotations

from collections.abc import Iterable

from kdtool.plugins.options import Options

_COMMON = ("debug", "dry-run", "force", "help", "output", "quiet", "resume", "trust", "verbose")

FLAGS = {
    "teachers": (*_COMMON, "model", "pretrained", "processes", "track", "weights"),
    "refiners": (*_COMMON, "method", "seed"),
    "distillers": (*_COMMON, "method", "processes", "track"),
    "pruners": (*_COMMON, "method", "processes", "track"),
    "exporters": (*_COMMON, "against", "json", "method"),
}
"""The options of the command that uses the methods of a kind, without those of its settings, such as `Training`."""


def words_of(groups: Iterable[type[Options]]) -> dict[str, str | None]:
    """Return the words that stand behind ``--`` for the options of ``groups``, and for a role the kind of its value."""
    words: dict[str, str | None] = {}
    for group in groups:
        for info in group.describe():
            words[info.flag.removeprefix("--")] = info.kind
            if info.type is bool:
                words[f"no-{info.flag.removeprefix('--')}"] = None
    return words


def hidden_by(method: type[Options], kind: str, groups: Iterable[type[Options]]) -> list[str]:
    """Return the options of a kind's command and of its settings ``groups`` that options of a method would hide.

    A role is none of them where both roles take methods of the same kind: the method's is then the nearer meaning.
    """
    own = {**words_of(groups), **dict.fromkeys(FLAGS.get(kind, ()))}
    return [
        f"--{word}" for word, role in words_of([method]).items() if word in own and (role is None or role != own[word])
    ]
