"""The stem of a ResNet-like network, made fit for small images."""

from __future__ import annotations

import torch
from torch import nn

from kdtool.errors import Error

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)

_PADS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def small_stem(module: nn.Module) -> nn.Module:
    """Take the downsampling out of a ResNet-like stem, in place, and return the module.

    The first convolution of stride 2 becomes 3x3 with stride 1 and padding 1, and the pool behind it goes, so that
    the first stage sees all of the image instead of a quarter of each side (He et al., 2015, section 4.2).
    A convolution that was larger than 3x3 starts anew (Kaiming); one that is 3x3 keeps its weights. What changes
    depends on the structure alone: a freshly built network of the same name comes out the same.

    Raises:
        Error: the network has no stem of a strided convolution and a pool; nothing was changed.
    """
    leaves = [(path, leaf) for path, leaf in module.named_modules() if next(leaf.children(), None) is None]
    # Modules are registered in the order in which a stem uses them.
    first = next((index for index, (_, leaf) in enumerate(leaves) if isinstance(leaf, nn.Conv2d)), len(leaves))
    pool = _pool_behind(module, leaves, first)
    if pool is None:
        raise Error(
            f"{type(module).__name__}: has no ResNet-like stem (a convolution of stride 2, then a pool) to make "
            "small; leave --stem out, or take a larger --image-size"
        )
    for path, leaf in leaves[first + 1 : pool + 1]:
        if isinstance(leaf, (*_PADS, *_POOLS)):
            _take_out(module, path)
    conv = leaves[first][1]
    assert isinstance(conv, nn.Conv2d)
    _shrink(conv)
    return module


def _pool_behind(module: nn.Module, leaves: list[tuple[str, nn.Module]], first: int) -> int | None:
    """Return the index of the pool that ends the stem, or None where the network begins in another way.

    Between the first convolution and the pool may stand norms, activations and padding, and in a deep stem
    (ResNet-D) the other convolutions of the `nn.Sequential` that the first one is in.
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
            # One that is further down belongs to the shortcut of a first block.
            return index if path.count(".") <= depth + 1 else None
        inside = deep is not None and path.startswith(deep)
        if not inside and not isinstance(leaf, _NORMS) and next(leaf.parameters(), None) is not None:
            return None
    return None


def _is_deep_stem(module: nn.Module) -> bool:
    """Whether this is a plain sequence of at most three convolutions of which only the first one strides."""
    convs = [child for child in module.children() if isinstance(child, nn.Conv2d)]
    others = [child for child in module.children() if not isinstance(child, nn.Conv2d)]
    return (
        isinstance(module, nn.Sequential)
        and len(convs) <= 3
        and all(conv.stride == (1, 1) for conv in convs[1:])
        and not any(isinstance(part, nn.Conv2d | nn.Linear) for other in others for part in other.modules())
    )


def _take_out(module: nn.Module, path: str) -> None:
    """Put an identity in the place of a pool or a padding."""
    parent, _, name = path.rpartition(".")
    container = module.get_submodule(parent)
    if isinstance(container, nn.Sequential) and _stride(container[0]) == 1 and len(container) == 2:
        # A max-pool of stride 1 and the blur that strides in its stead (Zhang, 2019) go together.
        _take_out(module, parent)
    else:
        setattr(container, name, nn.Identity())


def _stride(leaf: nn.Module) -> int | None:
    stride = leaf.stride if isinstance(leaf, _POOLS) else None
    return stride[0] if isinstance(stride, tuple) else stride


def _shrink(conv: nn.Conv2d) -> None:
    """Make a convolution 3x3 with stride 1, in place, so that a weight-standardised one stays one."""
    conv.stride = (1, 1)
    # timm's convolutions with TensorFlow's padding pad by themselves and have 0 here.
    if type(conv) is nn.Conv2d or conv.padding != (0, 0):
        conv.padding = (1, 1)
    if conv.kernel_size == (3, 3):
        return
    conv.kernel_size = (3, 3)
    conv.weight = nn.Parameter(torch.empty(*conv.weight.shape[:2], 3, 3))
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
