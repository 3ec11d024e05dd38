"""Give each output of a layer the mean and the standard deviation that it had before channels were removed.

The mean of what is removed moves into the bias (Berisha, Mehnert and Condurache, Variance-Based Pruning, 2025,
arXiv:2507.12988). Outputs that sum over fewer channels also vary less, which the scale makes good (REPAIR, Jordan et
al., 2022, arXiv:2211.08403). Without the scale the means drown what is left of the differences between images.
"""

from __future__ import annotations

import torch
from torch import Tensor

CONSTANT = 1e-3
"""An output that varies by less than this fraction of what it varied before is not scaled."""


def scale_and_shift(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return s and t [outputs] such that s y + t has the mean and standard deviation of the target.

    s = std(target) / std(y) and t = mean(target) - s mean(y), with y the ``outputs`` [rows, outputs].
    """
    now, before = outputs.std(0), target.std(0)
    scale = torch.where(now > CONSTANT * before, before / now, 1.0)
    return scale, target.mean(0) - scale * outputs.mean(0)
