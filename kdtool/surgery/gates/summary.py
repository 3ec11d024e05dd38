"""Which part of each connection, or of each layer's channels, a gated network does without: plain data for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdtool.surgery.gates.gated import Gated


def gate_map(gated: Gated, kept: Tensor) -> dict[str, list[dict[str, Any]]]:
    """Return what is dropped when these gates [gates] are kept.

    ``blocks`` holds for every dense block its ``readers``, its ``producers`` and, by reader and producer, the part of
    the connection that is ``dropped`` (None where there is none); ``layers`` for every other layer whose channels have
    gates its name, how many ``channels`` have one, and which part of these is ``dropped``.
    """
    places, gone = gated.places, ~kept.cpu()
    order = {path: number for number, (path, _) in enumerate(gated.network.named_modules())}
    dropped: dict[str, dict[str, float]] = {}
    layers = []
    for number, (name, reads) in sorted(enumerate(places.set_names), key=lambda one: order[one[1][0]]):
        members = places.sets == number
        if not reads:
            part = float(gone[members].double().mean())
            layers.append({"layer": name, "channels": int(members.sum()), "dropped": round(part, 4)})
            continue
        of_groups = places.groups[members]
        dropped[name] = {
            places.group_names[group]: round(float(gone[members][of_groups == group].double().mean()), 4)
            for group in of_groups.unique().tolist()
        }
    blocks = []
    for readers, producers in _blocks([(name, set(found)) for name, found in dropped.items()]):
        producers = sorted(producers, key=lambda path: order[path])
        table = [[dropped[reader].get(producer) for producer in producers] for reader in readers]
        blocks.append({"readers": readers, "producers": producers, "dropped": table})
    return {"blocks": blocks, "layers": layers}


def _blocks(readers: Sequence[tuple[str, set[str]]]) -> list[tuple[list[str], list[str]]]:
    """Return what hangs together: readers of which any two, perhaps over others, read one producer, and those."""
    blocks: list[tuple[list[str], list[str]]] = []
    for reader, producers in readers:
        touching = [block for block in blocks if producers.intersection(block[1])]
        blocks = [block for block in blocks if block not in touching]
        merged = {producer for block in touching for producer in block[1]} | producers
        blocks.append(([*(name for block in touching for name in block[0]), reader], sorted(merged)))
    return blocks
