"""Adapt the stem of a ResNet-like network to small images."""

from __future__ import annotations

import torch
from torch import nn

from kdtool.errors import Error

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)

_PADS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def small_stem(module: nn.Module) -> nn.Module:
    """Remove the downsampling from a ResNet-like stem, in place, and return the module.

    The first convolution of stride 2 becomes 3x3 with stride 1 and padding 1, and the pool behind it is removed, so
    that the first stage works at the full resolution instead of a quarter of it (He et al., 2015, section 4.2).
    A convolution that was larger than 3x3 gets fresh weights (Kaiming); one of 3x3 keeps its weights. The change
    depends on the structure alone: freshly built networks of one name are all changed in the same way.

    Raises:
        Error: the network has no stem of a strided convolution and a pool; nothing was changed.
    """
    leaves = [(path, leaf) for path, leaf in module.named_modules() if next(leaf.children(), None) is None]
    # Stems register their modules in the order in which they run.
    first = next((index for index, (_, leaf) in enumerate(leaves) if isinstance(leaf, nn.Conv2d)), len(leaves))
    pool = _pool_behind(module, leaves, first)
    if pool is None:
        raise Error(
            f"{type(module).__name__}: has no ResNet-like stem (a convolution of stride 2, then a pool) to make "
            "small; leave --stem out, or take a larger --image-size"
        )
    for path, leaf in leaves[first + 1 : pool + 1]:
        if isinstance(leaf, (*_PADS, *_POOLS)):
            _replace_by_identity(module, path)
    conv = leaves[first][1]
    assert isinstance(conv, nn.Conv2d)
    _make_3x3(conv)
    return module


def _pool_behind(module: nn.Module, leaves: list[tuple[str, nn.Module]], first: int) -> int | None:
    """Return the index of the pool that ends the stem, or None if the network begins in another way.

    Norms, activations and padding may come between the first convolution and the pool; in a deep stem (ResNet-D) also
    the other convolutions of the first one's `nn.Sequential`.
    """
    if first == len(leaves):
        return None
    path, conv = leaves[first]
    assert isinstance(conv, nn.Conv2d)
    if conv.stride != (2, 2) or conv.kernel_size[0] < 3:
        return None
    depth = path.count(".")
    parent = path.rpartition(".")[0]
    deep = f"{parent}." if parent and _is_deep_stem(module.get_submodule(parent)) else None
    for index in range(first + 1, len(leaves)):
        path, leaf = leaves[index]
        if isinstance(leaf, _POOLS):
            # A pool that is nested deeper belongs to the shortcut of the first block.
            return index if path.count(".") <= depth + 1 else None
        inside = deep is not None and path.startswith(deep)
        if not inside and not isinstance(leaf, _NORMS) and next(leaf.parameters(), None) is not None:
            return None
    return None


def _is_deep_stem(module: nn.Module) -> bool:
    """Return whether this is a plain sequence of at most three convolutions of which only the first is strided."""
    convs = [child for child in module.children() if isinstance(child, nn.Conv2d)]
    others = [child for child in module.children() if not isinstance(child, nn.Conv2d)]
    return (
        isinstance(module, nn.Sequential)
        and len(convs) <= 3
        and all(conv.stride == (1, 1) for conv in convs[1:])
        and not any(isinstance(part, nn.Conv2d | nn.Linear) for other in others for part in other.modules())
    )


def _replace_by_identity(module: nn.Module, path: str) -> None:
    """Replace a pool or a padding by an identity."""
    parent, _, name = path.rpartition(".")
    container = module.get_submodule(parent)
    if isinstance(container, nn.Sequential) and _stride(container[0]) == 1 and len(container) == 2:
        # A max-pool of stride 1 and the strided blur behind it (Zhang, 2019) are replaced together.
        _replace_by_identity(module, parent)
    else:
        setattr(container, name, nn.Identity())


def _stride(leaf: nn.Module) -> int | None:
    stride = leaf.stride if isinstance(leaf, _POOLS) else None
    return stride[0] if isinstance(stride, tuple) else stride


def _make_3x3(conv: nn.Conv2d) -> None:
    """Make a convolution 3x3 with stride 1, in place, so that a subclass (weight-standardised) stays what it is."""
    conv.stride = (1, 1)
    # timm's convolutions with TensorFlow's padding pad in their forward and have padding 0.
    if type(conv) is nn.Conv2d or conv.padding != (0, 0):
        conv.padding = (1, 1)
    if conv.kernel_size == (3, 3):
        return
    conv.kernel_size = (3, 3)
    conv.weight = nn.Parameter(torch.empty(*conv.weight.shape[:2], 3, 3))
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
