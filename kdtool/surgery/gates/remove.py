"""Remove the channels of closed gates from a network, and multiply the open gates into its weights.

First the connections: a selection is put before the norm of each reader that drops some of its channels. Then the
channels that no layer reads any more are removed with their groups, by `kdtool.surgery.channels.remove`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdtool.errors import Error
from kdtool.models.architecture import Network, capture
from kdtool.models.memory_format import as_saved
from kdtool.models.reinit import reinitialize
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.groups import Group, groups
from kdtool.surgery.channels.remove import check_rebuilt
from kdtool.surgery.channels.selection import Ranked
from kdtool.surgery.channels.verify import VerifiedSurgery, agree
from kdtool.surgery.gates.connections import select_connections
from kdtool.surgery.gates.gated import FREE, Gated
from kdtool.utils.seeds import seeded


def remove_closed(network: Network, kept: Tensor, *, limits: Limits | None = None) -> Network:
    """Return a gated network without its closed gates: a smaller network with the same outputs.

    ``kept`` [gates] is a mask of the gates whose columns stay (see `GateCosts.kept`). Open gates that are not kept are
    lost, and then the outputs differ.

    Raises:
        Error: the channels cannot be removed, or the smaller network has other outputs.
    """
    gated, architecture = network.module, network.architecture
    assert isinstance(gated, Gated)
    limits, kept = limits or Limits(), kept.cpu()
    try:
        # Training may leave another memory format, in which the outputs are rounded differently.
        module = as_saved(gated.folded()).float().eval()
        selected = {}
        for reader in gated.places.connections:
            index = ((reader.gates == FREE) | kept[reader.gates]).nonzero().flatten()
            if len(index) < len(reader.gates):
                selected[reader.norm, reader.path] = index
        select_connections(module, selected)
        narrowed = Network(capture(architecture, module), module)
        small = _without_unread(narrowed, gated, kept, limits)
        check_rebuilt(small)
        _check_outputs(network, small)
    except Error as error:
        raise Error(f"{architecture.spec}: its closed channels cannot be removed: {error}") from error
    return small


def _without_unread(network: Network, gated: Gated, kept: Tensor, limits: Limits) -> Network:
    """Return the network without the channels that no layer reads."""
    places = gated.places
    read = torch.zeros(int(places.units.max()) + 1, dtype=torch.bool)
    read[places.units[kept]] = True
    lost = {path: ((units != FREE) & ~read[units]).nonzero().flatten() for path, units in places.outputs.items()}
    if not any(len(channels) for channels in lost.values()):
        return network
    surgery = VerifiedSurgery(network, network.module, limits)
    rankings = [_unread_first(group, lost) for group in groups(network, limits)]
    chosen = [(ranking, 1) for ranking in rankings if ranking is not None]
    module = surgery.without(chosen)
    if module is None:
        raise Error(surgery.reason)
    return Network(capture(network.architecture, module), module.eval())


def _unread_first(group: Group, lost: dict[str, Tensor]) -> Ranked | None:
    """Return a group with its lost channels first, to be removed in one step; None if it has none."""
    gone = torch.zeros(group.size, dtype=torch.bool)
    for member in group.members:
        if member.role in ("outputs", "both") and member.path in lost:
            gone[member.roots[torch.isin(member.channels, lost[member.path])]] = True
    if not gone.any():
        return None
    order = torch.cat([gone.nonzero().flatten(), (~gone).nonzero().flatten()])
    return Ranked(group, order, (group.size, int((~gone).sum())), torch.zeros(group.size), ())


def _check_outputs(network: Network, small: Network) -> None:
    """Check that the smaller network has the outputs of the gated one.

    Raises:
        Error: the outputs differ.
    """
    images = torch.rand(2, *network.architecture.input, generator=torch.Generator().manual_seed(0))
    device = next(network.module.parameters()).device
    with torch.no_grad():
        if not agree(small.module(images), network.module(images.to(device)).cpu()):
            raise Error("the smaller network has other outputs than the gated one")


def with_fresh_weights(network: Network, seed: int) -> Network:
    """Return the same structure with newly initialised weights, by the base network's own initialisation."""
    with seeded(seed, "fresh"):
        return reinitialize(network)
