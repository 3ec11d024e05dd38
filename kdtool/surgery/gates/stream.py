"""The residual stream: channels to which several layers add their outputs."""

from __future__ import annotations

from kdtool.surgery.channels.groups import Group

_ADDITION = "AddBackward"
"""How autograd names the sum of two tensors; a linear layer with a bias is ``AddmmBackward``."""


def in_stream(group: Group) -> bool:
    """Return whether a group's channels are a residual stream: outputs of several layers that are added.

    Outputs that are multiplied (squeeze-and-excitation, gated linear units) or concatenated are none.
    """
    producers = {member.path for member in group.members if member.role == "outputs"}
    nodes = (edge.target for edge, _ in group.graph)
    return len(producers) > 1 and any(
        node.grad_fn is not None
        and node.grad_fn.name().startswith(_ADDITION)
        and len({id(source) for source in node.inputs}) > 1
        for node in nodes
    )
