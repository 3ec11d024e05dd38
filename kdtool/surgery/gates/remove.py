"""Remove for good what closed gates keep from being read, and fold the open ones into the weights.

Connections first: the norm of a reader that does without some of its channels is given a selection. Then channels that
nobody reads any more go from their producers, with all that goes with them, through `kdtool.surgery.channels.remove`.
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
from kdtool.utils.seeds import derive


def remove_closed(network: Network, kept: Tensor, *, limits: Limits | None = None) -> Network:
    """Return what a gated network is without its closed gates: smaller, with the outputs that it has.

    ``kept`` [gates] says whose columns stay (see `GateCosts.kept`); gates that are open but not kept are lost.

    Raises:
        Error: the network cannot be cut so that it is proven to be the same.
    """
    gated, architecture = network.module, network.architecture
    assert isinstance(gated, Gated)
    limits, kept = limits or Limits(), kept.cpu()
    try:
        # Whatever the training left: other layouts round otherwise.
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
        _prove(network, small)
    except Error as error:
        raise Error(f"{architecture.spec}: its closed channels cannot be removed: {error}") from error
    return small


def _without_unread(network: Network, gated: Gated, kept: Tensor, limits: Limits) -> Network:
    """Remove the channels that nobody reads."""
    places = gated.places
    read = torch.zeros(int(places.units.max()) + 1, dtype=torch.bool)
    read[places.units[kept]] = True
    lost = {path: ((units != FREE) & ~read[units]).nonzero().flatten() for path, units in places.outputs.items()}
    if not any(len(channels) for channels in lost.values()):
        return network
    surgery = VerifiedSurgery(network, network.module, limits)
    chosen = [(one, 1) for group in groups(network, limits) if (one := _closed(group, lost)) is not None]
    module = surgery.without(chosen)
    if module is None:
        raise Error(surgery.reason)
    return Network(capture(network.architecture, module), module.eval())


def _closed(group: Group, lost: dict[str, Tensor]) -> Ranked | None:
    """Put the lost channels of a group first; None where it has none."""
    gone = torch.zeros(group.size, dtype=torch.bool)
    for member in group.members:
        if member.role in ("outputs", "both") and member.path in lost:
            gone[member.roots[torch.isin(member.channels, lost[member.path])]] = True
    if not gone.any():
        return None
    order = torch.cat([gone.nonzero().flatten(), (~gone).nonzero().flatten()])
    return Ranked(group, order, (group.size, int((~gone).sum())), torch.zeros(group.size), ())


def _prove(network: Network, small: Network) -> None:
    """Check that a network gives the outputs of the gated one.

    Raises:
        Error: it does not.
    """
    images = torch.rand(2, *network.architecture.input, generator=torch.Generator().manual_seed(0))
    device = next(network.module.parameters()).device
    with torch.no_grad():
        if not agree(small.module(images), network.module(images.to(device)).cpu()):
            raise Error("what is left does not give the gated network's outputs")


def with_fresh_weights(network: Network, seed: int) -> Network:
    """Return the same structure with weights drawn anew, as the base network's designers start them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "fresh"))
        return reinitialize(network)
