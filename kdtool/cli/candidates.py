"""What a word may become when the user presses TAB; no library of networks is imported for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from click.shell_completion import CompletionItem

from kdtool.data.dataset import named_datasets, path_datasets
from kdtool.errors import UsageError
from kdtool.models import names as network_names
from kdtool.plugins.entry_points import installed, names
from kdtool.plugins.options import OptionInfo
from kdtool.plugins.registry import load
from kdtool.training.recipes.reading import names as recipe_names
from kdtool.utils.formatting import three_digits

# Types of items beside click's: after one that is open, such as ``timm:``, the word goes on without a space; one of
# type ``below`` stands for the files behind a prefix, such as ``folder:``.
OPEN, BELOW = "open", "below"


def of_option(info: OptionInfo, incomplete: str) -> list[CompletionItem]:
    """Return the candidates for the value of an option."""
    if info.type is Path:
        return files(incomplete)
    if info.kind:
        return methods(info.kind, incomplete)
    if info.name in ("data", "unlabelled"):
        return data_sets(incomplete)
    if info.name in ("student", "arch"):
        return [*networks(incomplete), *(files(incomplete) if info.name == "student" and ":" not in incomplete else [])]
    if info.name == "recipe":
        return [*_plain(recipe_names(), incomplete), *files(incomplete)]
    return _plain(info.choices, incomplete)


def files(incomplete: str) -> list[CompletionItem]:
    """Leave the completion to the shell, which completes names of files."""
    return [CompletionItem(incomplete, type="file")]


def methods(kind: str, incomplete: str, refused: Callable[[type[Any]], str] = lambda _: "") -> list[CompletionItem]:
    """Return the methods of a kind with their summaries; after ``kd+`` or ``kd:0.9+`` also the terms of a sum.

    ``refused`` returns why the command cannot use a method, or an empty text.
    """
    head, plus, _ = incomplete.rpartition("+")
    sums = kind == "distillers" and bool(plus)
    prefix = head + plus if sums else ""
    items = []
    for plugin in installed():
        if plugin.kind == kind and f"{prefix}{plugin.name}".startswith(incomplete):
            cls = None
            if plugin.builtin:
                try:
                    cls = load(plugin)
                except UsageError:
                    continue
                if refused(cls):
                    continue
            if sums and cls is not None and not cls.fills_role():
                continue
            text = _first_clause(cls.summary()) if cls is not None else f"of {plugin.distribution}"
            items.append(CompletionItem(f"{prefix}{plugin.name}", help=text))
    return items


def networks(incomplete: str) -> list[CompletionItem]:
    """Return sources with a colon, or the networks of a source from the list in the cache."""
    source, colon, _ = incomplete.partition(":")
    if not colon:
        starts = [f"{name}:" for name in names("teachers")]
        return [CompletionItem(start, type=OPEN) for start in starts if start.startswith(incomplete)]
    if source not in names("teachers"):
        return []
    stored = network_names.read(source)
    if stored is None:
        network_names.refresh_in_background()
        return []
    return [
        CompletionItem(f"{source}:{name}", help=_count(stored.parameters.get(name)))
        for name in stored.names
        if f"{source}:{name}".startswith(incomplete)
    ]


def data_sets(incomplete: str) -> list[CompletionItem]:
    """Return the data sets with their summaries, and the files behind one such as ``folder:``."""
    with_path, going_on = path_datasets(), named_datasets()
    name, colon, _ = incomplete.partition(":")
    if colon:
        return [CompletionItem(f"{name}:", type=BELOW)] if name in with_path else []
    return [
        CompletionItem(f"{item.value}:", type=OPEN, help=item.help) if item.value in going_on else item
        for item in methods("datasets", incomplete)
    ]


def _plain(candidates: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in candidates if name.startswith(incomplete)]


def _first_clause(summary: str) -> str:
    return summary.partition(". ")[0].partition(" (")[0].rstrip(".")


def _count(parameters: int | None) -> str | None:
    return None if parameters is None else f"{three_digits(parameters / 1e6)} M parameters"
