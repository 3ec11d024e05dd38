"""Find which channels every layer loses when the layers before it lose some of theirs, by running the network.

No graph is traced. One forward pass runs a batch of two equal images. Every convolution and linear layer returns the
same random numbers for both, plus a difference in the output channels that it is to lose. The operations between the
layers (activations, pools, additions, concatenations, shuffles, flattening, reshaping) carry the difference along, so
each layer's input shows which of its channels come from lost ones. The input of the stem shows no difference, so the
stem keeps all its input channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.models.hooks import patched
from kdtool.models.layers import CONV_LINEAR, is_channelwise, is_depthwise
from kdtool.models.modules import ChannelSelect
from kdtool.surgery.tracing.attention import Contractions
from kdtool.surgery.tracing.differences import difference, keeps, kept_rows, noise, output_shape, restricted, signature
from kdtool.surgery.tracing.flow import Answer, Choose, Flow, positive
from kdtool.surgery.tracing.recurrent import is_plain, outputs_of


def trace(module: nn.Module, shape: tuple[int, int, int], choose: Choose) -> Flow:
    """Return which channels the layers of ``module`` keep when they keep the output channels that ``choose`` returns.

    The module has to be in eval mode; it is left as it was. ``shape`` is [channels, height, width] of an image.

    Raises:
        RuntimeError: or any other exception that the network's own forward raises.
    """
    flow = Flow()
    image = noise("", 0, (1, *shape))
    products = Contractions(module, flow.behind, lambda *product: flow.products.append(product), paired=True)
    with torch.no_grad(), positive(module), products, patched(module, _Probe(flow, choose).stand_in):
        module(torch.cat([image, image]))
    return flow


class _Probe:
    """Stand-ins for the forward of layers, which record in a flow what each layer receives and returns."""

    def __init__(self, flow: Flow, choose: Choose) -> None:
        self.flow = flow
        self.choose = choose

    def stand_in(self, path: str, layer: nn.Module) -> Callable[..., Any] | None:
        if isinstance(layer, CONV_LINEAR):
            return self.conv_linear(path, layer)
        if isinstance(layer, nn.RNNBase):
            return self.recurrent(path, layer) if is_plain(layer) else None
        if isinstance(layer, nn.MultiheadAttention):
            return self.attention(path, layer) if layer.batch_first and layer._qkv_same_embed_dim else None
        if isinstance(layer, ChannelSelect):
            return self.select(path, layer)
        return self.channelwise(path, layer) if is_channelwise(layer) else None

    def select(self, path: str, layer: ChannelSelect) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Tensor) -> Tensor:
            kept = keeps(difference(x, 1))
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            return forward(x)

        return run

    def conv_linear(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward
        dim = -1 if isinstance(layer, nn.Linear) else 1

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self.flow.count(path)
            shape = output_shape(layer, forward, x, args, kwargs)
            paired = x.shape[0] % 2 == 0
            rows = difference(x, dim) if paired else x.isnan().movedim(dim, -1)
            kept = keeps(rows)
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
                if rows[0].numel() == rows.shape[-1]:
                    self.flow.single.add(path)
            elif paired:
                self.flow.unknown.add(path)
            chosen = self._outputs(path, layer, kept)
            rows_kept = kept_rows(rows, dim) if kept is not None else {}
            means = signature(restricted(x, rows_kept), dim)
            self.flow.answers[path, call] = Answer(shape, dim, chosen, kept, means, rows_kept, paired)
            lost = torch.ones(shape[dim], dtype=torch.bool)
            lost[chosen] = False
            y = noise(path, call, (shape[0] // 2 if paired else shape[0], *shape[1:]))
            differs = lost.view([-1 if i == dim % len(shape) else 1 for i in range(len(shape))])
            if not paired:
                # Not a batch of images, but a table of positions, for example: NaN marks the lost channels instead.
                return torch.where(differs, torch.nan, y)
            full = rows.all(-1)
            if kept is not None and full.any() and full.dim() == len(shape) - 1:
                # Rows (tokens, positions) that differ in all channels have to differ in the output as well: a layer
                # that mixes tokens sees the channels as rows.
                lost_rows = full.unsqueeze(-1).movedim(-1, dim)
                if all(a in (b, 1) for a, b in zip(lost_rows.shape[1:], shape[1:], strict=True)):
                    differs = differs | lost_rows
            return torch.cat([y, y + differs * noise(path, call, y.shape, 1)])

        return run

    def recurrent(self, path: str, layer: nn.RNNBase) -> Callable[..., Any]:
        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self.flow.count(path)
            rows = difference(x, -1)
            kept = keeps(rows)
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            else:
                self.flow.unknown.add(path)
            state = self.choose(path, layer)
            self._note(self.flow.outputs, path, state)
            chosen = outputs_of(layer, state)
            shape = (*x.shape[:-1], len(outputs_of(layer, torch.arange(layer.hidden_size))))
            self.flow.answers[path, call] = Answer(shape, -1, chosen, kept, signature(x, -1))
            lost = torch.ones(shape[-1], dtype=torch.bool)
            lost[chosen] = False
            y = noise(path, call, (shape[0] // 2, *shape[1:]))
            return torch.cat([y, y + lost * noise(path, call, y.shape, 1)]), None

        return run

    def attention(self, path: str, layer: nn.MultiheadAttention) -> Callable[..., Any]:
        """Return a stand-in like that of a linear layer; queries, keys, values and outputs keep the same channels."""
        project = self.conv_linear(f"{path}.out_proj", layer.out_proj)

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            y = project(x)
            kept = self.flow.inputs.get(f"{path}.out_proj")
            if kept is not None:
                width = layer.embed_dim
                inner = self.choose(path, layer)
                rows = torch.cat([inner, inner + width, inner + 2 * width])
                self.flow.inputs[f"{path}.out_proj"] = inner
                self.flow.tensors[f"{path}.in_proj_weight"] = {0: rows, 1: kept}
                self.flow.tensors[f"{path}.in_proj_bias"] = {0: rows}
            return y, None

        return run

    def channelwise(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Any = None, *args: Any, **kwargs: Any) -> Any:
            y = forward(*(() if x is None else (x,)), *args, **kwargs)
            if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.dim() < 2 or x.shape[0] % 2:
                return y
            call = self.flow.count(path)
            kept_by_dim: dict[int, Tensor] = {}
            kept_along = functools.cache(lambda dim: keeps(difference(x, dim)))
            for name, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
                if tensor is not None and tensor.dim():
                    kept_by_dim.update(self._note_tensor(f"{path}.{name}", tensor, x, kept_along))
            if y.shape != x.shape or not kept_by_dim:
                return y
            dim, kept = next(iter(kept_by_dim.items()))
            self.flow.answers[path, call] = Answer(tuple(y.shape), dim, kept, kept, signature(x, dim))
            # A norm's statistics mix all channels, so its own output would differ everywhere: pass each difference on
            # in its own channel only.
            clean = noise(path, call, (y.shape[0] // 2, *y.shape[1:]))
            return torch.cat([clean, clean + difference(x) * noise(path, call, clean.shape, 1)])

        return run

    def _outputs(self, path: str, layer: nn.Module, kept: Tensor | None) -> Tensor:
        """Record and return the output channels a layer keeps; a depthwise one keeps those of its kept inputs."""
        if is_depthwise(layer) and kept is not None:
            assert isinstance(layer, nn.modules.conv._ConvNd)
            times = layer.out_channels // layer.in_channels
            chosen = (kept[:, None] * times + torch.arange(times)).flatten()
        else:
            chosen = self.choose(path, layer)
        self._note(self.flow.outputs, path, chosen)
        return chosen

    def _note(self, record: dict[str, Tensor], path: str, kept: Tensor) -> None:
        """Record the channels that a layer keeps; it is a conflict if an earlier call recorded others."""
        if path in record and not torch.equal(record[path], kept):
            self.flow.conflicts.add(path)
        record[path] = kept

    def _note_tensor(
        self, name: str, tensor: Tensor, x: Tensor, kept_along: Callable[[int], Tensor | None]
    ) -> dict[int, Tensor]:
        """Record which indices of a tensor stay; return the kept channels by dimension of the layer's input ``x``.

        ``kept_along`` returns the channels that stay along a dimension of ``x``, or None if that is unknown.
        """
        dims = self.flow.tensors.get(name, {})
        kept_by_dim = {}
        for dim, size in enumerate(tensor.shape):
            if size == 1:
                continue
            # Tensors are aligned with the input from the right, as in broadcasting; those of norms with dimension 1.
            aligned = x.dim() - tensor.dim() + dim
            candidates = {at: kept_along(at) for at in (aligned, 1) if 0 < at < x.dim() and x.shape[at] == size}
            known = [(at, kept) for at, kept in candidates.items() if kept is not None]
            if known:
                at, kept = next((pair for pair in known if len(pair[1]) < size), known[0])
                if dim in dims and not torch.equal(dims[dim], kept):
                    self.flow.conflicts.add(name)
                dims[dim] = kept_by_dim[at] = kept
        if dims:
            self.flow.tensors[name] = dims
        return kept_by_dim
