"""The curves of a training as SVG."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdtool.plotting.svg import (
    COLORS,
    MOST_PANELS,
    as_svg,
    entitle,
    figure_of,
    no_formula,
    number_of,
    shortened,
)

LOG_RATIO = 20
"""Losses are drawn on a logarithmic axis if the largest exceeds the smallest by more than this factor."""

NO_CURVES = ("phase", "epoch", "seconds", "lr", "threads", "gradient_ratio")
"""The keys of a logged epoch that are not drawn as curves."""

SOMETIMES = ("gradient_ratio", "val_loss_averaged", "val_accuracy_averaged")
"""The keys that not every epoch of a phase has."""

MOST_PHASES = 200
"""A log of more phases is drawn as one line."""

PHASE_CHARACTERS, PHASE_ROOM = 20, 0.04
"""How many characters of a phase's name are shown, and the part of the axis that a phase with a name takes at least."""

Curves = tuple[str, list[str], set[str] | None]
"""The title of a panel, the numbers that it shows, and the phases whose epochs it shows (None: all)."""


def draw_curves(epochs: Sequence[Mapping[str, Any]], *, labels_alone: bool = False) -> list[str]:
    """Return the curves of a run as SVG, one for each panel, with its phases one after the other.

    ``epochs`` are the lines of metrics.jsonl: ``phase``, ``epoch``, ``loss``, ``val_loss`` and all other numbers that
    the loop or a method logs. Each number has a panel of its own. The two losses share one where they are the same
    kind: where the training loss is that of the labels alone (``labels_alone``), and in phases that validate by their
    own loss. The losses of phases of different kinds have panels of their own too.
    """
    rows = [{**{key: number_of(value) for key, value in row.items()}, "phase": row["phase"]} for row in epochs]
    known = {key: None for row in rows for key, value in row.items() if value is not None}
    panels = [*_loss_panels(rows, labels_alone=labels_alone)]
    panels += [(key.replace("_", " "), [key], None) for key in known if key not in (*NO_CURVES, "loss", "val_loss")]
    return [_curves(rows, panel) for panel in panels[:MOST_PANELS]]


def _curves(epochs: Sequence[Mapping[str, Any]], panel: Curves) -> str:
    title, keys, phases = panel
    starts = [at for at, row in enumerate(epochs) if at == 0 or row["phase"] != epochs[at - 1]["phase"]]
    starts = starts if len(starts) <= MOST_PHASES else [0]
    shown = [row if phases is None or row["phase"] in phases else {} for row in epochs]
    with figure_of(1) as figure:
        (axes,) = figure.axes
        for key, color in zip(keys, COLORS, strict=False):
            name: str | None = key.replace("_", " ")
            for start, end in zip(starts, [*starts[1:], len(epochs)], strict=True):
                line = [(at + 1, shown[at][key]) for at in range(start, end) if shown[at].get(key) is not None]
                if line:
                    # A line of one epoch would be invisible.
                    marker = "o" if len(line) == 1 else None
                    axes.plot([x for x, _ in line], [y for _, y in line], color=color, marker=marker, label=name)
                    name = None
        _phases(axes, [str(epochs[start]["phase"]) for start in starts], [*starts, len(epochs)])
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        entitle(figure, [title])
        if len(keys) > 1:
            axes.legend(fontsize=7)
        values = [row[key] for row in shown for key in keys if row.get(key) is not None]
        if keys[0] in ("loss", "val_loss") and _needs_log_axis(values):
            axes.set_yscale("log")
        return as_svg(figure)


def _loss_panels(epochs: Sequence[Mapping[str, Any]], *, labels_alone: bool) -> Iterator[Curves]:
    """Yield the panels of the losses: phases that log the same numbers have the same kind of loss."""
    kinds: dict[frozenset[str], dict[str, None]] = {}
    keys: dict[str, set[str]] = {}
    for row in epochs:
        keys.setdefault(str(row["phase"]), set()).update(key for key in row if key not in SOMETIMES)
    for phase, logged in keys.items():
        kinds.setdefault(frozenset(logged), {})[phase] = None
    for numbers, names in kinds.items():
        of = f": {', '.join(names)}" if len(kinds) > 1 and len(names) <= 2 else ""
        phases = set(names) if len(kinds) > 1 else None
        found: list[str] = [key for key in ("loss", "val_loss") if key in numbers]
        if labels_alone or "val_accuracy" not in numbers:
            if found:
                yield f"loss{of}", found, phases
        else:
            titles = {"loss": f"training loss{of}", "val_loss": f"validation loss (labels){of}"}
            yield from ((titles[key], [key], phases) for key in found)


def _needs_log_axis(values: Sequence[float]) -> bool:
    """Return whether numbers, such as the losses of different phases, differ too much for a linear axis."""
    return bool(values) and min(values) > 0 and max(values) > LOG_RATIO * min(values)


def _phases(axes: Any, names: Sequence[str], ends: Sequence[int]) -> None:
    """Draw a line between the phases, and write the name of each beside its start if there is room for it.

    ``ends`` has the starts of all phases, and the number of epochs.
    """
    for start in ends[1:-1]:
        axes.axvline(start + 0.5, color="#999999", linewidth=0.6, linestyle=":")
    if len(names) == 1:
        return
    for name, (start, end) in zip(names, itertools.pairwise(ends), strict=True):
        if end - start >= PHASE_ROOM * ends[-1]:
            axes.annotate(
                no_formula(shortened(name, PHASE_CHARACTERS)),
                (start + 0.5, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(1, -2),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=6,
                color="#666666",
                zorder=1,
            )
