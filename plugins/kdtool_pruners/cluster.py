"""Weight sharing by k-means (Han, Mao and Dally, Deep Compression, 2016, arXiv:1510.00149, section 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Callback, Pruner, option
from kdtool.surgery import LayerOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kdtool import Network, Run, Step

# Lloyd's steps end when no centroid moves; of weights this takes some tens of them.
MOST_STEPS = 300


class Cluster(LayerOptions, Pruner):
    """Let the weights of each layer share a few values, found by k-means, and retrain the values (Han et al., 2016).

    The n weights w_i of a layer that are not zero are split into k = 2^bits clusters that minimise
    sum_i (w_i - c_{z(i)})^2, starting from k values at equal distances from the smallest to the largest weight; each
    weight becomes the centroid c of its cluster. In the retraining the gradient of a centroid is the sum of the
    gradients of its weights, dL/dc_k = sum_{i: z(i) = k} dL/dw_i, so that the weights stay equal. Zeros stay zero:
    after ``--method magnitude`` this is the paper's second stage.

    The network keeps its shape and its speed; its file compresses better. A layer needs bits / 32 of its bytes and the
    k values: n * bits + 32 * k bits, before a Huffman code. Where many weights were pruned, only those that are left
    are stored, each with its distance from the one before, as in the paper in 8 bits in convolutions and in 5
    elsewhere; zeros that are stored bridge longer distances. Biases and norms stay as they are.
    """

    also_called: ClassVar[tuple[str, ...]] = ("clustering", "weight-sharing", "palettization", "k-means", "kmeans")

    conv_bits: int = option(8, minimum=1, maximum=16, help="bits for the index of a value in convolutions")
    linear_bits: int = option(5, minimum=1, maximum=16, help="the same in linear, attention and recurrent layers")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a copy whose layers have few different weights, retrained."""
        import copy

        import torch

        from kdtool import Network
        from kdtool.pruning import dense_layers, layers_to_mask
        from kdtool.training import prunable, sparsity

        chosen = layers_to_mask(self, network)
        dense = dense_layers(network, 0.0, chosen)
        module = copy.deepcopy(network.module)
        bits = 0
        left = [path for name in prunable(module) if (path := name.removesuffix(".weight")) not in chosen]
        shared = {name: weight for name, weight in prunable(module).items() if name.removesuffix(".weight") in chosen}
        for name, weight in shared.items():
            width = self.conv_bits if weight.ndim > 2 else self.linear_bits
            values = weight.flatten().double().cpu().numpy()
            kept = values != 0
            centroids, codes = kmeans(values[kept], 2**width)
            values[kept] = centroids[codes]
            with torch.no_grad():
                module.get_parameter(name).copy_(torch.from_numpy(values).view_as(weight))
            bits += bits_of_codes(kept, len(centroids), 8 if weight.ndim > 2 else 5) + 32 * len(centroids)
        facts: dict[str, Any] = {"layers": len(shared), "bytes": bits // 8}
        facts |= {"left": ", ".join(left)} if left else {}
        run.record(shared_values={**facts, "dense": dense.layers} if dense else facts)
        if sparsity(module) > 0:
            run.keep_zeros()
        return self.retrain(run, Network(network.architecture, module), teacher, callbacks=[SharedValues(shared)])


class SharedValues(Callback):
    """Keep weights of a layer equal that are equal when the phase begins, which it does with the same weights again."""

    reads_step: ClassVar[bool] = False

    def __init__(self, names: Iterable[str]) -> None:
        """Look at the weight tensors of these ``names``: in others, weights may be equal by chance."""
        self.names = tuple(names)
        self.clusters: dict[str, tuple[Tensor, int]] = {}
        """By the name of a weight tensor, the cluster of each weight, int64 and flat, and the number of clusters."""

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Remember which weights are equal."""
        import torch

        for name in self.names:
            found, codes = torch.unique(module.get_parameter(name).detach(), return_inverse=True)
            self.clusters[name] = (codes.flatten(), len(found))

    def before_step(self, module: nn.Module) -> None:
        """Give the weights of a cluster the sum of their gradients, and zeros, which stay, none.

        The sum over all zeros of a pruned layer would be most of the norm by which the gradients are clipped.
        """
        for name, (codes, count) in self.clusters.items():
            weight = module.get_parameter(name)
            if weight.grad is not None:
                gradient = weight.grad.flatten()
                sums = gradient.new_zeros(count).index_add_(0, codes, gradient)
                shared = sums[codes].view_as(weight)
                # A layer of zeros alone was initialised so, and learns.
                weight.grad.copy_(shared.masked_fill(weight.detach() == 0, 0) if count > 1 else shared)

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Set the weights of a cluster to their mean: optimisers that look at a whole matrix move them apart."""
        import torch

        with torch.no_grad():
            for name, (codes, count) in self.clusters.items():
                weight = module.get_parameter(name)
                flat = weight.flatten()
                lowest, highest = (
                    flat.new_zeros(count).scatter_reduce(0, codes, flat, reduce, include_self=False)
                    for reduce in ("amin", "amax")
                )
                if not torch.equal(lowest, highest):
                    sums = flat.new_zeros(count).index_add_(0, codes, flat)
                    weight.copy_((sums / torch.bincount(codes, minlength=count))[codes].view_as(weight))


def bits_of_codes(kept: NDArray[np.bool_], values: int, width: int) -> int:
    """Return the bits that tell which of its values each weight of a layer has (Han et al., 2016, figure 2).

    ``kept`` is [weights]: those that are not zero and have one of so many ``values``. Either all have a code, and zero
    is one more value, or only the kept ones do, each with its distance from the one before in ``width`` bits; zeros
    that are stored alike bridge longer distances. What takes fewer bits counts.
    """
    import numpy as np

    code, code_with_zero = (math.ceil(math.log2(max(2, count))) for count in (values, values + (not kept.all())))
    distances = np.diff(np.flatnonzero(kept), prepend=-1)
    stored = len(distances) + int(((distances - 1) >> width).sum())
    return min(len(kept) * code_with_zero, stored * (width + code))


def kmeans(values: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return at most ``count`` centroids of numbers, in rising order, and the index of each number's centroid.

    Lloyd's algorithm from centroids at equal distances. In one dimension the clusters are intervals, so that sorted
    numbers and their running sums give each step exactly and alike on every machine. A cluster without a number, as
    beside an outlier, takes half of the cluster with the largest sum of squared distances. Numbers that have at most
    ``count`` different values keep them. ``values`` is [n]; no value gives no centroid.
    """
    import numpy as np

    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= count:
        return distinct, codes
    middle = np.median(distinct)
    ordered = np.sort(values) - middle  # sums of numbers that are large and close would lose what they differ by
    sums, squares = (np.concatenate([[0.0], np.cumsum(numbers)]) for numbers in (ordered, ordered**2))
    centroids = np.linspace(ordered[0], ordered[-1], count)
    for _ in range(MOST_STEPS):
        edges = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [len(ordered)]])
        bounds = np.concatenate([bounds[:-1][np.diff(bounds) > 0], bounds[-1:]])
        sizes = np.diff(bounds)
        # A mean is within its cluster; by rounding the sums it may come to lie beside it.
        moved = np.clip(np.diff(sums[bounds]) / sizes, ordered[bounds[:-1]], ordered[bounds[1:] - 1])
        if spare := count - len(moved):
            distances = np.diff(squares[bounds]) - sizes * moved**2
            middles = np.searchsorted(ordered, moved, side="right")
            distances[middles == bounds[1:]] = -np.inf  # all its numbers are equal
            worst = np.argsort(-distances, kind="stable")[: min(spare, np.isfinite(distances).sum())]
            halves = [(bounds[worst], middles[worst]), (middles[worst], bounds[worst + 1])]
            means = [(sums[end] - sums[start]) / (end - start) for start, end in halves]
            moved = np.sort(np.concatenate([np.delete(moved, worst), *means]))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    centroids = np.unique(centroids) + middle
    used, codes = np.unique(np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values), return_inverse=True)
    return centroids[used], codes
