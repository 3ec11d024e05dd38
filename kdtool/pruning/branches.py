"""Networks with parallel branches that are added up before use: zeros of the branches are not zeros of the sum.

RepVGG (Ding et al., 2021, arXiv:2101.03697), MobileOne and FastViT train several convolutions side by side and replace
them by one, whose weights are the sum of theirs. timm calls that ``reparameterize`` or ``fuse``.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import nn

from kdtool.errors import FAILURES
from kdtool.models.architecture import Network
from kdtool.training.zeros import sparsity

# What timm calls: the first returns the module that takes the place of the part, the others change the part.
_METHODS = ("fuse", "reparameterize", "switch_to_deploy")

# The sum of branches is mentioned if it has fewer zeros by this fraction of the weights.
_NOTABLE = 0.01


def say_branches(network: Network) -> None:
    """Say in one line if fewer weights of a network are zero once its parallel branches are added up."""
    now, summed = sparsity(network.module), summed_sparsity(network.module)
    if summed is not None and summed < now - _NOTABLE:
        logging.getLogger("kdtool").warning(
            "%s: %.1f %% of its weights are zero as it is; if its parallel branches are added up (reparameterize), "
            "%.1f %% of the weights of the sums are",
            *(network.architecture.spec, 100 * now, 100 * summed),
        )


def summed_sparsity(module: nn.Module) -> float | None:
    """Return the fraction (0..1) of zeros in convolutions and linear layers after branches were added up.

    None if the network has no such branches, or if they cannot be added up.
    """
    summed = copy.deepcopy(module).eval()
    try:
        with torch.no_grad():
            return sparsity(summed) if _add_up(summed) else None
    except FAILURES:
        return None


def _add_up(module: nn.Module) -> bool:
    """Replace every part that has a method for it by the sum of its branches, in place; return whether any has one."""
    found = False
    for name, child in list(module.named_children()):
        method: Any = next((getattr(child, name) for name in _METHODS if callable(getattr(child, name, None))), None)
        if method is not None:
            sum_of = method()
            module._modules[name] = sum_of if isinstance(sum_of, nn.Module) else child
        found = _add_up(module.get_submodule(name)) or found or method is not None
    return found
