"""The fraction of each connection, or of each layer's channels, that a gated network drops: plain data for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdtool.surgery.gates.gated import Gated


def gate_map(gated: Gated, kept: Tensor) -> dict[str, list[dict[str, Any]]]:
    """Return which fractions of channels are dropped when the gates in a mask [gates] are kept.

    ``blocks`` holds, for every dense block, its ``readers``, its ``producers``, and a table by reader and producer of
    the fraction of each connection that is ``dropped`` (None if there is no connection). ``layers`` holds, for every
    other layer with gates, its name, the number of its ``channels`` with a gate, and the fraction of them that is
    ``dropped``.
    """
    places, gone = gated.places, ~kept.cpu()
    order = {path: number for number, (path, _) in enumerate(gated.network.named_modules())}
    dropped: dict[str, dict[str, float]] = {}
    layers = []
    for number, (name, reads) in sorted(enumerate(places.set_names), key=lambda item: order[item[1][0]]):
        members = places.sets == number
        if not reads:
            fraction = float(gone[members].double().mean())
            layers.append({"layer": name, "channels": int(members.sum()), "dropped": round(fraction, 4)})
            continue
        of_groups = places.groups[members]
        dropped[name] = {
            places.group_names[group]: round(float(gone[members][of_groups == group].double().mean()), 4)
            for group in of_groups.unique().tolist()
        }
    blocks = []
    for readers, producers in _blocks([(name, set(row)) for name, row in dropped.items()]):
        producers = sorted(producers, key=lambda path: order[path])
        table = [[dropped[reader].get(producer) for producer in producers] for reader in readers]
        blocks.append({"readers": readers, "producers": producers, "dropped": table})
    return {"blocks": blocks, "layers": layers}


def _blocks(readers: Sequence[tuple[str, set[str]]]) -> list[tuple[list[str], list[str]]]:
    """Return the connected blocks, each as its readers and its producers.

    Two readers are in the same block if they share a producer, directly or through other readers.
    """
    blocks: list[tuple[list[str], list[str]]] = []
    for reader, producers in readers:
        touching = [block for block in blocks if producers.intersection(block[1])]
        blocks = [block for block in blocks if block not in touching]
        merged = {producer for block in touching for producer in block[1]} | producers
        blocks.append(([*(name for block in touching for name in block[0]), reader], sorted(merged)))
    return blocks
